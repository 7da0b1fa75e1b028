//! How a benchmark's prompt is framed and shortened before the model sees it.

use crate::{Error, sample::Prompt, suggest};
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

impl Protocol {
    /// Shortens a prompt to the limit and frames it.
    ///
    /// As in LongBench, a prompt of more than `limit` tokens loses its middle: half the limit is kept from each end,
    /// decoded without special tokens. The paper's scripts count `[INST]` before cutting, so it is added first.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn frame(
        self,
        text: &str,
        model: &str,
        tokenizer: &Tokenizer,
        limit: usize,
    ) -> Result<Prompt, Error> {
        let llama2 = ["llama2", "llama-2"]
            .iter()
            .any(|name| model.to_lowercase().contains(name));
        let text = if self == Protocol::Paper && llama2 {
            format!("[INST] {text} [/INST]")
        } else {
            text.into()
        };
        let chat = self == Protocol::Chat;
        Ok(Prompt {
            text: without_middle(&text, tokenizer, limit)?,
            chat,
            special: !chat,
        })
    }
}

/// The text, or the first and the last `limit / 2` tokens of it if it has more than `limit`.
///
/// # Errors
/// [`Error::Tokenizer`].
pub fn without_middle(text: &str, tokenizer: &Tokenizer, limit: usize) -> Result<String, Error> {
    // A token is at least one byte: short texts need no counting.
    if text.len() <= limit {
        return Ok(text.into());
    }
    let encoding = tokenizer.encode_fast(text, true)?;
    let ids = encoding.get_ids();
    if ids.len() <= limit {
        return Ok(text.into());
    }
    let half = limit / 2;
    let head = tokenizer.decode(&ids[..half], true)?;
    let tail = tokenizer.decode(&ids[ids.len() - half..], true)?;
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

    #[test]
    fn llama_2_gets_its_marks() {
        let tokenizer = tokenizer();
        let frame =
            |protocol: Protocol, model| protocol.frame("Hi", model, &tokenizer, 99).unwrap();
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
}
