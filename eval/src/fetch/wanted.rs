//! What is fetched: which files, from where, and the form that their readers read.

use super::sources::{Origin, commits};
use crate::{Error, metrics::babilong::TASKS, suggest};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// What can be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// LongBench and LongBench-E (114 MB), their prompts and answer lengths
    Longbench,
    /// babilong's tasks at the lengths that are asked for, and its prompts
    Babilong,
    /// The head scores that HeadKV's authors published, for --scores
    Scores,
}

impl What {
    /// The folder that it goes to, in that of `--to`.
    pub fn folder(self) -> &'static str {
        match self {
            What::Longbench => "longbench",
            What::Babilong => "babilong",
            What::Scores => "head_scores",
        }
    }
}

/// What to fetch, and where to.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// What to fetch
    #[arg(value_enum, value_name = "WHAT")]
    pub what: What,
    /// Folder that gets a folder of it: longbench, babilong or head_scores
    #[arg(
        long,
        value_name = "DIR",
        default_value = "data",
        help_heading = "Output"
    )]
    pub to: PathBuf,
    /// babilong's tasks, qa1 to qa20; those above qa10 are published at 0k only [default: qa1,qa2,qa3,qa4,qa5]
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NAME",
        help_heading = "Benchmark"
    )]
    pub tasks: Vec<String>,
    /// babilong's lengths, 0k to 10M [default: 0k,1k,2k,4k]
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NAME",
        help_heading = "Benchmark"
    )]
    pub lengths: Vec<String>,
}

/// babilong's lengths that are published (the data set's card).
const LENGTHS: [&str; 13] = [
    "0k", "1k", "2k", "4k", "8k", "16k", "32k", "64k", "128k", "256k", "512k", "1M", "10M",
];

/// The tasks and lengths that `headkv-eval babilong` runs by itself.
const USUAL_TASKS: [&str; 5] = ["qa1", "qa2", "qa3", "qa4", "qa5"];
const USUAL_LENGTHS: [&str; 4] = ["0k", "1k", "2k", "4k"];

/// LongBench's config files, without their `.json`.
const CONFIG: [&str; 2] = ["dataset2prompt", "dataset2maxlen"];

/// The models and kinds that the original has scores of.
const SCORED: [&str; 2] = ["Meta-Llama-3-8B-Instruct", "Mistral-7B-Instruct-v0.2"];
const KINDS: [&str; 2] = ["retrieval", "retrieval_reasoning"];

/// What is done with a file once it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    AsItIs,
    /// A JSON list of records, which becomes JSON Lines.
    Records,
    /// babilong's Python source, which becomes prompts.json.
    Prompts,
    /// A zip archive, whose JSON Lines files are unpacked into the folder.
    Archive,
}

/// A file to have.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub origin: Origin,
    /// Where it lies there, from its owner's name on.
    pub path: String,
    /// Its name in the folder, `/` between the parts; an archive's own name.
    pub name: String,
    pub form: Form,
}

/// The files that the options ask for.
///
/// # Errors
/// An unknown task or length, or such options for what has none.
pub(super) fn list(options: &Options) -> Result<Vec<Wanted>, Error> {
    let babilong_only = !options.tasks.is_empty() || !options.lengths.is_empty();
    if babilong_only && options.what != What::Babilong {
        return Err(Error::Option(
            "--tasks and --lengths choose among babilong's files only; leave them out".into(),
        ));
    }
    match options.what {
        What::Longbench => Ok(longbench()),
        What::Babilong => babilong(options),
        What::Scores => Ok(scores()),
    }
}

fn longbench() -> Vec<Wanted> {
    let config = CONFIG.map(|name| Wanted {
        origin: Origin::GitHub,
        path: format!(
            "THUDM/LongBench/{}/LongBench/config/{name}.json",
            commits::LONGBENCH
        ),
        name: format!("{name}.json"),
        form: Form::AsItIs,
    });
    let archive = Wanted {
        origin: Origin::Hub,
        path: "datasets/THUDM/LongBench/resolve/main/data.zip".into(),
        name: "data.zip".into(),
        form: Form::Archive,
    };
    config.into_iter().chain([archive]).collect()
}

fn babilong(options: &Options) -> Result<Vec<Wanted>, Error> {
    let tasks = chosen("task", &options.tasks, &USUAL_TASKS, &TASKS)?;
    let lengths = chosen("length", &options.lengths, &USUAL_LENGTHS, &LENGTHS)?;
    let mut wanted = vec![Wanted {
        origin: Origin::GitHub,
        path: format!(
            "booydar/babilong/{}/babilong/prompts.py",
            commits::BABILONG_SOURCE
        ),
        name: "prompts.json".into(),
        form: Form::Prompts,
    }];
    for length in &lengths {
        wanted.extend(tasks.iter().map(|task| Wanted {
            origin: Origin::Hub,
            path: format!(
                "datasets/RMT-team/babilong/resolve/{}/data/{task}/{length}.json",
                commits::BABILONG_DATA
            ),
            name: format!("{length}/{task}.jsonl"),
            form: Form::Records,
        }));
    }
    Ok(wanted)
}

fn scores() -> Vec<Wanted> {
    let files = SCORED
        .iter()
        .flat_map(|model| KINDS.map(|kind| format!("{model}_{kind}_heads.json")));
    files
        .map(|name| Wanted {
            origin: Origin::GitHub,
            path: format!(
                "FYYFU/HeadKV/{}/Important_Head/head_score/{name}",
                commits::HEADKV
            ),
            name,
            form: Form::AsItIs,
        })
        .collect()
}

/// The names that were asked for, or the usual ones, each once.
fn chosen(
    what: &str,
    asked: &[String],
    usual: &[&'static str],
    known: &[&'static str],
) -> Result<Vec<&'static str>, Error> {
    if asked.is_empty() {
        return Ok(usual.to_vec());
    }
    let mut names = Vec::new();
    for name in asked {
        let found = known
            .iter()
            .find(|known| *known == name)
            .ok_or_else(|| Error::Option(suggest::unknown(what, name, known.iter().copied())))?;
        if !names.contains(found) {
            names.push(*found);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(what: What, tasks: &[&str], lengths: &[&str]) -> Options {
        let owned = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        Options {
            what,
            to: "data".into(),
            tasks: owned(tasks),
            lengths: owned(lengths),
        }
    }

    #[test]
    fn the_usual_files_are_few() {
        let count = |what| list(&options(what, &[], &[])).unwrap().len();
        let all = [What::Longbench, What::Babilong, What::Scores];
        assert_eq!(all.map(count), [3, 1 + 5 * 4, 4]);
        let two = list(&options(What::Babilong, &["qa2", "qa2", "qa1"], &["8k"])).unwrap();
        let names: Vec<_> = two.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["prompts.json", "8k/qa2.jsonl", "8k/qa1.jsonl"]);
    }

    #[test]
    fn what_is_not_published_is_refused() {
        let refused = |what, tasks: &[&str], lengths: &[&str]| {
            let refused = list(&options(what, tasks, lengths)).unwrap_err();
            refused.to_string()
        };
        let message = refused(What::Babilong, &["q1"], &[]);
        assert!(message.contains("unknown task `q1`; did you mean qa1"));
        assert!(refused(What::Babilong, &[], &["3k"]).contains("unknown length `3k`"));
        assert!(refused(What::Scores, &["qa1"], &[]).contains("leave them out"));
        assert!(refused(What::Longbench, &[], &["1k"]).contains("leave them out"));
    }
}
