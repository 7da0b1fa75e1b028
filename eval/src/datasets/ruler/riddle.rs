//! Facts to hide, and what is asked about them.

use super::Task;
use rand::{
    Rng,
    seq::{IndexedRandom, SliceRandom},
};
use rand_chacha::ChaCha8Rng;

/// Keys of which one is asked for.
const KEYS: usize = 4;
/// Values of the key that is asked for.
pub const VALUES: usize = 3;
/// Variables in a chain.
pub const CHAIN: usize = 4;
/// Chains of which one is asked for.
const CHAINS: usize = 2;

const ADJECTIVES: [&str; 16] = [
    "amber", "brittle", "crimson", "distant", "eager", "frozen", "gentle", "hollow", "ivory",
    "jagged", "lively", "mellow", "narrow", "opal", "patient", "rustic",
];
const NOUNS: [&str; 16] = [
    "anchor", "basket", "compass", "drum", "engine", "feather", "harbor", "island", "kettle",
    "lantern", "mirror", "needle", "orchard", "pebble", "ribbon", "saddle",
];

/// Facts to hide, in the order in which they have to stand, and what is asked about them.
pub struct Riddle {
    pub facts: Vec<String>,
    pub question: String,
    /// The right answer.
    pub values: Vec<String>,
}

impl Riddle {
    pub fn new(task: Task, rng: &mut ChaCha8Rng) -> Self {
        match task {
            Task::MultiKey => Self::multi_key(rng),
            Task::MultiValue => Self::multi_value(rng),
            Task::Variables => Self::variables(rng),
        }
    }

    fn multi_key(rng: &mut ChaCha8Rng) -> Self {
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
        Self {
            facts,
            question,
            values: vec![numbers[asked].clone()],
        }
    }

    fn multi_value(rng: &mut ChaCha8Rng) -> Self {
        let keys = keys(rng, KEYS);
        let values: Vec<_> = (0..VALUES).map(|_| number(rng)).collect();
        let mut facts: Vec<_> = values.iter().map(|value| magic(&keys[0], value)).collect();
        facts.extend(keys[1..].iter().map(|key| magic(key, &number(rng))));
        facts.shuffle(rng);
        let question = format!(
            "What are all the special magic numbers for {} mentioned in the provided text?",
            keys[0]
        );
        Self {
            facts,
            question,
            values,
        }
    }

    fn variables(rng: &mut ChaCha8Rng) -> Self {
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
        Self {
            facts,
            question,
            values: chain,
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
