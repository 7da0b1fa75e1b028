//! babilong (Kuratov et al. 2024, arXiv 2406.10149): facts scattered in book text, and a question about them.

use super::{Target, arrow_stream, json_lines, place::Place};
use crate::{
    Error, Sample,
    metrics::babilong::{TASKS, labels},
    protocol::{Protocol, original_limit},
    sample::Scoring,
    suggest,
};
use serde::Deserialize;
use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

/// What stands before the question.
const QUESTION: &str = "\n\nQuestion: ";

/// The most tokens of an answer, as in HeadKV's script.
const MAX_TOKENS: usize = 15;

/// What to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// A folder with `{length}/{task}/` (saved by `datasets`) or `{length}/{task}.jsonl`, and prompts.json.
    pub data: PathBuf,
    /// `qa1` to `qa20`.
    pub tasks: Vec<String>,
    /// Names of the length folders, such as `0k` or `4k`.
    pub lengths: Vec<String>,
    /// The most samples of a task and length.
    pub limit: usize,
    /// Who frames the prompt. HeadKV's script uses the chat template.
    pub protocol: Protocol,
    /// The most tokens of a prompt, chat template included; as in HeadKV's script if there is none.
    pub max_input: Option<usize>,
    /// Whether the question comes once the context is compressed.
    pub question_apart: bool,
}

/// The parts of a task's prompt, with the names that babilong's `prompts.json` gives them.
#[derive(Deserialize)]
struct PromptParts {
    instruction: String,
    examples: String,
    post_prompt: String,
}

impl PromptParts {
    /// babilong's default template.
    fn fill(&self, context: &str, question: &str) -> String {
        let Self {
            instruction,
            examples,
            post_prompt,
        } = self;
        let context = context.trim();
        let text = format!(
            "{instruction}\n\n{examples}\n\n{post_prompt}\n\n<context>\n{context}\n</context>{QUESTION}{question}"
        );
        text.trim().into()
    }
}

/// Reads the tasks at all lengths.
///
/// # Errors
/// An unknown task (the nearest names are offered), a task or length that is not there, a task without a prompt, or a
/// malformed row; an input limit that does not fit the model.
pub fn samples(options: &Options, target: &Target) -> Result<Vec<Sample>, Error> {
    if let Some(name) = options.tasks.iter().find(|name| labels(name).is_empty()) {
        return Err(Error::Option(suggest::unknown("task", name, TASKS)));
    }
    let path = options.data.join("prompts.json");
    let text = headkv_files::read::text(&path)?;
    let prompts: HashMap<String, PromptParts> =
        serde_json::from_str(&text).map_err(|e| Error::file(&path, format!("malformed: {e}")))?;
    let original = original_limit(target.model);
    let limit = options
        .protocol
        .limit(options.max_input, original, target, MAX_TOKENS)?;
    let mut samples = Vec::new();
    for length in &options.lengths {
        for task in &options.tasks {
            let prompt = prompts
                .get(task)
                .ok_or_else(|| Error::file(&path, format!("has no entry for `{task}`; add one")))?;
            let rows = rows(&options.data, length, task, options.limit)?;
            for (at, [context, question, answer]) in rows.iter().enumerate() {
                let text = prompt.fill(context, question);
                let mut framed = options.protocol.frame(&text, target, limit)?;
                if options.question_apart {
                    // Whatever was cut out or put around it, the question is the last thing that is said.
                    let at = framed.text.rfind(QUESTION);
                    framed.apart = Some(at.ok_or_else(|| {
                        Error::Option(
                            "--max-input cuts into the question, which is to stand apart; raise it"
                                .into(),
                        )
                    })?);
                }
                samples.push(Sample {
                    benchmark: "babilong",
                    dataset: task.clone(),
                    id: (at + 1).to_string(),
                    length: None,
                    depth: None,
                    bucket: Some(length.clone()),
                    protocol: super::apart_label(
                        options.protocol.label(options.max_input),
                        options.question_apart,
                    ),
                    prompt: framed,
                    min_tokens: 1,
                    max_tokens: MAX_TOKENS,
                    stop: Vec::new(),
                    turn: None,
                    scoring: Scoring::Label {
                        task: task.clone(),
                        question: question.clone(),
                        target: answer.clone(),
                    },
                });
            }
        }
    }
    Ok(samples)
}

/// Context, question and answer of each sample.
fn rows(data: &Path, length: &str, task: &str, limit: usize) -> Result<Vec<[String; 3]>, Error> {
    const FIELDS: [&str; 3] = ["input", "question", "target"];
    let folder = data.join(length);
    if !folder.is_dir() {
        let found = fs::read_dir(data)
            .map_err(Error::read(data))?
            .flatten()
            .filter(|entry| entry.path().is_dir());
        let names: Vec<_> = found
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        return Err(Error::Option(suggest::unknown(
            "length",
            length,
            names.iter().map(String::as_str),
        )));
    }
    let (saved, lines) = (folder.join(task), folder.join(format!("{task}.jsonl")));
    let rows: Vec<(Place, [String; 3])> = if saved.is_dir() {
        arrow_stream::read(&saved, FIELDS, limit)?
    } else if lines.is_file() {
        let row = |record: json_lines::Record| {
            let [context, question, answer] = FIELDS.map(|field| record.text(field));
            Ok((record.place, [context?, question?, answer?]))
        };
        let records = json_lines::read(&lines, limit)?;
        records.into_iter().map(row).collect::<Result<_, Error>>()?
    } else {
        return Err(Error::file(
            &folder,
            format!("holds neither {task}/ nor {task}.jsonl; leave out `{task}`"),
        ));
    };
    let filled = |(place, row): (Place, [String; 3])| {
        if row[2].trim().is_empty() {
            return Err(place.error("field `target` is empty; this data set cannot be scored"));
        }
        Ok(row)
    };
    rows.into_iter().map(filled).collect()
}
