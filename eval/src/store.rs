//! Results on disk: one JSON line per answer, written as it comes, never twice.
//!
//! A folder holds `rows.jsonl` ([`Row`]), `prompts.jsonl` (each prompt once), `heads.jsonl` ([`Heads`]) and
//! `runs.jsonl` ([`Run`]); `bench.jsonl` ([`speed::Row`]) where `bench --out` put it there. Every other file only grows by whole lines; a line that a crash tore is dropped at the next start.

use crate::{Error, Row, Variant, row::BENCHMARKS, speed, suggest};
use headkv_files::{Lines, Lock, lines, whole::write_lines};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
};

const ROWS: &str = "rows.jsonl";
const PROMPTS: &str = "prompts.jsonl";
const HEADS: &str = "heads.jsonl";
const RUNS: &str = "runs.jsonl";
const LOCK: &str = ".lock";
const WITHHELD: &str = "(withheld)";

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
    /// The variant.
    pub variant: Variant,
    /// Tokens kept per head, window included: `[layer][head]`.
    pub capacities: Vec<Vec<usize>>,
}

/// How a run was started, for whoever wants to repeat it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The command line, in a shell's notation.
    pub command: String,
    /// The grid file's text, if it had one.
    pub grid_file: Option<String>,
    /// Everything that was asked for as a grid file, defaults and seeds included.
    pub settings: String,
    /// The device as it was named, or the endpoint's address.
    pub device: String,
    /// The version of the results, as rows have it.
    pub version: String,
    /// The commit that the program was built from, where that is known.
    #[serde(default)]
    pub commit: Option<String>,
    /// The processor and its threads, and the GPU; of an endpoint nobody knows.
    #[serde(default)]
    pub machine: Option<String>,
    /// The day on which it was first started there.
    #[serde(default)]
    pub date: Option<String>,
}

impl Run {
    /// Whether these differ in their day at most.
    fn same(&self, other: &Self) -> bool {
        let date = self.date.clone();
        *self
            == Self {
                date,
                ..other.clone()
            }
    }
}

/// A folder of results, locked against other runs.
pub struct Store {
    dir: PathBuf,
    rows: Lines,
    prompts: Lines,
    done: HashSet<String>,
    /// Answered rows by key whose data was edited since.
    replaced: HashMap<String, Row>,
    known_prompts: HashSet<String>,
    _lock: Lock,
}

impl Store {
    /// Opens a folder, making it if it is not there, and repairs torn lines.
    ///
    /// # Errors
    /// [`Error::Files`] while another run holds the folder; a folder that cannot be written; a malformed line.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let lock = Lock::take(&dir.join(LOCK)).map_err(|error| match error {
            headkv_files::Error::Io { why, .. } => Error::File {
                path: dir.into(),
                why: format!("cannot be written ({why}); choose another --out"),
            },
            other => other.into(),
        })?;
        let (rows, lines) = Lines::open::<Row>(&dir.join(ROWS))?;
        let (prompts, texts) = Lines::open::<PromptLine>(&dir.join(PROMPTS))?;
        let (current, replaced) = latest(lines);
        let answered = |row: &Row| row.error.is_none();
        let keys = current.iter().chain(&replaced);
        Ok(Self {
            dir: dir.into(),
            rows,
            prompts,
            done: keys
                .filter(|row| answered(row))
                .map(|row| row.key.clone())
                .collect(),
            replaced: replaced
                .into_iter()
                .filter(answered)
                .map(|row| (row.key.clone(), row))
                .collect(),
            known_prompts: texts.into_iter().map(|prompt| prompt.digest).collect(),
            _lock: lock,
        })
    }

    /// Whether there is an answer for that key.
    pub fn has(&self, key: &str) -> bool {
        self.done.contains(key)
    }

    /// Makes an answered row of earlier data current again: it was edited, and set back.
    ///
    /// # Errors
    /// [`Error::Files`].
    pub fn renew(&mut self, key: &str) -> Result<(), Error> {
        match self.replaced.remove(key) {
            Some(row) => Ok(self.rows.add(&row)?),
            None => Ok(()),
        }
    }

    /// Adds a row, and its prompt if it is new.
    ///
    /// # Errors
    /// [`Error::Files`].
    pub fn add(&mut self, row: &Row, prompt: &str) -> Result<(), Error> {
        if self.known_prompts.insert(row.prompt.clone()) {
            let line = PromptLine {
                digest: row.prompt.clone(),
                text: prompt.into(),
            };
            self.prompts.add(&line)?;
        }
        self.rows.add(row)?;
        if row.error.is_none() {
            self.done.insert(row.key.clone());
        }
        Ok(())
    }

    /// Remembers what each head keeps under some variants.
    ///
    /// # Errors
    /// [`Error::Files`], or a malformed line in the file.
    pub fn add_heads(&self, heads: &[Heads]) -> Result<(), Error> {
        let (mut lines, items) = Lines::open::<Heads>(&self.dir.join(HEADS))?;
        // As the file has them: equal items are equal lines.
        let line = |item: &Heads| serde_json::to_string(item).unwrap_or_default();
        let mut known: HashSet<String> = items.iter().map(line).collect();
        for item in heads {
            if known.insert(line(item)) {
                lines.add(item)?;
            }
        }
        Ok(())
    }

    /// Remembers how the run was started. Going on with one, on another day, makes it no other run.
    ///
    /// # Errors
    /// [`Error::Files`], or a malformed line in the file.
    pub fn add_run(&self, run: &Run) -> Result<(), Error> {
        let (mut lines, known) = Lines::open::<Run>(&self.dir.join(RUNS))?;
        if !known.iter().any(|known| known.same(run)) {
            lines.add(run)?;
        }
        Ok(())
    }
}

/// Everything in a folder of results.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Results {
    /// The last row of each key, sorted by key.
    pub rows: Vec<Row>,
    /// Rows of needles, texts and data that were edited since; no table shows them.
    pub replaced: Vec<Row>,
    /// Prompts by digest.
    pub prompts: HashMap<String, String>,
    /// What each head keeps.
    pub heads: Vec<Heads>,
    /// How the runs were started.
    pub runs: Vec<Run>,
    /// What `bench` measured.
    pub speed: Vec<speed::Row>,
}

impl Results {
    /// Whether a folder holds results.
    pub fn are_in(dir: &Path) -> bool {
        [ROWS, speed::FILE]
            .iter()
            .any(|name| dir.join(name).is_file())
    }

    /// Rows alone, as a folder's file has them.
    pub fn of_rows(rows: Vec<Row>) -> Self {
        let (rows, replaced) = latest(rows);
        Self {
            rows,
            replaced,
            ..Self::default()
        }
    }

    /// Reads a folder, which may be in use.
    ///
    /// # Errors
    /// A folder without rows and measurements, or a malformed line that is not the last.
    pub fn read(dir: &Path) -> Result<Self, Error> {
        if !Self::are_in(dir) {
            return Err(Error::file(
                dir,
                format!("holds no {ROWS}; name the --out folder of a run"),
            ));
        }
        Ok(Self {
            prompts: lines::read::<PromptLine>(&dir.join(PROMPTS))?
                .into_iter()
                .map(|prompt| (prompt.digest, prompt.text))
                .collect(),
            heads: lines::read(&dir.join(HEADS))?,
            runs: lines::read(&dir.join(RUNS))?,
            speed: lines::read(&dir.join(speed::FILE))?,
            ..Self::of_rows(lines::read(&dir.join(ROWS))?)
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
        let mut rows = std::mem::take(&mut self.replaced);
        rows.append(&mut self.rows);
        rows.extend(other.replaced);
        rows.extend(other.rows.into_iter().filter(better));
        (self.rows, self.replaced) = latest(rows);
        self.prompts.extend(other.prompts);
        add_new(&mut self.heads, other.heads);
        add_new(&mut self.runs, other.runs);
        add_new(&mut self.speed, other.speed);
    }

    /// Takes out what these benchmarks' data say: prompts, right answers, and the model's, which may quote them. A
    /// benchmark's name covers its editions: `longbench` withholds `longbench-e` too.
    ///
    /// # Errors
    /// [`Error::Option`] for a name that is no benchmark: texts that were to be withheld must not slip through by a typo.
    pub fn withhold(&mut self, benchmarks: &[String]) -> Result<(), Error> {
        if let Some(name) = benchmarks
            .iter()
            .find(|name| !BENCHMARKS.contains(&name.as_str()))
        {
            let message = suggest::unknown("benchmark", name, BENCHMARKS);
            return Err(Error::Option(format!("--withhold: {message}")));
        }
        let edition = |of: &str, name: &str| {
            of.strip_prefix(name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        for row in self.rows.iter_mut().chain(&mut self.replaced) {
            if benchmarks.iter().any(|name| edition(&row.benchmark, name)) {
                self.prompts.remove(&row.prompt);
                row.answer = WITHHELD.into();
                row.expected = WITHHELD.into();
                row.kept = None;
            }
        }
        Ok(())
    }

    /// Writes a folder that [`Results::read`] and [`Store::open`] understand; each file appears whole or not at all.
    ///
    /// # Errors
    /// [`Error::Files`].
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
        if !self.speed.is_empty() {
            write_lines(&dir.join(speed::FILE), &self.speed)?;
        }
        // What was replaced comes first, so that it is replaced when it is read again.
        let rows: Vec<&Row> = self.replaced.iter().chain(&self.rows).collect();
        write_lines(&dir.join(ROWS), &rows)?;
        Ok(())
    }
}

fn add_new<T: PartialEq>(items: &mut Vec<T>, more: Vec<T>) {
    for item in more {
        if !items.contains(&item) {
            items.push(item);
        }
    }
}

/// The last row of each key, sorted by key: those of the prompt that its place had last, and the others.
fn latest(rows: Vec<Row>) -> (Vec<Row>, Vec<Row>) {
    let mut prompts = HashMap::new();
    let mut by_key = BTreeMap::new();
    for row in rows {
        prompts.insert(row.place(), row.prompt.clone());
        by_key.insert(row.key.clone(), row);
    }
    by_key
        .into_values()
        .partition(|row| prompts.get(&row.place()) == Some(&row.prompt))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::tests::row;
    use std::fs;

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
    fn rows_of_edited_data_are_kept_but_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let before = row("1", Ok("yes"));
        let edited = Row {
            key: "another".into(),
            prompt: "another".into(),
            ..row("1", Ok("no"))
        };
        let mut store = Store::open(dir.path()).unwrap();
        store.add(&before, "p").unwrap();
        store.add(&edited, "q").unwrap();
        drop(store);
        let shown = || Results::read(dir.path()).unwrap().rows;
        assert_eq!(shown(), std::slice::from_ref(&edited));
        // Set back: the old answer still stands, and counts again.
        let mut store = Store::open(dir.path()).unwrap();
        assert!(store.has(&before.key));
        store.renew(&before.key).unwrap();
        drop(store);
        assert_eq!(shown(), std::slice::from_ref(&before));
        // A merge keeps both.
        let merged = tempfile::tempdir().unwrap();
        Results::read(dir.path())
            .unwrap()
            .write(merged.path())
            .unwrap();
        let results = Results::read(merged.path()).unwrap();
        assert_eq!(
            (results.rows, results.replaced),
            (vec![before], vec![edited])
        );
    }

    #[test]
    fn two_runs_refuse_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let locked = Store::open(dir.path()).err().unwrap();
        assert!(matches!(
            locked,
            Error::Files(headkv_files::Error::Locked(_))
        ));
        drop(store);
        Store::open(dir.path()).unwrap();
    }

    #[test]
    fn withheld_texts_are_gone() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        store.add(&row("1", Ok("no")), "a secret").unwrap();
        let whole = Results::read(dir.path()).unwrap();
        let mut results = whole.clone();
        results.withhold(&["longbench".into()]).unwrap();
        assert_eq!(results, whole);
        let message = results
            .withhold(&["neddle".into()])
            .unwrap_err()
            .to_string();
        assert_eq!(
            message,
            "--withhold: unknown benchmark `neddle`; did you mean needle?"
        );
        assert_eq!(results, whole);
        results.withhold(&["needle".into()]).unwrap();
        assert!(results.prompts.is_empty());
        let row = results.rows[0].clone();
        assert_eq!((&*row.answer, &*row.expected), (WITHHELD, WITHHELD));
        assert_eq!(row.score, whole.rows[0].score);

        results.rows[0].benchmark = "longbench-e".into();
        results.rows[0].answer = "a secret".into();
        results.withhold(&["longbench".into()]).unwrap();
        assert_eq!(results.rows[0].answer, WITHHELD);
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
        let run = Run {
            command: "headkv-eval needle".into(),
            grid_file: None,
            settings: "models = []".into(),
            device: "cpu".into(),
            version: "1".into(),
            commit: Some("7c96e70".into()),
            machine: Some("a chip, 2 threads".into()),
            date: Some("2026-01-01".into()),
        };
        let later = Run {
            date: Some("2026-01-02".into()),
            ..run.clone()
        };
        for run in [&run, &later] {
            store.add_run(run).unwrap();
        }
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
