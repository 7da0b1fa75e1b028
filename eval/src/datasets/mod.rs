//! Benchmarks as lists of samples; one benchmark per file.

pub mod arrow_stream;
pub mod babilong;
mod json_lines;
pub mod longbench;
pub mod needle;
pub mod place;
pub(crate) mod python_list;
pub mod ruler;
mod target;
pub mod turns;

pub(crate) use target::UNKNOWN_TEMPLATE;
pub use target::{ChatTemplate, Target};

use crate::Error;

/// The most prompts of a benchmark, and tokens of all of them: they are made before the first is answered.
const MOST_PROMPTS: usize = 100_000;
const MOST_TOKENS: usize = 1 << 31;

/// Refuses more prompts than are ever answered: `lists` times `each`, of up to `length` tokens.
fn check_count(lists: usize, each: usize, length: usize) -> Result<(), Error> {
    let count = lists.saturating_mul(each);
    if count > MOST_PROMPTS || count.saturating_mul(length) > MOST_TOKENS {
        return Err(Error::Option(format!(
            "{count} prompts of up to {length} tokens are more than {MOST_PROMPTS}, or than {MOST_TOKENS} tokens in all; \
             lower --samples, --draws or --lengths"
        )));
    }
    Ok(())
}

/// What prompts are called whose question comes once the context is compressed.
pub(crate) const APART: &str = "question apart, ";

/// The protocol's name: answers of both modes are not to be averaged.
fn apart_label(protocol: String, apart: bool) -> String {
    if apart {
        format!("{APART}{protocol}")
    } else {
        protocol
    }
}

/// What a sample's name has of a seed: samples of different ones are different samples.
fn of_seed(seed: u64) -> String {
    match seed {
        0 => String::new(),
        seed => format!(" of seed {seed}"),
    }
}
