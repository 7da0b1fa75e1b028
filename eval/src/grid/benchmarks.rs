//! The options of each benchmark, as flags and as tables of a grid file.

use crate::{
    Error, Reuse,
    datasets::{babilong, longbench, needle, ruler, turns},
    protocol::Protocol,
    suggest,
};
use clap::Args;
use headkv_files::size;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The needle test.
#[derive(Args, Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Benchmark")]
pub struct Needle {
    /// A text file or a folder of .txt files [default: generated text]
    #[arg(long, value_name = "DIR|FILE")]
    pub haystack: Option<PathBuf>,
    /// Seed of the generated text and of the needles that are drawn
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Families of which needles are drawn: held-out (all of them, in no score file's examples), or words, digits,
    /// statements, keys, hops; fixed ones: san-francisco, two-hops, or a file with one JSON object a line: needle,
    /// question, real_needle, answer
    #[arg(long, value_name = "NAME|FILE.jsonl", default_value = "held-out")]
    pub needles: String,
    /// Needles drawn of each family, each at the next of the depths; fixed ones stand at every depth
    #[arg(long, value_name = "N", default_value_t = 6)]
    pub draws: usize,
    /// Tokens of context with the needle; the question is not counted
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "TOKENS",
        default_value = "2000"
    )]
    pub lengths: Vec<usize>,
    /// Where the needle stands, in percent
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "PERCENT",
        default_value = "0,20,40,60,80,100"
    )]
    pub depths: Vec<f64>,
    /// plain, book, chat, or a text with {context} and {question}
    #[arg(long, default_value = "plain")]
    pub template: String,
    /// The context is compressed before the question is known, which follows whole
    #[arg(long)]
    pub question_apart: bool,
}

/// LongBench and LooGLE.
#[derive(Args, Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Benchmark")]
pub struct LongBench {
    /// A folder with {dataset}.jsonl and the official config, or one such file
    #[arg(long, value_name = "DIR|FILE")]
    pub data: Option<PathBuf>,
    /// Data sets [default: all in the folder]
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub datasets: Vec<String>,
    /// The most samples of a data set [default: all]
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Who frames the prompt: paper or chat
    #[arg(long, default_value = "paper")]
    pub protocol: String,
    /// The most tokens of a prompt; the middle of a longer one is cut out [default: as in the paper's scripts, by the
    /// model's name: Llama-3 7950, Mistral 31500, Llama-2 3950; for other names and chat prompts the context less the
    /// answer and 64; never more than that]
    #[arg(long, value_name = "TOKENS")]
    pub max_input: Option<usize>,
    /// Run LongBench-E, the files {dataset}_e.jsonl, where the folder holds both [default: only where it holds no others]
    #[arg(long)]
    pub longbench_e: bool,
}

/// babilong.
#[derive(Args, Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Benchmark")]
pub struct Babilong {
    /// A folder with {length}/{task}/ or {length}/{task}.jsonl, and prompts.json
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Tasks, qa1 to qa20
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NAME",
        default_value = "qa1,qa2,qa3,qa4,qa5"
    )]
    pub tasks: Vec<String>,
    /// Names of the length folders
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NAME",
        default_value = "0k,1k,2k,4k"
    )]
    pub lengths: Vec<String>,
    /// The most samples of a task and length [default: all]
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Who frames the prompt: paper or chat
    #[arg(long, default_value = "chat")]
    pub protocol: String,
    /// The most tokens of a prompt; the middle of a longer one is cut out [default: as in the paper's script, by the
    /// model's name: Llama-3 7950, Mistral, Qwen2 and Phi 31500, Llama-2 3950; for other names the context less the
    /// answer and 64; never more than that]
    #[arg(long, value_name = "TOKENS")]
    pub max_input: Option<usize>,
    /// The context is compressed before the question is known, which follows whole
    #[arg(long)]
    pub question_apart: bool,
}

/// Needles after RULER.
#[derive(Args, Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Benchmark")]
pub struct Ruler {
    /// Tasks: multi-key, multi-value, variables
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NAME",
        default_value = "multi-key,multi-value,variables"
    )]
    pub tasks: Vec<String>,
    /// Tokens of context with its facts; the question is not counted
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "TOKENS",
        default_value = "1000,2000,4000"
    )]
    pub lengths: Vec<usize>,
    /// Samples of each task and length
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub samples: usize,
    /// Seed of facts, places and generated text
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// A text file or a folder of .txt files [default: generated text]
    #[arg(long, value_name = "DIR|FILE")]
    pub haystack: Option<PathBuf>,
    /// plain, book, chat, or a text with {context} and {question}
    #[arg(long, default_value = "plain")]
    pub template: String,
    /// The context is compressed before the question is known, which follows whole
    #[arg(long)]
    pub question_apart: bool,
}

/// Several questions over one text.
#[derive(Args, Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Turns {
    /// questions (each behind the text), conversation (behind the text and the turns before, rightly answered)
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NAME",
        default_value = "questions,conversation"
    )]
    pub kinds: Vec<String>,
    /// What is read on from earlier prompts: fresh (nothing), exact (all that they share), compressed (what was kept of the turn
    /// before)
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "MODE",
        default_value = "fresh,exact"
    )]
    pub reuse: Vec<String>,
    /// Texts of each kind and length
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub documents: usize,
    /// Questions over each text
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub questions: usize,
    /// Tokens of a text with its facts; questions are not counted
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "TOKENS",
        default_value = "4000"
    )]
    pub lengths: Vec<usize>,
    /// Seed of facts, places and generated text
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// A text file or a folder of .txt files [default: generated text]
    #[arg(long, value_name = "DIR|FILE")]
    pub haystack: Option<PathBuf>,
    /// plain, book, or a text with {context} and {question}; chat for questions only
    #[arg(long, default_value = "plain")]
    pub template: String,
    /// Compress the text before a question is known; `compressed` then goes on from what is kept of the text alone
    #[arg(long)]
    pub question_apart: bool,
    /// Memory for prompts that were read
    #[arg(long, value_name = "BYTES", default_value = "1GiB", value_parser = size::bytes)]
    pub prefix_bytes: usize,
    /// Where that memory is, for a model on a GPU: host or device
    #[arg(long, value_name = "PLACE", default_value = "host")]
    pub prefix_place: String,
    /// Save what all prompts begin with to a file, before they are answered
    #[arg(long, value_name = "FILE")]
    pub save_state: Option<PathBuf>,
    /// Begin with what another run saved; may be repeated
    #[arg(long, value_name = "FILE")]
    pub state: Vec<PathBuf>,
    /// Also ask babilong's stories with all of their questions, from a folder as `babilong` has it
    #[arg(long, value_name = "DIR")]
    pub babilong: Option<PathBuf>,
    /// babilong's tasks
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NAME",
        default_value = "qa1,qa2"
    )]
    pub tasks: Vec<String>,
    /// The most samples of a task
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: usize,
}

impl Turns {
    pub(super) fn options(&self) -> Result<turns::Options, Error> {
        let kinds = distinct(&self.kinds);
        let kinds = kinds.iter().map(|kind| kind.parse());
        let babilong = self.babilong.as_ref().map(|data| babilong::Options {
            data: data.clone(),
            tasks: distinct(&self.tasks),
            // The longer ones put other text between the sentences of one story.
            lengths: vec!["0k".into()],
            limit: self.limit,
            protocol: Protocol::Paper,
            max_input: None,
            question_apart: self.question_apart,
        });
        Ok(turns::Options {
            kinds: kinds.collect::<Result<_, _>>()?,
            documents: self.documents,
            questions: self.questions,
            lengths: distinct(&self.lengths),
            seed: self.seed,
            haystack: self.haystack.clone(),
            template: self.template.parse()?,
            question_apart: self.question_apart,
            babilong,
        })
    }

    /// What is reused, in the order in which it was asked for.
    ///
    /// # Errors
    /// An unknown mode, or none.
    pub fn modes(&self) -> Result<Vec<Option<Reuse>>, Error> {
        let modes = distinct(&self.reuse);
        let modes = modes.iter().map(|name| match name.as_str() {
            "fresh" => Ok(None),
            "exact" => Ok(Some(Reuse::Exact)),
            "compressed" => Ok(Some(Reuse::Compressed)),
            other => Err(Error::Option(suggest::unknown(
                "mode",
                other,
                ["fresh", "exact", "compressed"],
            ))),
        });
        let modes: Vec<_> = modes.collect::<Result<_, _>>()?;
        if modes.is_empty() {
            return Err(Error::Option(
                "nothing to run: --reuse names no mode; name fresh, exact or compressed".into(),
            ));
        }
        Ok(modes)
    }
}

impl Needle {
    pub(super) fn options(&self) -> Result<needle::Options, Error> {
        Ok(needle::Options {
            haystack: self.haystack.clone(),
            seed: self.seed,
            needles: self.needles.clone(),
            draws: self.draws,
            lengths: distinct(&self.lengths),
            // Added to 0, a depth of -0 is 0.
            depths: distinct(&self.depths.iter().map(|d| d + 0.0).collect::<Vec<_>>()),
            template: self.template.parse()?,
            question_apart: self.question_apart,
        })
    }
}

impl LongBench {
    pub(super) fn options(&self) -> Result<longbench::Options, Error> {
        Ok(longbench::Options {
            data: data(&self.data, "longbench")?,
            datasets: distinct(&self.datasets),
            limit: self.limit.unwrap_or(usize::MAX),
            protocol: self.protocol.parse::<Protocol>()?,
            max_input: self.max_input,
            longbench_e: self.longbench_e,
        })
    }
}

impl Babilong {
    pub(super) fn options(&self) -> Result<babilong::Options, Error> {
        Ok(babilong::Options {
            data: data(&self.data, "babilong")?,
            tasks: distinct(&self.tasks),
            lengths: distinct(&self.lengths),
            limit: self.limit.unwrap_or(usize::MAX),
            protocol: self.protocol.parse::<Protocol>()?,
            max_input: self.max_input,
            question_apart: self.question_apart,
        })
    }
}

impl Ruler {
    pub(super) fn options(&self) -> Result<ruler::Options, Error> {
        Ok(ruler::Options {
            tasks: distinct(&self.tasks)
                .iter()
                .map(|task| task.parse())
                .collect::<Result<_, _>>()?,
            lengths: distinct(&self.lengths),
            samples: self.samples,
            seed: self.seed,
            haystack: self.haystack.clone(),
            template: self.template.parse()?,
            question_apart: self.question_apart,
        })
    }
}

/// Each item once: what is asked for twice is one prompt.
fn distinct<T: Clone + PartialEq>(items: &[T]) -> Vec<T> {
    let mut found = Vec::new();
    for item in items {
        if !found.contains(item) {
            found.push(item.clone());
        }
    }
    found
}

fn data(path: &Option<PathBuf>, benchmark: &str) -> Result<PathBuf, Error> {
    path.clone().ok_or_else(|| {
        Error::Option(format!(
            "{benchmark} needs its data; name the folder with --data (`headkv-eval fetch {benchmark}` gets it)"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_twice_is_asked_once() {
        let needle = Needle {
            depths: vec![50.0, -0.0, 50.0, 0.0],
            lengths: vec![9, 9],
            ..Needle::default()
        };
        let options = needle.options().unwrap();
        assert_eq!((options.lengths, options.depths.len()), (vec![9], 2));
        assert!(options.depths[1].is_sign_positive());
    }
}
