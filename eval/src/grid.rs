//! What to run: models x benchmarks x methods x capacities x betas x score files, from flags or a TOML file.

use crate::{
    Error, Sample,
    datasets::{Target, babilong, longbench, needle, ruler},
    protocol::Protocol,
};
use clap::Args;
use serde::Deserialize;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Methods and their parameters; every combination that makes sense is run.
#[derive(Args, Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Methods {
    /// Compression methods
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NAME",
        default_value = "full,snapkv,headkv"
    )]
    pub method: Vec<String>,
    /// Tokens kept per head on average, the window included
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "TOKENS",
        default_value = "16,32"
    )]
    pub capacity: Vec<usize>,
    /// HeadKV: 1/beta of the budget goes by importance
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NUMBER",
        default_value = "1.2"
    )]
    pub beta: Vec<f64>,
    /// HeadKV: head score files [default: head_scores/{model}_{kind}.json]
    #[arg(long, value_delimiter = ',', value_name = "FILE")]
    pub scores: Vec<PathBuf>,
    /// HeadKV: kind of the default score file: copy, enhanced, reason
    #[arg(long, value_name = "KIND", default_value = "copy")]
    pub head_choice: String,
    /// Another parameter of the compression, such as window=16 (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// The needle test.
#[derive(Args, Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Needle {
    /// A text file or a folder of .txt files [default: generated text]
    #[arg(long, value_name = "DIR|FILE")]
    pub haystack: Option<PathBuf>,
    /// Seed of the generated text
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// san-francisco, two-hops, or a file with one JSON object a line: needle, question, real_needle, answer
    #[arg(long, value_name = "FILE.jsonl", default_value = "san-francisco")]
    pub needles: String,
    /// Tokens of context with the needle; the question is not counted
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "TOKENS",
        default_value = "1000,2000,4000"
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
}

/// LongBench and LooGLE.
#[derive(Args, Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
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
    /// The most tokens of a prompt; the middle of a longer one is cut out [default: what fits the model]
    #[arg(long, value_name = "TOKENS")]
    pub max_input: Option<usize>,
    /// Show the length buckets of LongBench-E
    #[arg(long)]
    pub by_length: bool,
}

/// babilong.
#[derive(Args, Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
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
    /// The most tokens of a prompt; the middle of a longer one is cut out [default: what fits the model]
    #[arg(long, value_name = "TOKENS")]
    pub max_input: Option<usize>,
}

/// Needles after RULER.
#[derive(Args, Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
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
}

/// A file for `headkv-eval run`; keys that are left out have the defaults of the flags.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Grid {
    /// Model folders or GGUF files.
    pub models: Vec<PathBuf>,
    /// Methods and their parameters.
    #[serde(default)]
    pub methods: Methods,
    /// The needle test, if it is to be run.
    pub needle: Option<Needle>,
    /// LongBench, if it is to be run.
    pub longbench: Option<LongBench>,
    /// babilong, if it is to be run.
    pub babilong: Option<Babilong>,
    /// Needles after RULER, if they are to be run.
    pub ruler: Option<Ruler>,
}

impl Grid {
    /// Reads a grid file; its relative paths start at the file's folder.
    ///
    /// # Errors
    /// A file that cannot be read, an unknown key or a value of the wrong type (the place is named).
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(Error::read(path))?;
        let mut grid: Self =
            toml::from_str(&text).map_err(|e| Error::file(path, one_line(&e.to_string())))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let paths = grid.models.iter_mut().chain(&mut grid.methods.scores);
        let needle = grid
            .needle
            .iter_mut()
            .filter_map(|needle| needle.haystack.as_mut());
        let longbench = grid
            .longbench
            .iter_mut()
            .filter_map(|longbench| longbench.data.as_mut());
        let babilong = grid
            .babilong
            .iter_mut()
            .filter_map(|babilong| babilong.data.as_mut());
        let ruler = grid
            .ruler
            .iter_mut()
            .filter_map(|ruler| ruler.haystack.as_mut());
        for path in paths
            .chain(needle)
            .chain(longbench)
            .chain(babilong)
            .chain(ruler)
        {
            *path = folder.join(&*path);
        }
        Ok(grid)
    }

    /// One benchmark of one model.
    pub fn one(model: PathBuf, methods: Methods) -> Self {
        Self {
            models: vec![model],
            methods,
            needle: None,
            longbench: None,
            babilong: None,
            ruler: None,
        }
    }

    /// The samples of all benchmarks for one model.
    ///
    /// # Errors
    /// Whatever is wrong with a benchmark's options or data.
    pub fn samples(&self, target: &Target) -> Result<Vec<Sample>, Error> {
        let mut samples = Vec::new();
        if let Some(options) = &self.needle {
            samples.extend(needle::samples(&options.options()?, target)?);
        }
        if let Some(options) = &self.ruler {
            samples.extend(ruler::samples(&options.options()?, target)?);
        }
        if let Some(options) = &self.longbench {
            samples.extend(longbench::samples(&options.options()?, target)?);
        }
        if let Some(options) = &self.babilong {
            samples.extend(babilong::samples(&options.options()?, target)?);
        }
        Ok(samples)
    }
}

impl Needle {
    fn options(&self) -> Result<needle::Options, Error> {
        Ok(needle::Options {
            haystack: self.haystack.clone(),
            seed: self.seed,
            needles: self.needles.clone(),
            lengths: self.lengths.clone(),
            depths: self.depths.clone(),
            template: self.template.parse()?,
        })
    }
}

impl LongBench {
    fn options(&self) -> Result<longbench::Options, Error> {
        Ok(longbench::Options {
            data: data(&self.data, "longbench")?,
            datasets: self.datasets.clone(),
            limit: self.limit.unwrap_or(usize::MAX),
            protocol: self.protocol.parse::<Protocol>()?,
            max_input: self.max_input,
            by_length: self.by_length,
        })
    }
}

impl Babilong {
    fn options(&self) -> Result<babilong::Options, Error> {
        Ok(babilong::Options {
            data: data(&self.data, "babilong")?,
            tasks: self.tasks.clone(),
            lengths: self.lengths.clone(),
            limit: self.limit.unwrap_or(usize::MAX),
            protocol: self.protocol.parse::<Protocol>()?,
            max_input: self.max_input,
        })
    }
}

impl Ruler {
    fn options(&self) -> Result<ruler::Options, Error> {
        Ok(ruler::Options {
            tasks: self
                .tasks
                .iter()
                .map(|task| task.parse())
                .collect::<Result<_, _>>()?,
            lengths: self.lengths.clone(),
            samples: self.samples,
            seed: self.seed,
            haystack: self.haystack.clone(),
            template: self.template.parse()?,
        })
    }
}

fn data(path: &Option<PathBuf>, benchmark: &str) -> Result<PathBuf, Error> {
    path.clone().ok_or_else(|| {
        Error::Option(format!(
            "{benchmark} needs its data; name the folder with --data"
        ))
    })
}

/// The values that the flags have when none is given.
pub(crate) fn defaults<T: Args>() -> T {
    let matches = T::augment_args(clap::Command::new("defaults").no_binary_name(true))
        .get_matches_from([""; 0]);
    T::from_arg_matches(&matches).unwrap_or_else(|e| e.exit())
}

macro_rules! default_is_no_flags {
    ($($options:ty),*) => {
        $(impl Default for $options {
            fn default() -> Self {
                defaults()
            }
        })*
    };
}
default_is_no_flags!(Methods, Needle, LongBench, Babilong, Ruler);

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Grid, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("grid.toml");
        fs::write(&path, text).unwrap();
        let mut grid = Grid::read(&path)?;
        for model in &mut grid.models {
            *model = model.strip_prefix(dir.path()).unwrap().into();
        }
        Ok(grid)
    }

    #[test]
    fn files_and_flags_have_the_same_defaults() {
        let grid = read("models = ['m']\n[methods]\ncapacity = [64]\n[needle]\n").unwrap();
        assert_eq!(
            grid.methods,
            Methods {
                capacity: vec![64],
                ..Methods::default()
            }
        );
        assert_eq!(grid.needle, Some(Needle::default()));
        assert_eq!(grid.ruler, None);
        assert_eq!(Needle::default().lengths, [1000, 2000, 4000]);
        assert_eq!(grid.models, [PathBuf::from("m")]);
    }

    #[test]
    fn mistakes_are_named_on_one_line() {
        for (text, expected) in [
            ("models = []\n[needles]", "unknown field `needles`"),
            ("models = 3", "invalid type: integer `3`"),
            ("[needle]", "missing field `models`"),
            (
                "models = []\n[needle]\ndepth = [1]",
                "unknown field `depth`",
            ),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(
                message.contains("grid.toml")
                    && message.contains(expected)
                    && !message.contains('\n'),
                "{message}"
            );
        }
    }
}
