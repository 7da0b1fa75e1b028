//! Facts scattered over a haystack.

use crate::Error;
use headkv_haystack::{Haystack, Tokenized};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use tokenizers::Tokenizer;

/// A haystack cut into sentences, with the tokens up to the end of each.
pub struct Scatter<'t> {
    tokenizer: &'t Tokenizer,
    text: String,
    /// Where each sentence ends: in bytes and in tokens.
    ends: Vec<(usize, usize)>,
}

impl<'t> Scatter<'t> {
    /// Has enough sentences for contexts of up to `max_tokens` tokens.
    pub fn new(
        tokenizer: &'t Tokenizer,
        haystack: &Haystack,
        max_tokens: usize,
    ) -> Result<Self, Error> {
        let Tokenized { text, ends } = haystack.tokenize(tokenizer, max_tokens)?;
        let marks = text.match_indices(['.', '!', '?']);
        let sentences = marks
            .map(|(at, mark)| at + mark.len())
            .filter(|&end| text[end..].starts_with(char::is_whitespace))
            .map(|end| (end, ends.partition_point(|&token_end| token_end <= end)))
            .collect();
        Ok(Self {
            tokenizer,
            text,
            ends: sentences,
        })
    }

    /// At most `length` tokens of haystack and facts, each fact behind a sentence chosen at random.
    pub fn scatter(
        &self,
        facts: &[String],
        length: usize,
        rng: &mut ChaCha8Rng,
    ) -> Result<String, Error> {
        let count = |text: &str| Ok::<_, Error>(self.tokenizer.encode_fast(text, false)?.len());
        let needed = count(&facts.join(" "))?;
        let room = length
            .checked_sub(needed)
            .ok_or(headkv_haystack::Error::NeedleTooLong {
                needle: needed,
                length,
            })?;
        let mut sentences = self.ends.partition_point(|&(_, tokens)| tokens <= room);
        let places: Vec<f64> = facts.iter().map(|_| rng.random::<f64>()).collect();
        loop {
            let text = self.splice(facts, &places, sentences);
            let tokens = count(&text)?;
            if tokens <= length {
                return Ok(text);
            }
            if sentences == 0 {
                return Err(headkv_haystack::Error::NeedleTooLong {
                    needle: tokens,
                    length,
                }
                .into());
            }
            sentences -= 1;
        }
    }

    /// The first sentences with the facts at those places, 0 to 1.
    fn splice(&self, facts: &[String], places: &[f64], sentences: usize) -> String {
        let mut slots: Vec<_> = places
            .iter()
            .map(|place| (place * (sentences + 1) as f64) as usize)
            .collect();
        slots.sort_unstable();
        let mut text = String::new();
        let mut start = 0;
        let mut facts = slots.into_iter().zip(facts).peekable();
        for sentence in 0..=sentences {
            while let Some((_, fact)) = facts.next_if(|(slot, _)| *slot == sentence) {
                text.push(' ');
                text.push_str(fact);
            }
            if sentence < sentences {
                let end = self.ends[sentence].0;
                text.push_str(&self.text[start..end]);
                start = end;
            }
        }
        text.trim_start().into()
    }
}
