//! Puts a needle into a haystack, at a depth that is measured in tokens.

use crate::{Error, Haystack, Tokenized};
use std::ops::Range;
use tokenizers::Tokenizer;

/// A haystack that was tokenized once and takes needles at any depth and length.
pub struct Inserter<'t> {
    tokenizer: &'t Tokenizer,
    text: String,
    /// Where each token of `text` ends, in bytes.
    ends: Vec<usize>,
    max_tokens: usize,
}

/// A context with its needle.
#[derive(Clone, Debug, PartialEq)]
pub struct Context {
    /// The text.
    pub text: String,
    /// How many tokens it has.
    pub tokens: usize,
    /// Where the needle stands in the text, in bytes, without the space before it.
    pub needle: Range<usize>,
}

impl<'t> Inserter<'t> {
    /// Prepares contexts of up to `max_tokens` tokens.
    ///
    /// # Errors
    /// As [`Haystack::tokenize`].
    pub fn new(
        tokenizer: &'t Tokenizer,
        haystack: &Haystack,
        max_tokens: usize,
    ) -> Result<Self, Error> {
        let Tokenized { text, mut ends } = haystack.tokenize(tokenizer, max_tokens)?;
        ends.truncate(max_tokens);
        Ok(Self {
            tokenizer,
            text,
            ends,
            max_tokens,
        })
    }

    /// A context of `length` tokens, the needle included, with the needle at `depth` percent.
    ///
    /// As in the original needle test, the haystack is cut to what the needle leaves of `length`, and the needle goes
    /// behind the last sentence that ends at or before the depth. At depth 100 the needle is the end of the context,
    /// which is then shorter by the haystack's unfinished sentence. The context never has more tokens than `length`;
    /// it can have one or two less where the cut changes how its last word is tokenized.
    ///
    /// # Errors
    /// [`Error::NeedleTooLong`], [`Error::ContextTooLong`], [`Error::Depth`], [`Error::Tokenizer`].
    pub fn insert(&self, needle: &str, length: usize, depth: f64) -> Result<Context, Error> {
        if !(0.0..=100.0).contains(&depth) {
            return Err(Error::Depth(depth));
        }
        if length > self.max_tokens {
            return Err(Error::ContextTooLong {
                length,
                max: self.max_tokens,
            });
        }
        let needle_tokens = self.count(&format!(" {needle}"))?;
        let mut room = length
            .checked_sub(needle_tokens)
            .ok_or(Error::NeedleTooLong {
                needle: needle_tokens,
                length,
            })?;
        loop {
            let mut context = self.splice(needle, room, depth);
            context.tokens = self.count(&context.text)?;
            // Tokens can merge or split at the seams.
            match context.tokens.checked_sub(length) {
                None | Some(0) => return Ok(context),
                Some(_) if room == 0 => {
                    return Err(Error::NeedleTooLong {
                        needle: context.tokens,
                        length,
                    });
                }
                Some(excess) => room = room.saturating_sub(excess),
            }
        }
    }

    /// The first `room` tokens of the haystack with the needle in them.
    fn splice(&self, needle: &str, room: usize, depth: f64) -> Context {
        let mut point = (room as f64 * depth / 100.0) as usize;
        while point > 0 && !self.ends_sentence(point) {
            point -= 1;
        }
        let point_bytes = self.bytes(point);
        let head = &self.text[..point_bytes];
        let tail = if depth < 100.0 {
            &self.text[point_bytes..self.bytes(room)]
        } else {
            ""
        };
        let before = if head.ends_with(char::is_whitespace) {
            ""
        } else {
            " "
        };
        let behind = if tail.is_empty() || tail.starts_with(char::is_whitespace) {
            ""
        } else {
            " "
        };
        let start = head.len() + before.len();
        Context {
            text: [head, before, needle, behind, tail].concat(),
            tokens: 0,
            needle: start..start + needle.len(),
        }
    }

    /// Whether the first `tokens` tokens end a sentence: with its last mark, and white space to follow.
    fn ends_sentence(&self, tokens: usize) -> bool {
        let (head, tail) = self.text.split_at(self.bytes(tokens));
        let (spaced, head) = (head.ends_with(char::is_whitespace), head.trim_end());
        let marked = head
            .trim_end_matches(['"', '\'', '”', '’', ')'])
            .ends_with(['.', '!', '?', '。', '！', '？']);
        marked
            && (spaced
                || tail
                    .chars()
                    .next()
                    .is_none_or(|c| c.is_whitespace() || !c.is_ascii()))
    }

    /// Where the first `tokens` tokens end; a token that ends inside a character counts with all of it.
    fn bytes(&self, tokens: usize) -> usize {
        let end = tokens.checked_sub(1).map_or(0, |last| self.ends[last]);
        self.text.ceil_char_boundary(end)
    }

    fn count(&self, text: &str) -> Result<usize, Error> {
        Ok(self.tokenizer.encode(text, false)?.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::needle;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
        Tokenizer::from_file(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../models/tiny/tokenizer.json"
        ))
        .unwrap()
    });
    static INSERTER: LazyLock<Inserter<'static>> =
        LazyLock::new(|| Inserter::new(&TOKENIZER, &Haystack::generated(7), 2000).unwrap());

    proptest! {
        #[test]
        fn the_needle_stands_whole_behind_a_sentence(length in 60usize..2000, depth in 0.0..=100.0) {
            let needle = needle::san_francisco().needle;
            let context = INSERTER.insert(&needle, length, depth).unwrap();
            prop_assert_eq!(&context.text[context.needle.clone()], &needle);
            let head = context.text[..context.needle.start].trim_end();
            prop_assert!(head.is_empty() || head.ends_with(['.', '?', '!']), "...{head}");
            let tail = &context.text[context.needle.end..];
            prop_assert!(tail.is_empty() || tail.starts_with(char::is_whitespace));
            // What surrounds the needle is the haystack, letter by letter.
            let around = [head, tail].concat();
            let hay = INSERTER.text.split_whitespace();
            prop_assert!(around.split_whitespace().zip(hay).filter(|(a, b)| a != b).count() <= 1);
            prop_assert_eq!(context.tokens, TOKENIZER.encode(context.text.as_str(), false).unwrap().len());
            prop_assert!(context.tokens <= length);
            if depth < 100.0 {
                prop_assert!(context.tokens + 2 >= length, "{} of {length}", context.tokens);
            } else {
                prop_assert!(tail.is_empty());
            }
        }
    }

    #[test]
    fn depth_is_measured_in_tokens() {
        let needle = needle::san_francisco().needle;
        let mut last = None;
        for depth in [0.0, 20.0, 40.0, 60.0, 80.0, 100.0] {
            let context = INSERTER.insert(&needle, 1000, depth).unwrap();
            let before = INSERTER
                .count(&context.text[..context.needle.start])
                .unwrap() as f64;
            let expected = (1000.0 - 25.0) * depth / 100.0;
            assert!(
                before <= expected + 5.0 && before > expected - 60.0,
                "{depth}: {before}"
            );
            assert!(last < Some(context.needle.start) || last.is_none());
            last = Some(context.needle.start);
        }
    }

    #[test]
    fn impossible_insertions_are_refused() {
        let message = |needle: &str, length, depth| {
            INSERTER
                .insert(needle, length, depth)
                .unwrap_err()
                .to_string()
        };
        let needle = needle::san_francisco().needle;
        assert!(
            message(&needle, 10, 0.0).contains("does not fit a context of 10; ask for a longer")
        );
        assert!(message(&needle, 2001, 0.0).contains("prepared for 2000"));
        assert!(message(&needle, 1000, 100.5).contains("depth 100.5"));
        assert!(message(&needle, 1000, f64::NAN).contains("depth NaN"));
    }
}
