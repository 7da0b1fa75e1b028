//! The needle test: one fact at a known depth of a context of a known length.

use super::Target;
use crate::{
    Error, Sample,
    sample::{Prompt, Scoring},
};
use headkv_haystack::{Haystack, Inserter, Needle, Template, needle};
use std::path::{Path, PathBuf};

/// The most tokens of an answer.
const MAX_TOKENS: usize = 50;

/// What to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// A text file or a folder of them; generated text if there is none.
    pub haystack: Option<PathBuf>,
    /// The seed of generated text.
    pub seed: u64,
    /// `san-francisco`, `two-hops` or a JSON Lines file.
    pub needles: String,
    /// Lengths in tokens of context with needle; the question is not counted.
    pub lengths: Vec<usize>,
    /// Depths in percent of the context.
    pub depths: Vec<f64>,
    /// How context and question become a prompt.
    pub template: Template,
}

/// Puts every needle at every depth of every length.
///
/// # Errors
/// A haystack or needle file that cannot be read, a needle that does not fit, a prompt longer than the model's context.
pub fn samples(options: &Options, target: &Target) -> Result<Vec<Sample>, Error> {
    let haystack = haystack(options.haystack.as_deref(), options.seed)?;
    let needles = needles(&options.needles)?;
    let longest = options.lengths.iter().copied().max().unwrap_or(0);
    for (_, needle) in &needles {
        target.check_length(
            longest,
            &options.template.fill("", &needle.question),
            options.template.is_chat(),
            MAX_TOKENS,
        )?;
    }
    let inserter = Inserter::new(target.tokenizer, &haystack, longest)?;
    let mut samples = Vec::new();
    for (name, needle) in needles {
        for &length in &options.lengths {
            for &depth in &options.depths {
                let context = inserter.insert(&needle.needle, length, depth)?;
                let text = options.template.fill(&context.text, &needle.question);
                samples.push(Sample {
                    benchmark: "needle",
                    dataset: name.clone(),
                    id: format!("{length}/{depth}"),
                    length: Some(length),
                    depth: Some(depth),
                    bucket: None,
                    protocol: protocol(&options.template, options.haystack.as_deref()),
                    prompt: Prompt {
                        text,
                        chat: options.template.is_chat(),
                        special: !options.template.is_chat(),
                    },
                    min_tokens: 0,
                    max_tokens: MAX_TOKENS,
                    stop: vec!["\n".into()],
                    scoring: Scoring::Needle {
                        answer: needle.answer.clone(),
                        needle: needle.needle.clone(),
                    },
                });
            }
        }
    }
    Ok(samples)
}

/// A text file or folder, or generated text.
pub(super) fn haystack(path: Option<&Path>, seed: u64) -> Result<Haystack, Error> {
    Ok(match path {
        Some(path) => Haystack::read(path)?,
        None => Haystack::generated(seed),
    })
}

/// The template, and the text unless it is generated: answers from different texts are not to be averaged.
pub(super) fn protocol(template: &Template, haystack: Option<&Path>) -> String {
    match haystack.and_then(Path::file_name) {
        Some(name) => format!("{template}, in {}", name.to_string_lossy()),
        None => template.to_string(),
    }
}

fn needles(source: &str) -> Result<Vec<(String, Needle)>, Error> {
    Ok(match source {
        "san-francisco" => vec![(source.into(), needle::san_francisco())],
        "two-hops" => vec![(source.into(), needle::two_hops())],
        file => {
            let file = Path::new(file);
            let name = file.file_stem().unwrap_or_default().to_string_lossy();
            let needles = needle::read(file)?.into_iter().enumerate();
            needles
                .map(|(at, needle)| (format!("{name} {}", at + 1), needle))
                .collect()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_from_different_texts_are_told_apart() {
        let plain = Template::plain();
        assert_eq!(protocol(&plain, None), "plain");
        assert_eq!(
            protocol(&plain, Some(Path::new("a/essays"))),
            "plain, in essays"
        );
    }
}
