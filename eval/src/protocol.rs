//! How a benchmark's prompt is framed and shortened before the model sees it.

use crate::{
    Error,
    datasets::{Target, UNKNOWN_TEMPLATE},
    sample::Prompt,
    suggest,
};
use std::{fmt, str::FromStr};
use tokenizers::Tokenizer;

/// Who frames the prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// As in the paper's scripts: no template, but `[INST]` for Llama-2.
    #[default]
    Paper,
    /// The model's own chat template.
    Chat,
}

/// The most tokens of a prompt in the paper's scripts, by what the model's name contains; the last that fits counts.
const ORIGINAL_LIMITS: [(&str, usize); 7] = [
    ("llama2", 3950),
    ("llama-2", 3950),
    ("llama3", 7950),
    ("llama-3", 7950),
    ("mistral", 31500),
    ("qwen2", 31500),
    ("phi", 31500),
];

/// Tokens between the longest prompt and the model's limit: a prompt that was cut may have a few more when its text is
/// turned into tokens again.
const MARGIN: usize = 64;

/// The most tokens of a prompt in the paper's scripts, which go by the model's name; none for a name unknown to them.
pub fn original_limit(model: &str) -> Option<usize> {
    let model = model.to_lowercase();
    let mut limits = ORIGINAL_LIMITS.iter().rev();
    limits
        .find(|(name, _)| model.contains(name))
        .map(|(_, tokens)| *tokens)
}

impl Protocol {
    /// The most tokens of a prompt: those asked for, or those of the original as far as the model's context allows.
    ///
    /// # Errors
    /// [`Error::Option`] if what was asked for does not fit the model's context together with `answer` tokens.
    pub fn limit(
        self,
        asked: Option<usize>,
        original: Option<usize>,
        target: &Target,
        answer: usize,
    ) -> Result<usize, Error> {
        let template = match (self, target.chat) {
            (Protocol::Chat, None) => UNKNOWN_TEMPLATE,
            _ => 0,
        };
        let room = target.context.saturating_sub(answer + template);
        let safe = room.saturating_sub(MARGIN);
        let limit = asked.unwrap_or(original.unwrap_or(safe).min(safe));
        if (2..=room).contains(&limit) {
            return Ok(limit);
        }
        let fix = if safe >= 2 {
            format!("set --max-input to 2 to {safe}")
        } else {
            "choose a model with a longer context".into()
        };
        Err(Error::Option(format!(
            "a prompt of up to {limit} tokens (--max-input) and an answer of up to {answer} do not fit the {} that {} can \
             read; {fix}",
            target.context, target.model
        )))
    }

    /// Its name, with the limit that was asked for: prompts that were cut otherwise are other prompts.
    pub fn label(self, asked: Option<usize>) -> String {
        asked.map_or(self.to_string(), |tokens| {
            format!("{self}, up to {tokens} tokens")
        })
    }

    /// Frames a prompt and shortens it to the limit.
    ///
    /// As in LongBench, a prompt of more than `limit` tokens loses its middle: half the limit is kept from each end. The
    /// paper's scripts count what frames it, `[INST]` or the chat template, so it is framed before it is cut; a template
    /// that only a server knows comes on top.
    ///
    /// # Errors
    /// [`Error::Tokenizer`]; a model without a chat template.
    pub fn frame(self, text: &str, target: &Target, limit: usize) -> Result<Prompt, Error> {
        let tokenizer = target.tokenizer;
        let plain = |text, chat| Prompt {
            text,
            chat,
            special: !chat,
            apart: None,
        };
        match (self, target.chat) {
            (Protocol::Paper, _) if is_llama_2(target.model) => {
                let text = format!("[INST] {text} [/INST]");
                Ok(plain(without_middle(&text, tokenizer, limit)?, false))
            }
            (Protocol::Paper, _) => Ok(plain(without_middle(text, tokenizer, limit)?, false)),
            (Protocol::Chat, Some(template)) => {
                let ids = template(text)?;
                if ids.len() <= limit {
                    return Ok(plain(text.into(), true));
                }
                // The template is in the text now, special tokens and all.
                Ok(Prompt {
                    text: ends(&ids, tokenizer, limit, false)?,
                    chat: false,
                    special: false,
                    apart: None,
                })
            }
            (Protocol::Chat, None) => Ok(plain(without_middle(text, tokenizer, limit)?, true)),
        }
    }
}

fn is_llama_2(model: &str) -> bool {
    let model = model.to_lowercase();
    ["llama2", "llama-2"]
        .iter()
        .any(|name| model.contains(name))
}

/// The text, or the first and the last `limit / 2` tokens of it if it has more than `limit`.
///
/// # Errors
/// [`Error::Tokenizer`].
pub fn without_middle(text: &str, tokenizer: &Tokenizer, limit: usize) -> Result<String, Error> {
    // A token is at least one byte, save the few that tokenizers add: short texts need no counting.
    if text.len() + MARGIN <= limit {
        return Ok(text.into());
    }
    let encoding = tokenizer.encode_fast(text, true)?;
    let ids = encoding.get_ids();
    if ids.len() <= limit {
        return Ok(text.into());
    }
    ends(ids, tokenizer, limit, true)
}

/// The text of the first and the last `limit / 2` tokens.
fn ends(
    ids: &[u32],
    tokenizer: &Tokenizer,
    limit: usize,
    skip_special: bool,
) -> Result<String, Error> {
    let half = limit / 2;
    let head = tokenizer.decode(&ids[..half], skip_special)?;
    let tail = tokenizer.decode(&ids[ids.len() - half..], skip_special)?;
    Ok(head + &tail)
}

impl FromStr for Protocol {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "paper" => Ok(Protocol::Paper),
            "chat" => Ok(Protocol::Chat),
            _ => Err(Error::Option(suggest::unknown(
                "protocol",
                name,
                ["paper", "chat"],
            ))),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Paper => "paper",
            Protocol::Chat => "chat",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenizer() -> Tokenizer {
        Tokenizer::from_file(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../models/tiny/tokenizer.json"
        ))
        .unwrap()
    }

    #[test]
    fn the_middle_goes() {
        let tokenizer = tokenizer();
        let text: String = (0..200).map(|n| format!("word {n}. ")).collect();
        let short = without_middle(&text, &tokenizer, 51).unwrap();
        let ids = tokenizer.encode(text.as_str(), false).unwrap();
        let ids = ids.get_ids();
        let expected = [&ids[..25], &ids[ids.len() - 25..]]
            .map(|half| tokenizer.decode(half, true).unwrap())
            .concat();
        assert_eq!(short, expected);
        assert_eq!(without_middle(&text, &tokenizer, ids.len()).unwrap(), text);
        assert_eq!(without_middle("a", &tokenizer, 10).unwrap(), "a");
    }

    fn target<'a>(model: &'a str, tokenizer: &'a Tokenizer, context: usize) -> Target<'a> {
        Target {
            model,
            tokenizer,
            chat: None,
            context,
        }
    }

    #[test]
    fn a_limit_that_was_asked_for_is_part_of_the_label() {
        assert_eq!(Protocol::Paper.label(None), "paper");
        assert_eq!(Protocol::Chat.label(Some(900)), "chat, up to 900 tokens");
    }

    #[test]
    fn llama_2_gets_its_marks() {
        let tokenizer = tokenizer();
        let frame = |protocol: Protocol, model| {
            let target = target(model, &tokenizer, 8192);
            protocol.frame("Hi", &target, 999).unwrap()
        };
        assert_eq!(
            frame(Protocol::Paper, "Llama-2-7b-chat").text,
            "[INST] Hi [/INST]"
        );
        assert_eq!(
            frame(Protocol::Paper, "Meta-Llama-3-8B-Instruct").text,
            "Hi"
        );
        let chat = frame(Protocol::Chat, "Llama-2-7b-chat");
        assert!(chat.chat && !chat.special && chat.text == "Hi");
        assert!(
            "papr"
                .parse::<Protocol>()
                .unwrap_err()
                .to_string()
                .contains("did you mean paper?")
        );
    }

    #[test]
    fn a_chat_is_cut_after_its_template() {
        let tokenizer = tokenizer();
        let template = |text: &str| {
            let text = format!("<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n");
            Ok(tokenizer.encode(text, false)?.get_ids().to_vec())
        };
        let target = Target {
            chat: Some(&template),
            ..target("tiny", &tokenizer, 8192)
        };
        let text = "one two three four ".repeat(50);
        let whole = template(&text).unwrap();
        let uncut = Protocol::Chat.frame(&text, &target, whole.len()).unwrap();
        assert!(uncut.chat && uncut.text == text);
        let cut = Protocol::Chat.frame(&text, &target, 60).unwrap();
        assert!(!cut.chat && !cut.special);
        let ids = tokenizer.encode(cut.text.as_str(), false).unwrap();
        let ids = ids.get_ids();
        assert_eq!(
            (&ids[..10], &ids[ids.len() - 10..]),
            (&whole[..10], &whole[whole.len() - 10..])
        );
        assert!(ids.len().abs_diff(60) <= 2, "{}", ids.len());
    }

    #[test]
    fn limits_are_those_of_the_original_where_they_fit() {
        let tokenizer = tokenizer();
        let limit = |model, context, asked| {
            let target = target(model, &tokenizer, context);
            Protocol::Paper
                .limit(asked, original_limit(model), &target, 32)
                .map_err(|e| e.to_string())
        };
        assert_eq!(limit("Meta-Llama-3-8B-Instruct", 8192, None), Ok(7950));
        assert_eq!(limit("mistral-7b-instruct-v0.2", 32768, None), Ok(31500));
        assert_eq!(limit("Llama-2-7b-chat-hf", 4096, None), Ok(3950));
        assert_eq!(limit("mistral-7b", 8192, None), Ok(8192 - 32 - MARGIN));
        assert_eq!(limit("tiny", 8192, None), Ok(8192 - 32 - MARGIN));
        assert_eq!(limit("llama-3", 8192, Some(8160)), Ok(8160));
        for (model, context, asked) in [
            ("tiny", 8192, Some(8161)),
            ("tiny", 8192, Some(0)),
            ("tiny", 90, None),
        ] {
            let message = limit(model, context, asked).unwrap_err();
            assert!(message.contains("--max-input"), "{message}");
            // No range is offered that holds nothing.
            assert!(!message.contains("2 to 0"), "{message}");
        }
        let unknown = Protocol::Chat.limit(None, None, &target("m", &tokenizer, 8192), 32);
        assert_eq!(unknown.unwrap(), 8192 - 32 - UNKNOWN_TEMPLATE - MARGIN);
    }
}
