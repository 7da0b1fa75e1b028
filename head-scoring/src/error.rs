//! What can go wrong between a model and its score file.

use crate::example::LEAST_OVERLAP;
use std::path::PathBuf;

/// Errors of head scoring; every message is one line that names the thing and the fix.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The haystack, the needles or the template.
    #[error(transparent)]
    Haystack(#[from] headkv_haystack::Error),
    /// Loading the model or generating with it.
    #[error(transparent)]
    Engine(#[from] headkv_engine::Error),
    /// A score file that cannot be read or cannot rank heads.
    #[error(transparent)]
    Scores(#[from] headkv_plugin::Error),
    /// A file cannot be read, written or locked.
    #[error(transparent)]
    Files(#[from] headkv_files::Error),
    /// The embedded model cannot be unpacked.
    #[error(transparent)]
    Embedded(#[from] headkv_embedded::Error),
    /// Nothing is asked for.
    #[error("nothing to score: no {0}; give at least one")]
    Nothing(&'static str),
    /// A value that would count twice.
    #[error("{what} {value} is given twice; give it once")]
    Twice {
        /// `length` or `depth`.
        what: &'static str,
        /// The value.
        value: String,
    },
    /// More than any run could answer.
    #[error(
        "{draws} needles at {lengths} lengths and {depths} depths are {examples} examples of {tokens} tokens together, \
         more than the {most} examples or {most_tokens} tokens that a run may have; draw fewer"
    )]
    TooMany {
        /// Needles.
        draws: usize,
        /// Lengths.
        lengths: usize,
        /// Depths.
        depths: usize,
        /// Their product, or the largest number.
        examples: usize,
        /// Tokens of all contexts, or the largest number.
        tokens: usize,
        /// The most examples.
        most: usize,
        /// The most tokens.
        most_tokens: usize,
    },
    /// A model whose output cannot be compared.
    #[error("the model's output is not a number; its weights are damaged, download them again")]
    NotANumber,
    /// A needle whose answer is not in the prompt, so that attention to it cannot be measured.
    #[error(
        "needle {needle}: of the tokens of its real_needle `{text}` only {:.0} % stand together in the prompt, and more \
         than {:.0} % have to; write it as in the needle", found * 100.0, LEAST_OVERLAP * 100.0
    )]
    NotInNeedle {
        /// The needle's number in its file, from 1.
        needle: usize,
        /// The text.
        text: String,
        /// The share of its tokens that was found, 0 to 1.
        found: f64,
    },
    /// The model answered nothing right, so that there is nothing to count.
    #[error(
        "none of {tried} examples was answered right, so that no head can be scored; try another --template or shorter \
         --lengths. Answers: {}",
        .answers.iter().map(|(answer, right)| format!("{answer:?} instead of {right:?}")).collect::<Vec<_>>().join("; ")
    )]
    NoneRight {
        /// How many examples there were.
        tried: usize,
        /// Some of the answers, each with the right one.
        answers: Vec<(String, String)>,
    },
    /// All counted examples gave zero to every head.
    #[error(
        "all head scores are zero over {counted} counted examples; use needles that are copied word for word"
    )]
    AllZero {
        /// Examples that counted.
        counted: usize,
    },
    /// The run was stopped; what was done is kept.
    #[error("stopped after {done} of {total} examples; the same command goes on from there")]
    Stopped {
        /// Examples done.
        done: usize,
        /// Examples in all.
        total: usize,
    },
    /// A file of an unfinished run that this run cannot continue.
    #[error("{} {why}; delete it, or choose another --out", path.display())]
    Session {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A file beside a score file that does not say how it was made.
    #[error("{} does not say how the scores were made ({why}); delete it", path.display())]
    Meta {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Score files that do not belong together.
    #[error("{} has {} layers x {} heads, but {} has {} x {}; use files of one model",
        .first.0.display(), .first.1, .first.2, .second.0.display(), .second.1, .second.2)]
    Shapes {
        /// A file, its layers and its heads.
        first: (PathBuf, usize, usize),
        /// Another one.
        second: (PathBuf, usize, usize),
    },
    /// A picture could not be drawn.
    #[error("cannot draw the heatmap: {0}")]
    Draw(String),
}
