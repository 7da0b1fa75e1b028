//! The examples: every needle in contexts of every length, at every depth.

use crate::Error;
use headkv_engine::Engine;
use headkv_haystack::{Haystack, Inserter, Needle, Template, span};
use std::ops::Range;

/// Up to this share of the needle's tokens nothing was found. The original asks for 0.9, which loses needles that are
/// reworded, such as "Because he is ..." for "... because he is ...".
pub const LEAST_OVERLAP: f64 = 0.5;

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

impl Grid {
    /// All examples, needle by needle, each by length and then depth.
    ///
    /// # Errors
    /// A needle longer than a context, one that does not hold its `real_needle`, or a tokenizer without chat template.
    pub fn examples(&self, engine: &Engine) -> Result<Vec<Example>, Error> {
        let longest = self.lengths.iter().copied().max().unwrap_or(0);
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
