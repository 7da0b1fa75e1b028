//! The needle test: one fact at a known depth of a context of a known length.

use super::Target;
use crate::{
    Error, Sample,
    sample::{Prompt, Scoring},
};
use headkv_haystack::{Haystack, Inserter, Needle, Template, held_out::FAMILIES, needle};
use std::path::{Path, PathBuf};

/// The most tokens of an answer.
const MAX_TOKENS: usize = 50;

/// All held-out families.
const HELD_OUT: &str = "held-out";

/// What `needles` can name besides a file: all held-out families, one of them, or one of two fixed needles.
pub const NAMES: [&str; 8] = [
    HELD_OUT,
    "words",
    "digits",
    "statements",
    "keys",
    "hops",
    "san-francisco",
    "two-hops",
];

/// What to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// A text file or a folder of them; generated text if there is none.
    pub haystack: Option<PathBuf>,
    /// The seed of generated text, and of needles that are drawn.
    pub seed: u64,
    /// One of [`NAMES`], or a JSON Lines file.
    pub needles: String,
    /// Needles drawn of each family.
    pub draws: usize,
    /// Lengths in tokens of context with needle; the question is not counted.
    pub lengths: Vec<usize>,
    /// Depths in percent of the context.
    pub depths: Vec<f64>,
    /// How context and question become a prompt.
    pub template: Template,
    /// Whether the question comes once the context is compressed.
    pub question_apart: bool,
}

/// A needle, and where it is put.
struct Hidden {
    dataset: String,
    /// What tells it from the others of its data set and length.
    id: String,
    needle: Needle,
    depth: f64,
}

/// Puts every needle that is drawn at the next depth, of every length; a needle that is fixed, at every depth.
///
/// # Errors
/// A haystack or needle file that cannot be read, a needle that does not fit, a prompt longer than the model's context,
/// more prompts than anybody waits for.
pub fn samples(options: &Options, target: &Target) -> Result<Vec<Sample>, Error> {
    let longest = options.lengths.iter().copied().max().unwrap_or(0);
    let per_length = options.draws.max(options.depths.len());
    super::check_count(options.lengths.len(), per_length, longest)?;
    let haystack = haystack(options.haystack.as_deref(), options.seed)?;
    let hidden = hidden(options)?;
    super::check_count(options.lengths.len(), hidden.len(), longest)?;
    for Hidden { needle, .. } in &hidden {
        target.check_length(
            longest,
            &options.template.fill("", &needle.question),
            options.template.is_chat(),
            MAX_TOKENS,
        )?;
    }
    if hidden.is_empty() {
        return Ok(Vec::new());
    }
    let inserter = Inserter::new(target.tokenizer, &haystack, longest)?;
    let mut samples = Vec::new();
    for &length in &options.lengths {
        for Hidden {
            dataset,
            id,
            needle,
            depth,
        } in &hidden
        {
            let context = inserter.insert(&needle.needle, length, *depth)?;
            let text = options.template.fill(&context.text, &needle.question);
            samples.push(Sample {
                benchmark: "needle",
                dataset: dataset.clone(),
                id: format!("{length}/{id}{}", super::of_seed(options.seed)),
                length: Some(length),
                depth: Some(*depth),
                bucket: None,
                protocol: super::apart_label(
                    protocol(&options.template, options.haystack.as_deref()),
                    options.question_apart,
                ),
                prompt: Prompt {
                    apart: options
                        .question_apart
                        .then(|| options.template.context_end(&context.text)),
                    text,
                    chat: options.template.is_chat(),
                    special: !options.template.is_chat(),
                },
                min_tokens: 0,
                max_tokens: MAX_TOKENS,
                stop: vec!["\n".into()],
                turn: None,
                scoring: Scoring::Needle {
                    answer: needle.answer.clone(),
                    needle: needle.needle.clone(),
                },
            });
        }
    }
    Ok(samples)
}

/// The needles with their depths.
fn hidden(options: &Options) -> Result<Vec<Hidden>, Error> {
    let asked = options.needles.as_str();
    let families = FAMILIES
        .iter()
        .filter(|family| asked == HELD_OUT || asked == family.name);
    let mut hidden = Vec::new();
    let mut drawn = false;
    for family in families {
        drawn = true;
        let depths = options.depths.iter().cycle();
        let needles = family.draw(options.seed, options.draws)?;
        for ((at, needle), depth) in needles.into_iter().enumerate().zip(depths) {
            hidden.push(Hidden {
                dataset: family.name.into(),
                id: format!("{} at {depth}", at + 1),
                needle,
                depth: *depth,
            });
        }
    }
    if drawn {
        return Ok(hidden);
    }
    for (dataset, needle) in fixed(asked)? {
        for depth in &options.depths {
            hidden.push(Hidden {
                dataset: dataset.clone(),
                id: depth.to_string(),
                needle: needle.clone(),
                depth: *depth,
            });
        }
    }
    Ok(hidden)
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

/// The needles that stand in a file, or one of the project's own.
fn fixed(source: &str) -> Result<Vec<(String, Needle)>, Error> {
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

    fn drawn(needles: &str, draws: usize, depths: &[f64]) -> Vec<Sample> {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny/tokenizer.json");
        let tokenizer = tokenizers::Tokenizer::from_file(file).unwrap();
        let target = Target {
            model: "tiny",
            tokenizer: &tokenizer,
            chat: None,
            context: 8192,
        };
        let options = Options {
            haystack: None,
            seed: 0,
            needles: needles.into(),
            draws,
            lengths: vec![400, 600],
            depths: depths.to_vec(),
            template: Template::plain(),
            question_apart: false,
        };
        samples(&options, &target).unwrap()
    }

    #[test]
    fn families_are_drawn_and_fixed_needles_stand_at_every_depth() {
        let all = drawn(HELD_OUT, 3, &[0.0, 50.0]);
        assert_eq!(all.len(), 5 * 3 * 2);
        let digits = drawn("digits", 3, &[0.0, 50.0]);
        assert_eq!(digits.len(), 3 * 2);
        assert!(digits.iter().all(|sample| all.contains(sample)));
        let depths: Vec<_> = digits[..3].iter().map(|s| s.depth.unwrap()).collect();
        assert_eq!(depths, [0.0, 50.0, 0.0]);
        let mut names: Vec<_> = all.iter().map(|s| (&s.dataset, &s.id)).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all.len());
        assert_eq!(drawn("san-francisco", 3, &[0.0, 50.0]).len(), 2 * 2);
        assert!(
            NAMES[1..6]
                .iter()
                .eq(FAMILIES.map(|family| family.name).iter())
        );
    }

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
