//! The text that hides the needle: generated, one file, or all text files of a folder.

use crate::{Error, text};
use headkv_files::read;
use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};
use tokenizers::Tokenizer;

/// The most tokens of a context: more than any model takes.
pub const MOST_TOKENS: usize = 1 << 24;

/// Bytes of text that are fetched for a token at first: few tokens are longer than this on average.
const BYTES_OF_A_TOKEN: usize = 6;

/// No tokenizer makes tokens that are longer than this on average.
const MOST_BYTES_OF_A_TOKEN: usize = 200;

/// Tokens that are fetched and not used: where a text is cut, its last ones may be others than in a longer text.
const MARGIN: usize = 16;

/// A source of text of any length; a file or folder that is too short is repeated.
#[derive(Clone, Debug, PartialEq)]
pub struct Haystack(Source);

#[derive(Clone, Debug, PartialEq)]
enum Source {
    Generated { seed: u64 },
    Files(Vec<PathBuf>),
}

/// The beginning of a haystack in tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Tokenized {
    /// The text.
    pub text: String,
    /// Where each token ends, in bytes.
    pub ends: Vec<usize>,
}

impl Haystack {
    /// Text that the project generates itself (see [`text`]); the same seed gives the same text.
    pub fn generated(seed: u64) -> Self {
        Self(Source::Generated { seed })
    }

    /// A text file, or all `.txt` files of a folder in the order of their names. Bytes that are no UTF-8 are replaced. Of
    /// the files, only as much is read as a context needs, when it needs it.
    ///
    /// # Errors
    /// [`Error::Files`] for what cannot be read, [`Error::NoText`] if nothing but white space was found.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let mut files = Vec::new();
        if path.is_dir() {
            let failed = || headkv_files::Error::io("read", path);
            for entry in fs::read_dir(path).map_err(failed())? {
                let file = entry.map_err(failed())?.path();
                if file.extension().is_some_and(|e| e == "txt") {
                    files.push(file);
                }
            }
            files.sort();
        } else {
            files.push(path.into());
        }
        for file in &files {
            if !trimmed(file, 1)?.is_empty() {
                return Ok(Self(Source::Files(files)));
            }
        }
        Err(Error::NoText(path.into()))
    }

    /// At least that many bytes of text; a longer text begins with the shorter one.
    ///
    /// # Errors
    /// [`Error::Files`] if a file cannot be read any more.
    pub fn text(&self, bytes: usize) -> Result<String, Error> {
        match &self.0 {
            Source::Generated { seed } => Ok(text::generate(*seed, bytes)),
            Source::Files(files) => {
                let text = beginning(files, bytes)?;
                Ok(text.repeat(bytes.div_ceil(text.len().max(1)).max(1)))
            }
        }
    }

    /// At least that many tokens of text, and where each ends. Only as much text is read or generated as they need.
    ///
    /// # Errors
    /// [`Error::Endless`] for more than [`MOST_TOKENS`], [`Error::FewTokens`] if no text has that many, [`Error::Files`],
    /// [`Error::Tokenizer`].
    pub fn tokenize(&self, tokenizer: &Tokenizer, tokens: usize) -> Result<Tokenized, Error> {
        if tokens > MOST_TOKENS {
            return Err(Error::Endless {
                length: tokens,
                max: MOST_TOKENS,
            });
        }
        let mut each = BYTES_OF_A_TOKEN;
        loop {
            let text = self.text(each * tokens.max(1))?;
            let encoding = tokenizer.encode(text.as_str(), false)?;
            if encoding.len() >= tokens + MARGIN {
                let ends = encoding.get_offsets().iter().map(|&(_, end)| end);
                return Ok(Tokenized {
                    ends: ends.collect(),
                    text,
                });
            }
            if text.len() > MOST_BYTES_OF_A_TOKEN * (tokens + MARGIN) {
                return Err(Error::FewTokens {
                    found: encoding.len(),
                    bytes: text.len(),
                    wanted: tokens,
                });
            }
            each *= 2;
        }
    }
}

/// The files' texts one after the other, each with a line break; no more than `bytes` of them, to a whole character.
fn beginning(files: &[PathBuf], bytes: usize) -> Result<String, Error> {
    let mut all = String::new();
    for file in files {
        let room = bytes - all.len();
        let text = trimmed(file, room)?;
        all.push_str(&text[..text.ceil_char_boundary(room)]);
        if all.len() >= bytes {
            break;
        }
        all.push('\n');
        if all.len() >= bytes {
            break;
        }
    }
    Ok(all)
}

/// A file's text without white space around it: all of it, or more than `bytes` of it.
fn trimmed(path: &Path, bytes: usize) -> Result<String, Error> {
    let mut file = read::open(path)?;
    let mut read = Vec::new();
    // The last character may be torn where reading stops.
    let enough = bytes + char::MAX.len_utf8();
    let mut more = enough as u64;
    loop {
        let taken = file.by_ref().take(more).read_to_end(&mut read);
        let taken = taken.map_err(headkv_files::Error::io("read", path))?;
        let text = String::from_utf8_lossy(&read);
        let text = text.trim();
        if (taken as u64) < more || text.len() >= enough {
            return Ok(text.into());
        }
        more = read.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokenizers::models::wordlevel::WordLevel;

    fn tiny() -> Tokenizer {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny/tokenizer.json");
        Tokenizer::from_file(file).unwrap()
    }

    #[test]
    fn a_folder_is_read_in_order_and_repeated() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("b.txt"), "Second.").unwrap();
        fs::write(dir.path().join("a.txt"), b"First\xff.\n").unwrap();
        fs::write(dir.path().join("c.md"), "Never.").unwrap();
        let text = Haystack::read(dir.path()).unwrap().text(20).unwrap();
        assert_eq!(text, "First\u{fffd}.\nSecond.\nFirst\u{fffd}.\nSecond.\n");
    }

    proptest! {
        #[test]
        fn what_is_read_begins_the_whole(
            files in prop::collection::vec("[ a-cé世\n]{0,30}", 1..4),
            bytes in 1usize..90,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let mut whole = String::new();
            for (at, text) in files.iter().enumerate() {
                fs::write(dir.path().join(format!("{at}.txt")), text).unwrap();
                whole += text.trim();
                whole += "\n";
            }
            match Haystack::read(dir.path()) {
                Err(e) => prop_assert!(whole.trim().is_empty(), "{e}"),
                Ok(haystack) => {
                    let text = haystack.text(bytes).unwrap();
                    prop_assert!(text.len() >= bytes);
                    prop_assert!(whole.repeat(90).starts_with(&text), "{text:?} of {whole:?}");
                }
            }
        }
    }

    /// A sparse file of 1 TB: whoever read it whole would not come back.
    #[test]
    fn no_more_is_read_than_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("large.txt");
        let sentence = "The miller walked to the market.\n".repeat(1000);
        fs::write(&path, &sentence).unwrap();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(1 << 40).unwrap();
        let large = Haystack::read(&path).unwrap();
        let tokens = large.tokenize(&tiny(), 300).unwrap();
        assert!(tokens.text.len() < 300 * 200 && sentence.starts_with(&tokens.text));
        // A cut changes no token that is used.
        let whole = tiny().encode(sentence, false).unwrap();
        let ends = whole.get_offsets().iter().map(|&(_, end)| end);
        assert_eq!(tokens.ends[..300], ends.take(300).collect::<Vec<_>>());
    }

    #[test]
    fn a_tokenizer_that_makes_nothing_of_text_is_refused() {
        let nothing = Tokenizer::new(WordLevel::default());
        let message = |tokenizer: &Tokenizer, tokens| {
            let haystack = Haystack::generated(0);
            haystack
                .tokenize(tokenizer, tokens)
                .unwrap_err()
                .to_string()
        };
        let said = message(&nothing, 100);
        assert!(
            said.contains("where 100 are needed; its vocabulary is damaged")
                || said.starts_with("tokenizer: "),
            "{said}"
        );
        // A word for everything: one token, however much text there is.
        let vocabulary = [("?".to_string(), 0)].into_iter().collect();
        let one = WordLevel::builder().vocab(vocabulary).unk_token("?".into());
        let one = Tokenizer::new(one.build().unwrap());
        let said = message(&one, 100);
        assert!(
            said.starts_with("the tokenizer makes 1 tokens of "),
            "{said}"
        );
        let said = message(&one, usize::MAX);
        assert!(said.contains("is more than the 16777216"), "{said}");
    }

    #[test]
    fn bad_sources_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let message = |path: &Path| Haystack::read(path).unwrap_err().to_string();
        assert!(message(dir.path()).contains("holds no text"));
        assert!(message(&dir.path().join("none")).starts_with("cannot read"));
        let empty = dir.path().join("empty.txt");
        fs::write(&empty, " \n").unwrap();
        assert!(message(&empty).contains("empty.txt holds no text"));
    }
}
