//! Puts a needle into a haystack, at a depth and at a sentence's end.

use crate::{Error, Haystack};
use tokenizers::Tokenizer;

/// A context with its needle inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The text.
    pub text: String,
    /// Its tokens, as many as were asked for, give or take the ones that change when the text is encoded again.
    pub tokens: usize,
}

/// A context of `tokens` tokens, needle included, that the needle divides at `depth` percent.
///
/// As in the original's needle test: the haystack is cut to make room, and the needle goes to the last sentence's end
/// before that depth (at 100 %, to the very end).
///
/// # Errors
/// [`Error::NeedleTooLong`], or [`Error::Tokenizer`].
pub fn insert(
    tokenizer: &Tokenizer,
    haystack: &Haystack,
    needle: &str,
    tokens: usize,
    depth: f64,
) -> Result<Context, Error> {
    let needle = encode(tokenizer, &format!(" {}", needle.trim()))?;
    if needle.len() >= tokens {
        return Err(Error::NeedleTooLong { needle: needle.len(), context: tokens });
    }
    let room = tokens - needle.len();
    let mut hay = Vec::new();
    // A token is seldom longer than 8 bytes; text in other scripts takes another round.
    let mut bytes = room * 8;
    while hay.len() < room {
        hay = encode(tokenizer, &haystack.text(bytes))?;
        bytes *= 2;
    }
    hay.truncate(room);
    let mut at = room;
    if depth < 100.0 {
        at = (room as f64 * depth / 100.0) as usize;
        while at > 0 && !ends_sentence(tokenizer, hay[at - 1]) {
            at -= 1;
        }
    }
    hay.splice(at..at, needle);
    let text = tokenizer.decode(&hay, true).map_err(|e| Error::Tokenizer(e.to_string()))?;
    Ok(Context { text, tokens: hay.len() })
}

fn ends_sentence(tokenizer: &Tokenizer, token: u32) -> bool {
    let text = tokenizer.decode(&[token], false).unwrap_or_default();
    text.trim_end().ends_with(['.', '!', '?', '。', '！', '？'])
}

pub(crate) fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, Error> {
    let encoding = tokenizer.encode_fast(text, false).map_err(|e| Error::Tokenizer(e.to_string()))?;
    Ok(encoding.get_ids().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenizer() -> Tokenizer {
        Tokenizer::from_file(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny/tokenizer.json")).unwrap()
    }

    #[test]
    fn needle_stands_at_a_sentence_end_near_its_depth() {
        let (tokenizer, haystack) = (tokenizer(), Haystack::generated(1));
        let needle = "The best thing to do in Lima is sleep.";
        for depth in [0.0, 20.0, 50.0, 80.0, 100.0] {
            let context = insert(&tokenizer, &haystack, needle, 1000, depth).unwrap();
            assert_eq!(context.tokens, 1000);
            let (before, after) = context.text.split_once(needle).unwrap();
            if depth < 100.0 {
                assert!(before.trim_end().is_empty() || before.trim_end().ends_with('.'), "{before}");
            } else {
                assert!(after.is_empty());
            }
            let part = before.len() as f64 / context.text.len() as f64 * 100.0;
            assert!((part - depth).abs() < 8.0, "{part} % for {depth} %");
            let again = encode(&tokenizer, &context.text).unwrap().len();
            assert!(again.abs_diff(1000) <= 3, "{again}");
        }
    }

    #[test]
    fn a_needle_longer_than_its_context_is_refused() {
        let error = insert(&tokenizer(), &Haystack::generated(1), "a b c d e f g h", 5, 50.0).unwrap_err();
        assert!(error.to_string().contains("does not fit a context of 5"), "{error}");
    }
}
