//! An unfinished run on disk, so that it can be stopped and resumed.

mod outcome;

pub use outcome::{Outcome, parse};

use crate::{Error, Settings};
use headkv_files::Lines;
use outcome::Line;
use std::{collections::BTreeMap, fs, path::Path};

/// The file of an unfinished run: its settings, then a line of JSON per example.
pub struct Session {
    lines: Lines,
    /// Outcomes by the number of their example.
    pub done: BTreeMap<usize, Outcome>,
}

impl Session {
    /// Begins a run of that many examples of a model with that many heads over all layers, or goes on with the one that
    /// was left there. A torn last line is cut off.
    ///
    /// # Errors
    /// [`Error::Session`] if the file belongs to a run with other settings or holds what no such run writes;
    /// [`Error::Files`], also while another run has it open.
    pub fn open(
        path: &Path,
        settings: &Settings,
        examples: usize,
        heads: usize,
    ) -> Result<Self, Error> {
        let (mut lines, text) = Lines::open_alone(path)?;
        let done = if text.is_empty() {
            lines.add(settings)?;
            BTreeMap::new()
        } else {
            parse(&text, settings, examples, heads).map_err(|why| Error::Session {
                path: path.into(),
                why,
            })?
        };
        Ok(Self { lines, done })
    }

    /// Adds an outcome.
    ///
    /// # Errors
    /// [`Error::Files`].
    pub fn add(&mut self, example: usize, outcome: Outcome) -> Result<(), Error> {
        let line = Line { example, outcome };
        self.lines.add(&line)?;
        self.done.insert(example, line.outcome);
        Ok(())
    }

    /// Removes the file: the run is finished.
    ///
    /// # Errors
    /// [`Error::Files`].
    pub fn finish(self) -> Result<(), Error> {
        let path = self.lines.path().to_path_buf();
        // Some systems remove no file that is open.
        drop(self.lines);
        Ok(fs::remove_file(&path).map_err(headkv_files::Error::io("remove", path))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use proptest::prelude::*;

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
        let mut session = Session::open(&path, &settings(), 4, 2).unwrap();
        session.add(3, outcome(1.0 / 3.0)).unwrap();
        session.add(1, outcome(2.0)).unwrap();
        drop(session);
        let whole = fs::read(&path).unwrap();
        let lines = whole.iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(lines, 3);
        for torn in 0..whole.len() {
            fs::write(&path, &whole[..torn]).unwrap();
            let mut session = Session::open(&path, &settings(), 4, 2).unwrap();
            let before = whole[..torn].iter().filter(|byte| **byte == b'\n').count();
            assert_eq!(session.done.len(), before.saturating_sub(1));
            for (example, score) in [(3, 1.0 / 3.0), (1, 2.0)] {
                if !session.done.contains_key(&example) {
                    session.add(example, outcome(score)).unwrap();
                }
            }
            assert_eq!(fs::read(&path).unwrap(), whole);
        }
        Session::open(&path, &settings(), 4, 2)
            .unwrap()
            .finish()
            .unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn other_settings_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.json.part");
        Session::open(&path, &settings(), 4, 2).unwrap();
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
            let message = Session::open(&path, &other, 4, 2)
                .err()
                .unwrap()
                .to_string();
            assert!(
                message.contains("was begun with other settings; delete it"),
                "{message}"
            );
        }
        fs::write(&path, "{}\n").unwrap();
        let message = Session::open(&path, &settings(), 4, 2)
            .err()
            .unwrap()
            .to_string();
        assert!(message.contains("is not an unfinished run"), "{message}");
    }

    #[test]
    fn lines_that_no_run_writes_are_refused() {
        let begun = serde_json::to_string(&settings()).unwrap() + "\n";
        let good = r#"{"example":3,"answer":"A","f1":1.0,"scores":[0.5,0.1]}"#;
        let read = |line: &str| parse(&(begun.clone() + line), &settings(), 4, 2);
        assert_eq!(read(good).unwrap().len(), 1);
        for (from, to, why) in [
            ("\"example\":3", "\"example\":4", "example 5 of 4"),
            ("\"example\":3", "\"example\":18446744073709551615", "of 4"),
            ("\"example\":3", "\"example\":-1", "line 2: invalid value"),
            ("\"f1\":1.0", "\"f1\":7", "an F1 of 7"),
            ("\"f1\":1.0", "\"f1\":-5", "an F1 of -5"),
            ("[0.5,0.1]", "[0.5]", "scores of 1 heads of 2"),
            ("[0.5,0.1]", "[0.5,-1]", "a score of -1"),
            ("[0.5,0.1]", "[0.5,null]", "line 2: invalid type"),
        ] {
            let why_not = read(&good.replace(from, to)).unwrap_err();
            assert!(
                why_not.starts_with("is damaged in line 2: ") && why_not.contains(why),
                "{why_not}"
            );
        }
        let twice = read(&[good, good].join("\n")).unwrap_err();
        assert_eq!(twice, "is damaged in line 3: example 4 once more");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn a_damaged_file_is_refused_or_whole(
            damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let line = r#"{"example":3,"answer":"A","f1":1.0,"scores":[0.5,0.1]}"#;
            let begun = serde_json::to_string(&settings()).unwrap() + "\n";
            let mut bytes = line.as_bytes().to_vec();
            for (at, byte) in damages {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let text = begun + &String::from_utf8_lossy(&bytes);
            for (example, outcome) in parse(&text, &settings(), 4, 2).unwrap_or_default() {
                prop_assert!(example < 4 && outcome.wrong(2).is_none());
            }
        }
    }

    #[test]
    fn two_runs_do_not_write_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.json.part");
        let mut first = Session::open(&path, &settings(), 4, 2).unwrap();
        let message = Session::open(&path, &settings(), 4, 2)
            .err()
            .unwrap()
            .to_string();
        assert!(
            message.contains("s.json.part is being written by another run; wait"),
            "{message}"
        );
        first.add(0, outcome(1.0)).unwrap();
        drop(first);
        assert_eq!(
            Session::open(&path, &settings(), 4, 2).unwrap().done.len(),
            1
        );
    }
}
