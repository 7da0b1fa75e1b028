//! tokenizer.json, as far as the runtime panics on it.

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, Visitor},
};
use std::fmt;

#[derive(Deserialize)]
struct Tokenizer {
    #[serde(rename = "model")]
    _model: Model,
    #[serde(rename = "added_tokens")]
    _added_tokens: Vec<IgnoredAny>,
    truncation: Option<IgnoredAny>,
    padding: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "vocab")]
    _vocab: Vocabulary,
}

/// A table with a token in it.
struct Vocabulary;

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Table;

        impl<'de> Visitor<'de> for Table {
            type Value = Vocabulary;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of tokens, the only vocabulary that the runtime reads")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocabulary, A::Error> {
                let mut tokens = 0;
                while map.next_entry::<IgnoredAny, u64>()?.is_some() {
                    tokens += 1;
                }
                if tokens == 0 {
                    return Err(A::Error::custom("the vocabulary is empty"));
                }
                Ok(Vocabulary)
            }
        }

        deserializer.deserialize_map(Table)
    }
}

/// Checks a tokenizer's text; whether it says that prompts are to be cut or filled up.
///
/// # Errors
/// What is wrong, as the end of a sentence that begins with the file's name.
pub fn read(text: &[u8]) -> Result<bool, String> {
    let tokenizer: Tokenizer =
        serde_json::from_slice(text).map_err(|e| format!("is no tokenizer ({e})"))?;
    Ok(tokenizer.truncation.is_some() || tokenizer.padding.is_some())
}

/// The same tokenizer, which neither cuts prompts nor fills them up.
///
/// # Errors
/// As [`read`].
pub fn unlimited(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut settings: serde_json::Value =
        serde_json::from_slice(text).map_err(|e| format!("is no tokenizer ({e})"))?;
    for key in ["truncation", "padding"] {
        settings[key] = serde_json::Value::Null;
    }
    Ok(settings.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tables_of_tokens_are_read() {
        let with = |vocab: &str, rest: &str| {
            format!(r#"{{"model": {{"vocab": {vocab}}}, "added_tokens": []{rest}}}"#)
        };
        assert_eq!(read(with(r#"{"a": 0}"#, "").as_bytes()), Ok(false));
        let limits = r#", "truncation": {"max_length": 5}, "padding": null"#;
        let limited = with(r#"{"a": 0}"#, limits);
        assert_eq!(read(limited.as_bytes()), Ok(true));
        assert_eq!(read(&unlimited(limited.as_bytes()).unwrap()), Ok(false));
        for (text, why) in [
            (with("{}", ""), "the vocabulary is empty"),
            (with(r#"[["a", 0.5]]"#, ""), "expected a table of tokens"),
            (with(r#"{"a": -1}"#, ""), "invalid value"),
            (r#"{"added_tokens": []}"#.into(), "missing field `model`"),
            (
                r#"{"model": {"vocab": {"a": 0}}}"#.into(),
                "missing field `added_tokens`",
            ),
            ("{}".into(), "missing field"),
            (String::new(), "EOF"),
        ] {
            let message = read(text.as_bytes()).unwrap_err();
            assert!(
                message.starts_with("is no tokenizer (") && message.contains(why),
                "{message}"
            );
        }
    }
}
