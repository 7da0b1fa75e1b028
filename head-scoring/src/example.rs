//! The examples: every needle in contexts of every length, at every depth.

use crate::Error;
use headkv_engine::Engine;
use headkv_haystack::{Haystack, Inserter, Needle, Template, span};
use std::ops::Range;

/// Up to this share of the needle's tokens nothing was found. The original asks for 0.9, which loses needles that are
/// reworded, such as "Because he is ..." for "... because he is ...".
pub const LEAST_OVERLAP: f64 = 0.5;

/// The most examples of a run.
pub const MOST_EXAMPLES: usize = 1_000_000;

/// The most tokens of all contexts of a run: the prompts are kept while it lasts, four bytes a token.
pub const MOST_TOKENS: usize = 1 << 28;

/// What examples are made of.
#[derive(Clone, Debug)]
pub struct Grid {
    /// The needles.
    pub needles: Vec<Needle>,
    /// The text around them.
    pub haystack: Haystack,
    /// Lengths of the context in tokens, needle included, question not.
    pub lengths: Vec<usize>,
    /// Where the needle stands, in percent of the context.
    pub depths: Vec<f64>,
    /// The prompt around context and question.
    pub template: Template,
}

/// A prompt with a needle.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// Token ids.
    pub prompt: Vec<u32>,
    /// Positions of the `real_needle`.
    pub needle: Range<usize>,
    /// The right answer.
    pub answer: String,
}

/// Refuses what makes no run, before anything is made of it: `draws` needles at every length and depth.
///
/// # Errors
/// [`Error::Nothing`], [`Error::Twice`], [`Error::TooMany`], a depth outside 0 to 100.
pub fn check(draws: usize, lengths: &[usize], depths: &[f64]) -> Result<(), Error> {
    for (what, count) in [
        ("needles", draws),
        ("lengths", lengths.len()),
        ("depths", depths.len()),
    ] {
        if count == 0 {
            return Err(Error::Nothing(what));
        }
    }
    if let Some(depth) = depths.iter().find(|d| !(0.0..=100.0).contains(*d)) {
        return Err(headkv_haystack::Error::Depth(*depth).into());
    }
    twice("length", lengths)?;
    twice("depth", depths)?;
    let each = draws.saturating_mul(depths.len());
    let examples = each.saturating_mul(lengths.len());
    let all = lengths
        .iter()
        .fold(0usize, |all, &length| all.saturating_add(length));
    let tokens = each.saturating_mul(all);
    // A single example that is too long is not one too many: the model's context has a message of its own.
    if examples > MOST_EXAMPLES || (examples > lengths.len() && tokens > MOST_TOKENS) {
        return Err(Error::TooMany {
            draws,
            lengths: lengths.len(),
            depths: depths.len(),
            examples,
            tokens,
            most: MOST_EXAMPLES,
            most_tokens: MOST_TOKENS,
        });
    }
    Ok(())
}

fn twice<T: PartialEq + std::fmt::Display>(what: &'static str, values: &[T]) -> Result<(), Error> {
    for (at, value) in values.iter().enumerate() {
        if values[..at].contains(value) {
            return Err(Error::Twice {
                what,
                value: value.to_string(),
            });
        }
    }
    Ok(())
}

impl Grid {
    /// All examples, needle by needle, each by length and then depth.
    ///
    /// # Errors
    /// As [`check`]; a length that leaves no room in the model's context, a needle longer than a context, one that does
    /// not hold its `real_needle`, or a tokenizer without chat template.
    pub fn examples(&self, engine: &Engine) -> Result<Vec<Example>, Error> {
        check(self.needles.len(), &self.lengths, &self.depths)?;
        let longest = self.lengths.iter().copied().max().unwrap_or(0);
        if longest >= engine.context() {
            // Before a text of that length is made.
            return Err(headkv_engine::Error::TooLong {
                prompt: longest,
                answer: 1,
                context: engine.context(),
            }
            .into());
        }
        let inserter = Inserter::new(engine.tokenizer(), &self.haystack, longest)?;
        let mut examples =
            Vec::with_capacity(self.needles.len() * self.lengths.len() * self.depths.len());
        for (number, needle) in self.needles.iter().enumerate() {
            let lost = |found: f64| Error::NotInNeedle {
                needle: number + 1,
                text: needle.real_needle.clone(),
                found,
            };
            for &length in &self.lengths {
                for &depth in &self.depths {
                    let context = inserter.insert(&needle.needle, length, depth)?;
                    let text = self.template.fill(&context.text, &needle.question);
                    let prompt = if self.template.is_chat() {
                        engine.encode_chat(&text)?
                    } else {
                        engine.encode(&text)?
                    };
                    let found =
                        span::locate_text(&prompt, &needle.real_needle, engine.tokenizer())?;
                    let found = found.ok_or_else(|| lost(0.0))?;
                    if found.overlap <= LEAST_OVERLAP {
                        return Err(lost(found.overlap));
                    }
                    examples.push(Example {
                        prompt,
                        needle: found.tokens,
                        answer: needle.answer.clone(),
                    });
                }
            }
        }
        Ok(examples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_are_none_are_refused() {
        let message = |draws, lengths: &[usize], depths: &[f64]| {
            check(draws, lengths, depths).unwrap_err().to_string()
        };
        assert!(message(1, &[], &[0.0]).starts_with("nothing to score: no lengths"));
        assert!(message(0, &[1], &[0.0]).starts_with("nothing to score: no needles"));
        assert!(message(1, &[1], &[]).starts_with("nothing to score: no depths"));
        assert!(message(1, &[5, 6, 5], &[0.0]).starts_with("length 5 is given twice"));
        assert!(message(1, &[5], &[0.0, -0.0]).starts_with("depth -0 is given twice"));
        assert!(message(1, &[5], &[0.0, f64::NAN]).starts_with("depth NaN is outside"));
        let many = message(1_000_000_000_000, &[1000], &[0.0, 50.0]);
        assert!(
            many.starts_with(
                "1000000000000 needles at 1 lengths and 2 depths are 2000000000000 examples"
            ),
            "{many}"
        );
        let large = message(1000, &[usize::MAX, 2], &[0.0]);
        assert!(
            large.contains("18446744073709551615 tokens together"),
            "{large}"
        );
        check(60, &[1000, 2000, 4000], &[0.0, 50.0, 100.0]).unwrap();
        check(1, &[usize::MAX], &[0.0]).unwrap();
    }
}
