//! Harder needles after RULER (Hsieh et al. 2024, arXiv 2404.06654), generated at any length: several keys, several
//! values, and variables that refer to each other.

mod riddle;
pub(super) mod scatter;

use super::Target;
use crate::{
    Error, Sample,
    sample::{Prompt, Scoring},
    suggest,
};
use headkv_haystack::Template;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use riddle::Riddle;
use scatter::Scatter;
use std::{path::PathBuf, str::FromStr};

/// The most tokens of an answer.
const MAX_TOKENS: usize = 60;
/// The most tokens of a question.
const QUESTION: usize = 40;

/// A kind of question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Several keys with a number each; one is asked for.
    MultiKey,
    /// One key with several numbers; all are asked for.
    MultiValue,
    /// Variables that are set to other variables; all that have a given value are asked for.
    Variables,
}

impl Task {
    /// All tasks with their names.
    pub const ALL: [(Task, &str); 3] = [
        (Task::MultiKey, "multi-key"),
        (Task::MultiValue, "multi-value"),
        (Task::Variables, "variables"),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(task, _)| *task == self)
            .map_or("", |(_, name)| name)
    }
}

impl FromStr for Task {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let found = Self::ALL
            .iter()
            .find(|(_, known)| *known == name)
            .map(|(task, _)| *task);
        let names = Self::ALL.iter().map(|(_, known)| *known);
        found.ok_or_else(|| Error::Option(suggest::unknown("task", name, names)))
    }
}

/// What to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The tasks.
    pub tasks: Vec<Task>,
    /// Lengths in tokens of context with its facts; the question is not counted.
    pub lengths: Vec<usize>,
    /// Samples of each task and length.
    pub samples: usize,
    /// The seed of facts, places and generated text.
    pub seed: u64,
    /// A text file or a folder of them; generated text if there is none.
    pub haystack: Option<PathBuf>,
    /// How context and question become a prompt.
    pub template: Template,
    /// Whether the question comes once the context is compressed.
    pub question_apart: bool,
}

/// Generates the samples; the same options give the same ones.
///
/// # Errors
/// A haystack that cannot be read, or a length that does not fit the facts or the model.
pub fn samples(options: &Options, target: &Target) -> Result<Vec<Sample>, Error> {
    let longest = options.lengths.iter().copied().max().unwrap_or(0);
    let lists = options.tasks.len().saturating_mul(options.lengths.len());
    super::check_count(lists, options.samples, longest)?;
    let haystack = super::needle::haystack(options.haystack.as_deref(), options.seed)?;
    target.check_length(
        longest,
        &options.template.fill("", ""),
        options.template.is_chat(),
        MAX_TOKENS + QUESTION,
    )?;
    let scatter = Scatter::new(target.tokenizer, &haystack, longest)?;
    let mut samples = Vec::new();
    for &task in &options.tasks {
        for &length in &options.lengths {
            for number in 0..options.samples {
                let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
                rng.set_stream((task as u64) << 32 | number as u64);
                let riddle = Riddle::new(task, &mut rng);
                let context = scatter.scatter(&riddle.facts, length, &mut rng)?;
                let chat = options.template.is_chat();
                samples.push(Sample {
                    benchmark: "ruler",
                    dataset: task.name().into(),
                    id: format!("{length}/{number}{}", super::of_seed(options.seed)),
                    length: Some(length),
                    depth: None,
                    bucket: None,
                    protocol: super::apart_label(
                        super::needle::protocol(&options.template, options.haystack.as_deref()),
                        options.question_apart,
                    ),
                    prompt: Prompt {
                        apart: options
                            .question_apart
                            .then(|| options.template.context_end(&context)),
                        text: options.template.fill(&context, &riddle.question),
                        chat,
                        special: !chat,
                    },
                    min_tokens: 0,
                    max_tokens: MAX_TOKENS,
                    stop: vec!["\n".into()],
                    turn: None,
                    scoring: Scoring::Values(riddle.values),
                });
            }
        }
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;
    use riddle::{CHAIN, VALUES};
    use tokenizers::Tokenizer;

    fn generate(tasks: &[Task], lengths: &[usize], seed: u64) -> Vec<Sample> {
        let tokenizer = Tokenizer::from_file(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../models/tiny/tokenizer.json"
        ))
        .unwrap();
        let target = Target {
            model: "tiny",
            tokenizer: &tokenizer,
            chat: None,
            context: 8192,
        };
        let options = Options {
            tasks: tasks.to_vec(),
            lengths: lengths.to_vec(),
            samples: 3,
            seed,
            haystack: None,
            template: Template::plain(),
            question_apart: false,
        };
        let samples = samples(&options, &target).unwrap();
        for sample in &samples {
            let context = sample
                .prompt
                .text
                .split("Based on the content")
                .next()
                .unwrap();
            let tokens = tokenizer.encode(context, false).unwrap().len();
            let length = sample.length.unwrap();
            assert!(
                tokens <= length + 1 && tokens + 60 > length,
                "{}: {tokens}",
                sample.id
            );
        }
        samples
    }

    #[test]
    fn every_answer_stands_in_its_context() {
        for (task, _) in Task::ALL {
            for sample in generate(&[task], &[300, 1500], 5) {
                let Scoring::Values(values) = &sample.scoring else {
                    panic!("{sample:?}")
                };
                let text = &sample.prompt.text;
                assert_eq!(
                    values.len(),
                    match task {
                        Task::MultiKey => 1,
                        Task::MultiValue => VALUES,
                        Task::Variables => CHAIN,
                    }
                );
                assert!(
                    values.iter().all(|value| text.contains(value.as_str())),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn variables_stand_in_the_order_of_their_chain() {
        for sample in generate(&[Task::Variables], &[800], 1) {
            let Scoring::Values(chain) = &sample.scoring else {
                panic!("{sample:?}")
            };
            let places: Vec<_> = chain
                .iter()
                .map(|name| sample.prompt.text.find(&format!("VAR {name} =")).unwrap())
                .collect();
            assert!(places.is_sorted());
        }
    }

    #[test]
    fn the_seed_decides() {
        let all: Vec<_> = Task::ALL.map(|(task, _)| task).to_vec();
        assert_eq!(generate(&all, &[500], 7), generate(&all, &[500], 7));
        assert_ne!(generate(&all, &[500], 7), generate(&all, &[500], 8));
        let samples = generate(&[Task::MultiKey], &[500], 7);
        assert_ne!(samples[0].scoring, samples[1].scoring);
    }
}
