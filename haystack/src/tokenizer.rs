//! Tokenizers that leave a text as long as it is.

use crate::Error;
use std::path::Path;
use tokenizers::Tokenizer;

/// Reads a tokenizer.json. What it says of truncation and padding, which training leaves there, is not taken over: a
/// prompt is tokenized whole.
///
/// # Errors
/// [`Error::Files`], [`Error::TokenizerFile`].
pub fn read(path: &Path) -> Result<Tokenizer, Error> {
    let bytes = headkv_files::read::bytes(path)?;
    let whole = || -> Result<Tokenizer, tokenizers::Error> {
        let mut tokenizer = Tokenizer::from_bytes(&bytes)?;
        tokenizer.with_truncation(None)?.with_padding(None);
        Ok(tokenizer)
    };
    whole().map_err(|e| Error::TokenizerFile {
        path: path.into(),
        why: e.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_text_is_neither_cut_nor_filled_up() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny/tokenizer.json");
        let mut settings: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        settings["truncation"] =
            json!({"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0});
        settings["padding"] = json!({"strategy": {"Fixed": 900}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "x"});
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokenizer.json");
        std::fs::write(&path, settings.to_string()).unwrap();
        let text = "one two three four five six seven eight nine ten";
        let count = |tokenizer: Tokenizer| tokenizer.encode(text, false).unwrap().len();
        assert_ne!(
            count(Tokenizer::from_file(&path).unwrap()),
            count(Tokenizer::from_file(file).unwrap())
        );
        assert_eq!(
            count(read(&path).unwrap()),
            count(Tokenizer::from_file(file).unwrap())
        );
    }
}
