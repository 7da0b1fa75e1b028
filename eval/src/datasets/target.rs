//! The model as far as prompts depend on it.

use crate::Error;
use tokenizers::Tokenizer;

/// Token ids of a user's message in the model's own chat template, up to where its answer begins.
pub type ChatTemplate<'a> = dyn Fn(&str) -> Result<Vec<u32>, Error> + 'a;

/// Tokens that are set aside for a chat template that only a server knows.
pub(crate) const UNKNOWN_TEMPLATE: usize = 128;

/// The model as far as prompts depend on it.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// The model's name.
    pub model: &'a str,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Its chat template; none where only a server knows it.
    pub chat: Option<&'a ChatTemplate<'a>>,
    /// Tokens of its context, prompt and answer together.
    pub context: usize,
}

impl Target<'_> {
    /// Refuses contexts of `length` tokens whose question and answer do not fit the model. `question` is the prompt
    /// without its context; its chat template or special tokens count too.
    pub(super) fn check_length(
        &self,
        length: usize,
        question: &str,
        chat: bool,
        answer: usize,
    ) -> Result<(), Error> {
        let refuse = |question: usize| {
            Err(Error::Option(format!(
                "a context of {length} tokens, {question} of question and {answer} of answer do not fit the {} that {} \
                 can read; lower --lengths",
                self.context, self.model
            )))
        };
        if length > self.context {
            return refuse(0);
        }
        let question = match self.chat {
            Some(template) if chat => template(question)?.len(),
            _ => {
                let template = if chat { UNKNOWN_TEMPLATE } else { 0 };
                self.tokenizer.encode_fast(question, !chat)?.len() + template
            }
        };
        if length + question + answer <= self.context {
            return Ok(());
        }
        refuse(question)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chat_template_counts() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny/tokenizer.json");
        let tokenizer = Tokenizer::from_file(file).unwrap();
        let template = |text: &str| {
            let ids = tokenizer.encode(text, false)?.get_ids().to_vec();
            Ok([vec![1; 30], ids].concat())
        };
        let question = tokenizer.encode("Why?", false).unwrap().len();
        let fits = |template: Option<&ChatTemplate>, chat, length| {
            let target = Target {
                model: "tiny",
                tokenizer: &tokenizer,
                chat: template,
                context: 500,
            };
            target.check_length(length, "Why?", chat, 50).is_ok()
        };
        let room = 450 - question;
        assert!(fits(Some(&template), false, room));
        assert!(!fits(Some(&template), false, room + 1));
        assert!(fits(Some(&template), true, room - 30));
        assert!(!fits(Some(&template), true, room - 29));
        assert!(fits(None, true, room - UNKNOWN_TEMPLATE));
        assert!(!fits(None, true, room - UNKNOWN_TEMPLATE + 1));
    }
}
