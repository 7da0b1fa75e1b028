//! LongBench (Bai et al. 2024, arXiv 2308.14508), and the long-dependency tasks of LooGLE (Li et al. 2024,
//! arXiv 2311.04939) that HeadKV adds to it.

use super::{Target, json_lines};
use crate::{Error, Sample, metrics::Metric, protocol::Protocol, sample::Scoring, suggest};
use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

/// Every data set and its metric: the 21 of LongBench, then the four of LooGLE.
pub const DATASETS: [(&str, Metric); 25] = [
    ("narrativeqa", Metric::QaF1),
    ("qasper", Metric::QaF1),
    ("multifieldqa_en", Metric::QaF1),
    ("multifieldqa_zh", Metric::QaF1Zh),
    ("hotpotqa", Metric::QaF1),
    ("2wikimqa", Metric::QaF1),
    ("musique", Metric::QaF1),
    ("dureader", Metric::RougeZh),
    ("gov_report", Metric::Rouge),
    ("qmsum", Metric::Rouge),
    ("multi_news", Metric::Rouge),
    ("vcsum", Metric::RougeZh),
    ("trec", Metric::Classification),
    ("triviaqa", Metric::QaF1),
    ("samsum", Metric::Rouge),
    ("lsht", Metric::Classification),
    ("passage_retrieval_en", Metric::Retrieval),
    ("passage_retrieval_zh", Metric::RetrievalZh),
    ("passage_count", Metric::Count),
    ("lcc", Metric::CodeSim),
    ("repobench-p", Metric::CodeSim),
    ("comprehension_and_reasoning", Metric::QaF1),
    ("computation", Metric::QaF1),
    ("multiple_information_retrieval", Metric::QaF1),
    ("timeline_reorder", Metric::QaF1),
];

/// LooGLE's tasks are not in LongBench's config; a config that has them is followed.
const LOOGLE: [&str; 4] = [
    "comprehension_and_reasoning",
    "computation",
    "multiple_information_retrieval",
    "timeline_reorder",
];
const LOOGLE_PROMPT: &str = "Answer the question from the long text below, as briefly as you can.\n\n{context}\n\nQuestion: {input}\nAnswer:";
const LOOGLE_TOKENS: usize = 50;

/// Only the first line of an answer to these counts: the model tends to go on with examples of its own.
const FIRST_LINE: [&str; 4] = ["trec", "triviaqa", "samsum", "lsht"];

/// Tokens between the longest prompt and the model's limit, for the marks around the prompt and what cutting adds.
const MARGIN: usize = 64;

/// What to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// A folder with `{dataset}.jsonl`, or one such file. The config files lie in the same folder or in `config/`.
    pub data: PathBuf,
    /// The data sets; all that lie in the folder if there are none.
    pub datasets: Vec<String>,
    /// The most samples of a data set.
    pub limit: usize,
    /// Who frames the prompt.
    pub protocol: Protocol,
    /// The most tokens of a prompt; the model's context less the answer if there is none. The paper's scripts say 7950
    /// for Llama-3, 31500 for Mistral, 3950 for Llama-2.
    pub max_input: Option<usize>,
    /// LongBench-E: every sample belongs to the bucket of its `length` field in words.
    pub by_length: bool,
}

/// Reads the data sets.
///
/// # Errors
/// An unknown data set (the nearest names are offered), one without a file or prompt, a malformed row or one without
/// answers.
pub fn samples(options: &Options, target: &Target) -> Result<Vec<Sample>, Error> {
    for name in &options.datasets {
        find(name)?;
    }
    let (folder, files) = files(options)?;
    let prompts: HashMap<String, String> = config(&folder, "dataset2prompt.json")?;
    let lengths: HashMap<String, usize> = config(&folder, "dataset2maxlen.json")?;
    let mut samples = Vec::new();
    for (name, file) in &files {
        let loogle = LOOGLE.contains(&name.as_str());
        let prompt = prompts
            .get(name)
            .map(String::as_str)
            .or(loogle.then_some(LOOGLE_PROMPT));
        let tokens = lengths
            .get(name)
            .copied()
            .or(loogle.then_some(LOOGLE_TOKENS));
        let missing = |what| {
            Error::file(
                &folder,
                format!("{what} has no entry for `{name}`; add one"),
            )
        };
        let prompt = prompt.ok_or_else(|| missing("dataset2prompt.json"))?;
        let tokens = tokens.ok_or_else(|| missing("dataset2maxlen.json"))?;
        for record in json_lines::read(file, options.limit)? {
            samples.push(sample(options, target, name, &record, prompt, tokens)?);
        }
    }
    Ok(samples)
}

fn sample(
    options: &Options,
    target: &Target,
    name: &str,
    record: &json_lines::Record,
    prompt: &str,
    tokens: usize,
) -> Result<Sample, Error> {
    let metric = find(name)?;
    let answers = record.texts("answers")?;
    if answers.is_empty() {
        return Err(
            record.error("field `answers` is missing or empty; this data set cannot be scored")
        );
    }
    let classes = record.texts("all_classes")?;
    if metric == Metric::Classification && classes.is_empty() {
        return Err(record.error("field `all_classes` is missing or empty"));
    }
    let text = fill(prompt, &record.text("context")?, &record.text("input")?);
    let room = target.context.saturating_sub(tokens + MARGIN);
    let limit = options.max_input.unwrap_or(room);
    let length = record.get("length").and_then(|value| value.as_u64());
    let bucket = match (options.by_length, length) {
        (false, _) => None,
        (true, Some(words)) => Some(bucket(words).to_string()),
        (true, None) => {
            return Err(record.error("field `length` is missing or not a number of words"));
        }
    };
    Ok(Sample {
        benchmark: "longbench",
        dataset: name.into(),
        id: record
            .text("_id")
            .unwrap_or_else(|_| record.line().to_string()),
        length: None,
        depth: None,
        bucket,
        protocol: options.protocol.to_string(),
        prompt: options
            .protocol
            .frame(&text, target.model, target.tokenizer, limit)?,
        max_tokens: tokens,
        stop: Vec::new(),
        scoring: Scoring::References {
            metric,
            first_line: FIRST_LINE.contains(&name),
            answers,
            classes,
        },
    })
}

/// The bucket of LongBench-E for a sample of that many words.
fn bucket(words: u64) -> &'static str {
    match words {
        0..4000 => "0-4k",
        4000..8000 => "4-8k",
        _ => "8k+",
    }
}

/// The metric of a data set.
fn find(name: &str) -> Result<Metric, Error> {
    let found = DATASETS.iter().find(|(known, _)| *known == name);
    let names = DATASETS.iter().map(|(known, _)| *known);
    found
        .map(|(_, metric)| *metric)
        .ok_or_else(|| Error::Option(suggest::unknown("data set", name, names)))
}

/// Puts context and question into a prompt; both places are looked for in the prompt only.
fn fill(prompt: &str, context: &str, input: &str) -> String {
    let pieces = prompt
        .split("{context}")
        .map(|piece| piece.replace("{input}", input));
    pieces.collect::<Vec<_>>().join(context)
}

/// The folder, and the data sets with their files in the order of [`DATASETS`].
fn files(options: &Options) -> Result<(PathBuf, Vec<(String, PathBuf)>), Error> {
    let data = &options.data;
    if data.is_file() {
        let name = data
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        find(&name)?;
        let folder = data.parent().unwrap_or(Path::new(".")).to_path_buf();
        return Ok((folder, vec![(name, data.clone())]));
    }
    let wanted =
        |name: &str| options.datasets.is_empty() || options.datasets.iter().any(|d| d == name);
    let mut files = Vec::new();
    for (name, _) in DATASETS.iter().filter(|(name, _)| wanted(name)) {
        // LongBench-E calls its files so.
        let variants = [format!("{name}.jsonl"), format!("{name}_e.jsonl")];
        match variants
            .iter()
            .map(|file| data.join(file))
            .find(|file| file.is_file())
        {
            Some(file) => files.push((name.to_string(), file)),
            None if options.datasets.is_empty() => {}
            None => {
                return Err(Error::file(
                    data,
                    format!("holds no {name}.jsonl; download it or leave out `{name}`"),
                ));
            }
        }
    }
    if files.is_empty() {
        return Err(Error::file(
            data,
            "holds no {dataset}.jsonl of LongBench; check --data",
        ));
    }
    Ok((data.clone(), files))
}

fn config<T: serde::de::DeserializeOwned>(
    folder: &Path,
    name: &str,
) -> Result<HashMap<String, T>, Error> {
    let places = [folder.join(name), folder.join("config").join(name)];
    let Some(path) = places.iter().find(|path| path.is_file()) else {
        return Err(Error::file(
            folder,
            format!("has no {name}, neither beside the data nor in config/; download it"),
        ));
    };
    let text = fs::read_to_string(path).map_err(Error::read(path))?;
    serde_json::from_str(&text).map_err(|e| Error::file(path, format!("malformed: {e}")))
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

    #[test]
    fn near_names_are_offered() {
        let message = find("hotpot_qa").unwrap_err().to_string();
        assert_eq!(
            message,
            "unknown data set `hotpot_qa`; did you mean hotpotqa?"
        );
    }
}
