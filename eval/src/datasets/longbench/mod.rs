//! LongBench (Bai et al. 2024, arXiv 2308.14508), and the long-dependency tasks of LooGLE (Li et al. 2024,
//! arXiv 2311.04939) that HeadKV adds to it.

mod files;
mod names;

use super::{
    Target,
    json_lines::{self, Record},
};
use crate::{
    Error, Sample,
    metrics::Metric,
    protocol::{Protocol, original_limit},
    sample::Scoring,
};
use files::{Edition, Files};
use std::{collections::HashMap, path::PathBuf};

pub use names::DATASETS;

/// What to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// A folder with `{dataset}.jsonl`, or one such file; LongBench-E's end in `_e.jsonl`. The config files lie in the
    /// same folder or in `config/`.
    pub data: PathBuf,
    /// The data sets; all that lie in the folder if there are none.
    pub datasets: Vec<String>,
    /// The most samples of a data set.
    pub limit: usize,
    /// Who frames the prompt.
    pub protocol: Protocol,
    /// The most tokens of a prompt, with what frames it. If there is none, that of the paper's scripts for a model of
    /// that name (Llama-3 7950, Mistral 31500, Llama-2 3950), as far as it fits the model's context.
    pub max_input: Option<usize>,
    /// LongBench-E, also where both lie in the folder.
    pub longbench_e: bool,
}

/// Reads the data sets.
///
/// # Errors
/// An unknown data set (the nearest names are offered), one without a file or prompt, a file without records, a malformed
/// record or one without answers, an input limit that does not fit the model.
pub fn samples(options: &Options, target: &Target) -> Result<Vec<Sample>, Error> {
    let Files {
        edition,
        folder,
        files,
    } = files::find(options)?;
    let prompts: HashMap<String, String> = files::config(&folder, "dataset2prompt.json")?;
    let lengths: HashMap<String, usize> = files::config(&folder, "dataset2maxlen.json")?;
    let missing = |name: &str, what: &str| {
        Error::file(
            &folder,
            format!("{what} has no entry for `{name}`; add one"),
        )
    };
    let original = match options.protocol {
        Protocol::Paper => original_limit(target.model),
        Protocol::Chat => None,
    };
    let mut samples = Vec::new();
    for (name, file) in &files {
        // A config that has LooGLE's tasks is followed.
        let built_in = names::built_in(name);
        let prompt = prompts
            .get(name)
            .map(String::as_str)
            .or(built_in.map(|(prompt, _)| prompt))
            .ok_or_else(|| missing(name, "dataset2prompt.json"))?;
        let tokens = lengths
            .get(name)
            .copied()
            .or(built_in.map(|(_, tokens)| tokens))
            .ok_or_else(|| missing(name, "dataset2maxlen.json"))?;
        let task = Task {
            options,
            target,
            edition,
            name,
            prompt,
            tokens,
            limit: options
                .protocol
                .limit(options.max_input, original, target, tokens)?,
        };
        for record in json_lines::read(file, options.limit)? {
            samples.push(task.sample(&record)?);
        }
    }
    Ok(samples)
}

/// One data set and how it is asked.
struct Task<'a> {
    options: &'a Options,
    target: &'a Target<'a>,
    edition: Edition,
    name: &'a str,
    prompt: &'a str,
    /// The most tokens of an answer.
    tokens: usize,
    /// The most tokens of a prompt.
    limit: usize,
}

impl Task<'_> {
    fn sample(&self, record: &Record) -> Result<Sample, Error> {
        let metric = names::metric(self.name)?;
        let answers = record.texts("answers")?;
        if answers.iter().all(|answer| answer.trim().is_empty()) {
            return Err(record
                .place
                .error("field `answers` is missing or empty; this data set cannot be scored"));
        }
        let classes = record.texts("all_classes")?;
        if metric == Metric::Classification && classes.is_empty() {
            return Err(record
                .place
                .error("field `all_classes` is missing or empty"));
        }
        let words = record.get("length").and_then(|value| value.as_u64());
        if words.is_none() && self.edition == Edition::E {
            return Err(record
                .place
                .error("field `length` is missing or not a number of words"));
        }
        let protocol = self.options.protocol;
        let text = fill(
            self.prompt,
            &record.text("context")?,
            &record.text("input")?,
        );
        Ok(Sample {
            benchmark: self.edition.benchmark(),
            dataset: self.name.into(),
            id: record
                .text("_id")
                .unwrap_or_else(|_| record.place.line.to_string()),
            length: None,
            depth: None,
            bucket: words.map(|words| bucket(words).to_string()),
            protocol: protocol.label(self.options.max_input),
            prompt: protocol.frame(&text, self.target, self.limit)?,
            min_tokens: 1,
            max_tokens: self.tokens,
            stop: Vec::new(),
            turn: None,
            scoring: Scoring::References {
                metric,
                first_line: names::first_line(self.name),
                answers,
                classes,
            },
        })
    }
}

/// The bucket of LongBench-E for a sample of that many words.
fn bucket(words: u64) -> &'static str {
    match words {
        0..4000 => "0-4k",
        4000..8000 => "4-8k",
        _ => "8k+",
    }
}

/// Puts context and question into a prompt; both places are looked for in the prompt only.
fn fill(prompt: &str, context: &str, input: &str) -> String {
    let pieces = prompt
        .split("{context}")
        .map(|piece| piece.replace("{input}", input));
    pieces.collect::<Vec<_>>().join(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_the_data_are_left_alone() {
        assert_eq!(
            fill("<{context}|{input}>", "{input}", "{context}"),
            "<{input}|{context}>"
        );
    }

    #[test]
    fn buckets_are_those_of_longbench_e() {
        assert_eq!(
            [0, 3999, 4000, 7999, 8000].map(bucket),
            ["0-4k", "0-4k", "4-8k", "4-8k", "8k+"]
        );
    }
}
