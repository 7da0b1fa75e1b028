//! An unfinished run on disk, so that it can be stopped and resumed.

use crate::{Error, Settings};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read, Write},
    path::{Path, PathBuf},
};

/// What came of one example.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Outcome {
    /// The model's answer.
    pub answer: String,
    /// Its QA-F1, 0 to 1.
    pub f1: f64,
    /// Every head's score, `layers x heads`, layer by layer.
    pub scores: Vec<f64>,
}

#[derive(Deserialize, Serialize)]
struct Line {
    example: usize,
    #[serde(flatten)]
    outcome: Outcome,
}

/// The file of an unfinished run: its settings, then a line of JSON per example.
pub struct Session {
    path: PathBuf,
    file: File,
    /// Outcomes by the number of their example.
    pub done: BTreeMap<usize, Outcome>,
}

impl Session {
    /// Begins a run, or goes on with the one that was left there. A torn last line is cut off.
    ///
    /// # Errors
    /// [`Error::Locked`] while another run has the file open, [`Error::Session`] if it belongs to a run with other
    /// settings, [`Error::File`].
    pub fn open(path: &Path, settings: &Settings) -> Result<Self, Error> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(Error::file("write", folder))?;
        }
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .map_err(Error::file("write", path))?;
        // Held until the file is closed, even by a crash.
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Error::Locked(path.into()),
            TryLockError::Error(error) => Error::file("lock", path)(error),
        })?;
        let mut text = String::new();
        file.read_to_string(&mut text)
            .map_err(Error::file("read", path))?;
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        let mut lines = whole.lines();
        let begun = lines.next();
        let done = match begun {
            Some(first) => outcomes(first, lines, settings).map_err(|why| Error::Session {
                path: path.into(),
                why: why.into(),
            })?,
            None => BTreeMap::new(),
        };
        let write = || Error::file("write", path);
        file.set_len(whole.len() as u64).map_err(write())?;
        if begun.is_none() {
            file.write_all((json(settings) + "\n").as_bytes())
                .map_err(write())?;
        }
        Ok(Self {
            path: path.into(),
            file,
            done,
        })
    }

    /// Adds an outcome.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn add(&mut self, example: usize, outcome: Outcome) -> Result<(), Error> {
        let line = Line { example, outcome };
        let written = self.file.write_all((json(&line) + "\n").as_bytes());
        written.map_err(Error::file("write", &self.path))?;
        self.done.insert(example, line.outcome);
        Ok(())
    }

    /// Removes the file: the run is finished.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn finish(self) -> Result<(), Error> {
        fs::remove_file(&self.path).map_err(Error::file("remove", &self.path))
    }
}

/// What the lines behind the settings hold.
fn outcomes<'a>(
    begun: &str,
    lines: impl Iterator<Item = &'a str>,
    settings: &Settings,
) -> Result<BTreeMap<usize, Outcome>, &'static str> {
    let begun: Settings = serde_json::from_str(begun).map_err(|_| "is not an unfinished run")?;
    if begun != *settings {
        return Err("was begun with other settings");
    }
    lines
        .map(|line| match serde_json::from_str(line) {
            Ok(Line { example, outcome }) => Ok((example, outcome)),
            Err(_) => Err("is damaged"),
        })
        .collect()
}

fn json(value: &impl Serialize) -> String {
    serde_json::json!(value).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn settings() -> Settings {
        Settings {
            model: "m".into(),
            weights_sha256: "0".into(),
            tokenizer_sha256: "0".into(),
            device: "cpu".into(),
            kind: Kind::Retrieval,
            needles: vec![headkv_haystack::needle::san_francisco()],
            haystack: "generated".into(),
            lengths: vec![1000],
            depths: vec![0.0],
            template: "plain".into(),
            max_tokens: 50,
            prompts_sha256: "0".into(),
            tool: "head-scoring".into(),
        }
    }

    fn outcome(score: f64) -> Outcome {
        Outcome {
            answer: "A\nb".into(),
            f1: 1.0,
            scores: vec![score, 0.1],
        }
    }

    #[test]
    fn a_run_goes_on_where_it_was_torn() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/s.json.part");
        let mut session = Session::open(&path, &settings()).unwrap();
        session.add(3, outcome(1.0 / 3.0)).unwrap();
        session.add(1, outcome(2.0)).unwrap();
        drop(session);
        let whole = fs::read(&path).unwrap();
        let lines = whole.iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(lines, 3);
        for torn in 0..whole.len() {
            fs::write(&path, &whole[..torn]).unwrap();
            let mut session = Session::open(&path, &settings()).unwrap();
            let before = whole[..torn].iter().filter(|byte| **byte == b'\n').count();
            assert_eq!(session.done.len(), before.saturating_sub(1));
            for (example, score) in [(3, 1.0 / 3.0), (1, 2.0)] {
                if !session.done.contains_key(&example) {
                    session.add(example, outcome(score)).unwrap();
                }
            }
            assert_eq!(fs::read(&path).unwrap(), whole);
        }
        Session::open(&path, &settings()).unwrap().finish().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn other_settings_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.json.part");
        Session::open(&path, &settings()).unwrap();
        let others = [
            Settings {
                max_tokens: 1,
                ..settings()
            },
            Settings {
                device: "cuda:0".into(),
                ..settings()
            },
        ];
        for other in others {
            let message = Session::open(&path, &other).err().unwrap().to_string();
            assert!(
                message.contains("was begun with other settings; delete it"),
                "{message}"
            );
        }
        fs::write(&path, "{}\n").unwrap();
        let message = Session::open(&path, &settings()).err().unwrap().to_string();
        assert!(message.contains("is not an unfinished run"), "{message}");
    }
    #[test]
    fn two_runs_do_not_write_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.json.part");
        let mut first = Session::open(&path, &settings()).unwrap();
        let message = Session::open(&path, &settings()).err().unwrap().to_string();
        assert!(
            message.contains("s.json.part is being written by another run; wait"),
            "{message}"
        );
        first.add(0, outcome(1.0)).unwrap();
        drop(first);
        assert_eq!(Session::open(&path, &settings()).unwrap().done.len(), 1);
    }
}
