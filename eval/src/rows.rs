//! Results on disk: one JSON line per answer, written as it comes, never twice.
//!
//! A folder holds `rows.jsonl` ([`Row`]), `prompts.jsonl` (each prompt once), `heads.jsonl` ([`Heads`]) and `runs.jsonl`
//! (the command lines). Every file only grows by whole lines; a line that a crash tore is dropped at the next start.

use crate::{Error, Sample, Variant, job::Completion};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use std::{
    collections::{HashMap, HashSet},
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read, Write},
    path::{Path, PathBuf},
};

const ROWS: &str = "rows.jsonl";
const PROMPTS: &str = "prompts.jsonl";
const HEADS: &str = "heads.jsonl";
const RUNS: &str = "runs.jsonl";
const LOCK: &str = ".lock";

/// The model that answers, as far as rows depend on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// SHA-256 over its weights, in hexadecimal; for an endpoint, its address.
    pub digest: String,
    /// Where it runs: a device, or `endpoint`.
    pub backend: String,
}

/// One answer. Numbers that are unknown or have no meaning for a benchmark are null.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Names everything that the answer depends on; see [`key`].
    pub key: String,
    /// `needle`, `longbench`, `babilong` or `ruler`.
    pub benchmark: String,
    /// The data set or task.
    pub dataset: String,
    /// The sample's name inside the data set.
    pub sample: String,
    /// The model's name.
    pub model: String,
    /// A device, or `endpoint`.
    pub backend: String,
    /// The method and its parameters.
    #[serde(flatten)]
    pub variant: Variant,
    /// Tokens of context that were asked for.
    pub length: Option<usize>,
    /// Percent of the context.
    pub depth: Option<f64>,
    /// The benchmark's own length bucket.
    pub bucket: Option<String>,
    /// The protocol or template.
    pub protocol: String,
    /// SHA-256 of the prompt, as in `prompts.jsonl`.
    pub prompt: String,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens generated.
    pub tokens: usize,
    /// The answer.
    pub answer: String,
    /// What a right answer says.
    pub expected: String,
    /// The score's name.
    pub metric: String,
    /// 0 to 1.
    pub score: f64,
    /// QA-F1, 0 to 1 (needle).
    pub f1: Option<f64>,
    /// Stemmed ROUGE-1 F, 0 to 1 (needle).
    pub rouge1: Option<f64>,
    /// Stemmed ROUGE-L F, 0 to 1 (needle).
    pub rouge_l: Option<f64>,
    /// Bytes of keys and values held at the end.
    pub kv_bytes: Option<usize>,
    /// Seconds from the request to the first token.
    pub prompt_seconds: Option<f64>,
    /// Seconds from the first token to the last.
    pub decode_seconds: f64,
    /// Why there is no answer; the score is 0 then, and a rerun tries again.
    pub error: Option<String>,
}

impl Row {
    /// The row of an answer, or of why there is none.
    pub fn new(
        sample: &Sample,
        model: &Model,
        variant: &Variant,
        outcome: Result<Completion, String>,
    ) -> Self {
        let (completion, error) = match outcome {
            Ok(completion) => (completion, None),
            Err(why) => (Completion::default(), Some(why)),
        };
        let scores = if error.is_none() {
            sample.scoring.score(&completion.text)
        } else {
            Default::default()
        };
        Self {
            key: key(sample, model, variant),
            benchmark: sample.benchmark.into(),
            dataset: sample.dataset.clone(),
            sample: sample.id.clone(),
            model: model.name.clone(),
            backend: model.backend.clone(),
            variant: variant.clone(),
            length: sample.length,
            depth: sample.depth,
            bucket: sample.bucket.clone(),
            protocol: sample.protocol.clone(),
            prompt: prompt_digest(sample),
            prompt_tokens: completion.prompt_tokens,
            tokens: completion.tokens,
            answer: completion.text,
            expected: sample.scoring.expected(),
            metric: sample.scoring.metric().into(),
            score: scores.score,
            f1: scores.f1,
            rouge1: scores.rouge1,
            rouge_l: scores.rouge_l,
            kv_bytes: completion.kv_bytes,
            prompt_seconds: completion.prompt_seconds,
            decode_seconds: completion.decode_seconds,
            error,
        }
    }
}

/// Everything that an answer and its score depend on: benchmark, data set and sample; model, weights and device; method,
/// parameters and head scores; prompt and limits of the answer; version of this crate.
pub fn key(sample: &Sample, model: &Model, variant: &Variant) -> String {
    let short = |digest: &str| digest.chars().take(16).collect::<String>();
    let scores = variant
        .scores_digest
        .as_deref()
        .map(|digest| format!(" scores {}", short(digest)))
        .unwrap_or_default();
    let digest = if model.backend == "endpoint" {
        model.digest.clone()
    } else {
        short(&model.digest)
    };
    format!(
        "{}/{}/{} | {}@{digest} {} | {variant}{scores} | prompt {} up to {} tokens, stop {:?}, {} | {}",
        sample.benchmark,
        sample.dataset,
        sample.id,
        model.name,
        model.backend,
        short(&prompt_digest(sample)),
        sample.max_tokens,
        sample.stop,
        sample.scoring.metric(),
        env!("CARGO_PKG_VERSION"),
    )
}

fn prompt_digest(sample: &Sample) -> String {
    let framing = [
        u8::from(sample.prompt.chat),
        u8::from(sample.prompt.special),
    ];
    digest(&[sample.prompt.text.as_bytes(), &framing])
}

/// SHA-256 over all parts, in hexadecimal.
pub fn digest(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A prompt as it stands in `prompts.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct PromptLine {
    digest: String,
    text: String,
}

/// What each head keeps under a variant, for the report's map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heads {
    /// The model's name.
    pub model: String,
    /// The variant, as it is shown.
    pub variant: String,
    /// Tokens kept per head, window included: `[layer][head]`.
    pub capacities: Vec<Vec<usize>>,
}

/// A folder of results, locked against other runs.
pub struct Store {
    dir: PathBuf,
    rows: File,
    prompts: File,
    done: HashSet<String>,
    known_prompts: HashSet<String>,
    _lock: File,
}

impl Store {
    /// Opens a folder, making it if it is not there, and repairs torn lines.
    ///
    /// # Errors
    /// [`Error::Locked`] while another run holds the folder; a folder that cannot be written; a malformed line.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(Error::write(dir))?;
        let path = dir.join(LOCK);
        let lock = File::create(&path).map_err(Error::write(&path))?;
        lock.try_lock().map_err(|e| match e {
            TryLockError::WouldBlock => Error::Locked(dir.into()),
            TryLockError::Error(source) => Error::Write { path, source },
        })?;
        let (rows, lines) = open_lines::<Row>(&dir.join(ROWS))?;
        let (prompts, texts) = open_lines::<PromptLine>(&dir.join(PROMPTS))?;
        Ok(Self {
            dir: dir.into(),
            rows,
            prompts,
            done: latest(lines)
                .into_iter()
                .filter(|row| row.error.is_none())
                .map(|row| row.key)
                .collect(),
            known_prompts: texts.into_iter().map(|prompt| prompt.digest).collect(),
            _lock: lock,
        })
    }

    /// Whether there is an answer for that key.
    pub fn has(&self, key: &str) -> bool {
        self.done.contains(key)
    }

    /// Adds a row, and its prompt if it is new.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn add(&mut self, row: &Row, prompt: &str) -> Result<(), Error> {
        if self.known_prompts.insert(row.prompt.clone()) {
            let line = PromptLine {
                digest: row.prompt.clone(),
                text: prompt.into(),
            };
            append(&mut self.prompts, &line).map_err(Error::write(&self.dir.join(PROMPTS)))?;
        }
        append(&mut self.rows, row).map_err(Error::write(&self.dir.join(ROWS)))?;
        if row.error.is_none() {
            self.done.insert(row.key.clone());
        }
        Ok(())
    }

    /// Remembers what each head keeps under a variant.
    ///
    /// # Errors
    /// [`Error::Write`], or a malformed line in the file.
    pub fn add_heads(&self, heads: &Heads) -> Result<(), Error> {
        self.add_once(HEADS, heads)
    }

    /// Remembers how the run was started, in a shell's notation.
    ///
    /// # Errors
    /// [`Error::Write`], or a malformed line in the file.
    pub fn add_run(&self, command: &str) -> Result<(), Error> {
        self.add_once(RUNS, &command.to_string())
    }

    fn add_once<T: Serialize + DeserializeOwned + PartialEq>(
        &self,
        name: &str,
        item: &T,
    ) -> Result<(), Error> {
        let path = self.dir.join(name);
        let (mut file, items) = open_lines::<T>(&path)?;
        if items.contains(item) {
            return Ok(());
        }
        append(&mut file, item).map_err(Error::write(&path))
    }
}

/// Everything in a folder of results.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Results {
    /// The last row of each key, sorted by key.
    pub rows: Vec<Row>,
    /// Prompts by digest.
    pub prompts: HashMap<String, String>,
    /// What each head keeps.
    pub heads: Vec<Heads>,
    /// Command lines.
    pub runs: Vec<String>,
}

impl Results {
    /// Reads a folder, which may be in use.
    ///
    /// # Errors
    /// A folder without rows, or a malformed line that is not the last.
    pub fn read(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(ROWS);
        if !path.is_file() {
            return Err(Error::file(
                dir,
                format!("holds no {ROWS}; name the --out folder of a run"),
            ));
        }
        Ok(Self {
            rows: latest(read_lines(&path)?.0),
            prompts: read_lines::<PromptLine>(&dir.join(PROMPTS))?
                .0
                .into_iter()
                .map(|prompt| (prompt.digest, prompt.text))
                .collect(),
            heads: read_lines(&dir.join(HEADS))?.0,
            runs: read_lines(&dir.join(RUNS))?.0,
        })
    }

    /// Adds what another folder held; of rows with the same key, one with an answer wins, then the later one.
    pub fn merge(&mut self, other: Self) {
        let answered: HashSet<_> = self
            .rows
            .iter()
            .filter(|row| row.error.is_none())
            .map(|row| row.key.clone())
            .collect();
        let better = |row: &Row| row.error.is_none() || !answered.contains(&row.key);
        let mut rows = std::mem::take(&mut self.rows);
        rows.extend(other.rows.into_iter().filter(better));
        self.rows = latest(rows);
        self.prompts.extend(other.prompts);
        add_new(&mut self.heads, other.heads);
        add_new(&mut self.runs, other.runs);
    }

    /// Writes a folder that [`Results::read`] and [`Store::open`] understand; each file appears whole or not at all.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Write`].
    pub fn write(&self, dir: &Path) -> Result<(), Error> {
        let _lock = Store::open(dir)?;
        let mut prompts: Vec<_> = self
            .prompts
            .iter()
            .map(|(digest, text)| PromptLine {
                digest: digest.clone(),
                text: text.clone(),
            })
            .collect();
        prompts.sort_by(|a, b| a.digest.cmp(&b.digest));
        write_lines(&dir.join(PROMPTS), &prompts)?;
        write_lines(&dir.join(HEADS), &self.heads)?;
        write_lines(&dir.join(RUNS), &self.runs)?;
        write_lines(&dir.join(ROWS), &self.rows)
    }
}

/// Writes a file whole or not at all.
///
/// # Errors
/// [`Error::Write`].
pub fn write_whole(path: &Path, text: &str) -> Result<(), Error> {
    let dir = path
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let whole = || -> std::io::Result<()> {
        fs::create_dir_all(dir)?;
        let mut file = tempfile::Builder::new()
            .permissions(permissions())
            .tempfile_in(dir)?;
        file.write_all(text.as_bytes())?;
        file.persist(path)?;
        Ok(())
    };
    whole().map_err(Error::write(path))
}

/// What a plain new file has before the umask; temporary files would be readable by their owner only.
#[cfg(unix)]
fn permissions() -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o666)
}

fn write_lines<T: Serialize>(path: &Path, items: &[T]) -> Result<(), Error> {
    let line = |item| serde_json::to_string(item).map(|line| line + "\n");
    let lines: Result<String, _> = items.iter().map(line).collect();
    let lines = lines.map_err(|e| Error::Write {
        path: path.into(),
        source: e.into(),
    })?;
    write_whole(path, &lines)
}

fn add_new<T: PartialEq>(items: &mut Vec<T>, more: Vec<T>) {
    for item in more {
        if !items.contains(&item) {
            items.push(item);
        }
    }
}

/// The last row of each key, sorted by key.
fn latest(rows: Vec<Row>) -> Vec<Row> {
    let by_key: std::collections::BTreeMap<_, _> =
        rows.into_iter().map(|row| (row.key.clone(), row)).collect();
    by_key.into_values().collect()
}

fn append<T: Serialize>(file: &mut File, item: &T) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(item)?;
    line.push(b'\n');
    file.write_all(&line)
}

/// Opens a file for appending, cutting off what is behind its last line break.
fn open_lines<T: DeserializeOwned>(path: &Path) -> Result<(File, Vec<T>), Error> {
    let (items, whole) = read_lines(path)?;
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(Error::write(path))?;
    if file.metadata().map_err(Error::read(path))?.len() != whole {
        file.set_len(whole).map_err(Error::write(path))?;
    }
    Ok((file, items))
}

/// The whole lines of a file, and how many bytes they take; nothing if there is no file.
fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<(Vec<T>, u64), Error> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(mut file) => file.read_to_end(&mut bytes).map_err(Error::read(path))?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => 0,
        Err(source) => {
            return Err(Error::Read {
                path: path.into(),
                source,
            });
        }
    };
    let whole = bytes
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    let lines = bytes[..whole]
        .split_inclusive(|byte| *byte == b'\n')
        .enumerate();
    let parse = |(at, line): (usize, &[u8])| {
        serde_json::from_slice(line).map_err(|e| Error::Line {
            path: path.into(),
            line: at + 1,
            why: format!("{e}; delete this line to run it again"),
        })
    };
    Ok((lines.map(parse).collect::<Result<_, _>>()?, whole as u64))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::sample::{Prompt, Scoring};
    use std::fs;

    pub fn sample(id: &str) -> Sample {
        Sample {
            benchmark: "needle",
            dataset: "test".into(),
            id: id.into(),
            length: Some(100),
            depth: Some(40.0),
            bucket: None,
            protocol: "plain".into(),
            prompt: Prompt {
                text: format!("prompt {id}"),
                chat: false,
                special: true,
            },
            max_tokens: 10,
            stop: vec![],
            scoring: Scoring::Needle {
                answer: "yes".into(),
                needle: "It is yes.".into(),
            },
        }
    }

    pub fn model() -> Model {
        Model {
            name: "m".into(),
            digest: "0123456789abcdef0123".into(),
            backend: "cpu".into(),
        }
    }

    fn row(id: &str, outcome: Result<&str, &str>) -> Row {
        let answer = |text: &str| Completion {
            text: text.into(),
            ..Completion::default()
        };
        Row::new(
            &sample(id),
            &model(),
            &Variant::new("full"),
            outcome.map(answer).map_err(String::from),
        )
    }

    #[test]
    fn a_key_names_everything_that_matters() {
        let variant = Variant {
            scores_digest: Some("ff".repeat(32)),
            beta: Some(1.2),
            ..Variant::new("headkv").capacity(16)
        };
        insta::assert_snapshot!(key(&sample("1"), &model(), &variant), @r#"needle/test/1 | m@0123456789abcdef cpu | headkv@16 beta 1.2 scores ffffffffffffffff | prompt cfb358d4efcc0324 up to 10 tokens, stop [], qa_f1 | 0.1.0"#);
    }

    #[test]
    fn rows_survive_and_torn_ones_are_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (row("1", Ok("yes")), row("2", Ok("no")));
        let mut store = Store::open(dir.path()).unwrap();
        store.add(&first, "prompt 1").unwrap();
        store.add(&second, "prompt 2").unwrap();
        drop(store);
        let path = dir.path().join(ROWS);
        let whole = fs::read(&path).unwrap();
        for cut in 1..60 {
            fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            assert_eq!(
                Results::read(dir.path()).unwrap().rows,
                std::slice::from_ref(&first)
            );
            let mut store = Store::open(dir.path()).unwrap();
            assert!(store.has(&first.key) && !store.has(&second.key));
            store.add(&second, "prompt 2").unwrap();
            drop(store);
            assert_eq!(fs::read(&path).unwrap(), whole);
        }
        assert_eq!(
            Results::read(dir.path()).unwrap().prompts[&first.prompt],
            "prompt 1"
        );
    }

    #[test]
    fn a_malformed_line_in_the_middle_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(ROWS), "{\"key\": 1}\n{}\n").unwrap();
        let message = Store::open(dir.path()).err().unwrap().to_string();
        assert!(
            message.contains("rows.jsonl, line 1: ") && message.contains("delete this line"),
            "{message}"
        );
    }

    #[test]
    fn two_runs_refuse_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert!(matches!(Store::open(dir.path()), Err(Error::Locked(_))));
        drop(store);
        Store::open(dir.path()).unwrap();
    }

    #[test]
    fn failures_are_tried_again_and_answers_win_a_merge() {
        let (a, b, merged) = (
            tempfile::tempdir().unwrap(),
            tempfile::tempdir().unwrap(),
            tempfile::tempdir().unwrap(),
        );
        let failed = row("1", Err("endpoint: 500"));
        let mut store = Store::open(a.path()).unwrap();
        store.add(&row("1", Ok("yes")), "p").unwrap();
        let mut store = Store::open(b.path()).unwrap();
        store.add(&failed, "p").unwrap();
        store.add_run("headkv-eval needle").unwrap();
        assert!(!store.has(&failed.key));
        store.add(&row("2", Ok("no")), "q").unwrap();
        let mut results = Results::read(a.path()).unwrap();
        results.merge(Results::read(b.path()).unwrap());
        results.write(merged.path()).unwrap();
        assert_eq!(Results::read(merged.path()).unwrap(), results);
        assert_eq!(results.rows, [row("1", Ok("yes")), row("2", Ok("no"))]);
        assert_eq!((results.runs.len(), results.prompts.len()), (1, 2));
    }
}
