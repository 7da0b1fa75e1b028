//! Harder needles after RULER (Hsieh et al. 2024, arXiv 2404.06654), generated at any length: several keys, several
//! values, and variables that refer to each other.

use super::Target;
use crate::{
    Error, Sample,
    sample::{Prompt, Scoring},
    suggest,
};
use headkv_haystack::{Haystack, Template};
use rand::{
    Rng, SeedableRng,
    seq::{IndexedRandom, SliceRandom},
};
use rand_chacha::ChaCha8Rng;
use std::{path::PathBuf, str::FromStr};
use tokenizers::Tokenizer;

/// The most tokens of an answer.
const MAX_TOKENS: usize = 60;
/// The most tokens of a question.
const QUESTION: usize = 40;
/// Keys of which one is asked for.
const KEYS: usize = 4;
/// Values of the key that is asked for.
const VALUES: usize = 3;
/// Variables in a chain, and chains of which one is asked for.
const CHAIN: usize = 4;
const CHAINS: usize = 2;

const ADJECTIVES: [&str; 16] = [
    "amber", "brittle", "crimson", "distant", "eager", "frozen", "gentle", "hollow", "ivory",
    "jagged", "lively", "mellow", "narrow", "opal", "patient", "rustic",
];
const NOUNS: [&str; 16] = [
    "anchor", "basket", "compass", "drum", "engine", "feather", "harbor", "island", "kettle",
    "lantern", "mirror", "needle", "orchard", "pebble", "ribbon", "saddle",
];

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
}

/// Facts to hide, in the order in which they have to stand, and what is asked about them.
struct Riddle {
    facts: Vec<String>,
    question: String,
    values: Vec<String>,
}

/// Generates the samples; the same options give the same ones.
///
/// # Errors
/// A haystack that cannot be read, or a length that does not fit the facts or the model.
pub fn samples(options: &Options, target: &Target) -> Result<Vec<Sample>, Error> {
    let haystack = super::needle::haystack(options.haystack.as_deref(), options.seed)?;
    let longest = options.lengths.iter().copied().max().unwrap_or(0);
    target.check_length(
        longest,
        &options.template.fill("", ""),
        MAX_TOKENS + QUESTION,
    )?;
    let scatter = Scatter::new(target.tokenizer, &haystack, longest)?;
    let mut samples = Vec::new();
    for &task in &options.tasks {
        for &length in &options.lengths {
            for number in 0..options.samples {
                let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
                rng.set_stream((task as u64) << 32 | number as u64);
                let riddle = riddle(task, &mut rng);
                let context = scatter.scatter(&riddle.facts, length, &mut rng)?;
                let chat = options.template.is_chat();
                samples.push(Sample {
                    benchmark: "ruler",
                    dataset: task.name().into(),
                    id: format!("{length}/{number}"),
                    length: Some(length),
                    depth: None,
                    bucket: None,
                    protocol: options.template.to_string(),
                    prompt: Prompt {
                        text: options.template.fill(&context, &riddle.question),
                        chat,
                        special: !chat,
                    },
                    max_tokens: MAX_TOKENS,
                    stop: vec!["\n".into()],
                    scoring: Scoring::Values(riddle.values),
                });
            }
        }
    }
    Ok(samples)
}

fn riddle(task: Task, rng: &mut ChaCha8Rng) -> Riddle {
    match task {
        Task::MultiKey => {
            let keys = keys(rng, KEYS);
            let numbers: Vec<_> = keys.iter().map(|_| number(rng)).collect();
            let facts = keys
                .iter()
                .zip(&numbers)
                .map(|(key, value)| magic(key, value))
                .collect();
            let asked = rng.random_range(0..keys.len());
            let question = format!(
                "What is the special magic number for {} mentioned in the provided text?",
                keys[asked]
            );
            Riddle {
                facts,
                question,
                values: vec![numbers[asked].clone()],
            }
        }
        Task::MultiValue => {
            let keys = keys(rng, KEYS);
            let values: Vec<_> = (0..VALUES).map(|_| number(rng)).collect();
            let mut facts: Vec<_> = values.iter().map(|value| magic(&keys[0], value)).collect();
            facts.extend(keys[1..].iter().map(|key| magic(key, &number(rng))));
            facts.shuffle(rng);
            let question = format!(
                "What are all the special magic numbers for {} mentioned in the provided text?",
                keys[0]
            );
            Riddle {
                facts,
                question,
                values,
            }
        }
        Task::Variables => {
            let mut names: Vec<String> = Vec::new();
            while names.len() < CHAIN * CHAINS {
                let name: String = (0..4)
                    .map(|_| char::from(rng.random_range(b'A'..=b'Z')))
                    .collect();
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            let chains: Vec<_> = names
                .chunks(CHAIN)
                .map(|chain| (chain.to_vec(), number(rng)))
                .collect();
            // Chains alternate, and each stands in order.
            let mut facts = Vec::new();
            for at in 0..CHAIN {
                for (chain, value) in &chains {
                    let source = if at == 0 {
                        value.clone()
                    } else {
                        format!("VAR {}", chain[at - 1])
                    };
                    facts.push(format!("VAR {} = {source}.", chain[at]));
                }
            }
            let (chain, value) = chains[rng.random_range(0..CHAINS)].clone();
            let question = format!(
                "Which variables are assigned the value {value} in the provided text, directly or not?"
            );
            Riddle {
                facts,
                question,
                values: chain,
            }
        }
    }
}

fn magic(key: &str, value: &str) -> String {
    format!("One of the special magic numbers for {key} is: {value}.")
}

fn number(rng: &mut ChaCha8Rng) -> String {
    rng.random_range(1_000_000..10_000_000).to_string()
}

/// Distinct names of two words.
fn keys(rng: &mut ChaCha8Rng, count: usize) -> Vec<String> {
    let adjectives = ADJECTIVES.choose_multiple(rng, count);
    let nouns: Vec<_> = NOUNS.choose_multiple(rng, count).collect();
    adjectives
        .zip(nouns)
        .map(|(adjective, noun)| format!("{adjective} {noun}"))
        .collect()
}

/// A haystack cut into sentences, with the tokens up to the end of each.
struct Scatter<'t> {
    tokenizer: &'t Tokenizer,
    text: String,
    /// Where each sentence ends: in bytes and in tokens.
    ends: Vec<(usize, usize)>,
}

impl<'t> Scatter<'t> {
    fn new(
        tokenizer: &'t Tokenizer,
        haystack: &Haystack,
        max_tokens: usize,
    ) -> Result<Self, Error> {
        // Few tokens are longer than this on average; more text is fetched if they are.
        let mut bytes = 6 * max_tokens.max(1);
        loop {
            let text = haystack.text(bytes);
            let encoding = tokenizer.encode(text.as_str(), false)?;
            let offsets = encoding.get_offsets();
            if offsets.len() < max_tokens {
                bytes *= 2;
                continue;
            }
            let sentence_ends = text
                .match_indices(['.', '!', '?'])
                .map(|(at, mark)| at + mark.len());
            let followed = |end: &usize| text[*end..].starts_with(char::is_whitespace);
            let ends = sentence_ends
                .filter(followed)
                .map(|end| {
                    (
                        end,
                        offsets.partition_point(|&(_, token_end)| token_end <= end),
                    )
                })
                .collect();
            return Ok(Self {
                tokenizer,
                text,
                ends,
            });
        }
    }

    /// At most `length` tokens of haystack and facts, each fact behind a sentence chosen at random.
    fn scatter(
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

#[cfg(test)]
mod tests {
    use super::*;

    fn generate(tasks: &[Task], lengths: &[usize], seed: u64) -> Vec<Sample> {
        let tokenizer = Tokenizer::from_file(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../models/tiny/tokenizer.json"
        ))
        .unwrap();
        let target = Target {
            model: "tiny",
            tokenizer: &tokenizer,
            context: 8192,
        };
        let options = Options {
            tasks: tasks.to_vec(),
            lengths: lengths.to_vec(),
            samples: 3,
            seed,
            haystack: None,
            template: Template::plain(),
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
