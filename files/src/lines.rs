//! Files of JSON lines that only grow by whole lines; one that a crash tore is dropped at the next start.

use crate::{Error, lock, read};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
};

/// A file of lines that is being written.
#[derive(Debug)]
pub struct Lines {
    path: PathBuf,
    file: File,
    /// Bytes of its whole lines.
    length: u64,
}

impl Lines {
    /// Opens a file, making it if it is not there, cuts off what is behind its last line break, and gives its items.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Line`] for one that is not an item.
    pub fn open<T: DeserializeOwned>(path: &Path) -> Result<(Self, Vec<T>), Error> {
        let (mut lines, bytes) = Self::begin(path, false)?;
        let items = parse(path, &bytes)?;
        lines.cut()?;
        Ok((lines, items))
    }

    /// Opens a file as [`Lines::open`] does, but for one run alone, and gives its whole lines as text.
    ///
    /// # Errors
    /// [`Error::Locked`] while another run has it open; [`Error::Io`], also for what is not UTF-8.
    pub fn open_alone(path: &Path) -> Result<(Self, String), Error> {
        let (mut lines, bytes) = Self::begin(path, true)?;
        let text = String::from_utf8(bytes)
            .map_err(|e| Error::io("read", path)(std::io::Error::other(e.utf8_error())))?;
        lines.cut()?;
        Ok((lines, text))
    }

    fn begin(path: &Path, alone: bool) -> Result<(Self, Vec<u8>), Error> {
        let mut file = lock::open(path)?;
        if alone {
            lock::hold(&file, path)?;
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)
            .map_err(Error::io("read", path))?;
        bytes.truncate(whole(&bytes));
        let lines = Self {
            path: path.into(),
            file,
            length: bytes.len() as u64,
        };
        Ok((lines, bytes))
    }

    /// Takes away what is behind the whole lines.
    fn cut(&mut self) -> Result<(), Error> {
        let cut = || {
            if self.file.metadata()?.len() != self.length {
                self.file.set_len(self.length)?;
            }
            Ok(())
        };
        cut().map_err(Error::io("write", &self.path))
    }

    /// Adds a line. Of one that could not be written whole, as on a full disk, nothing is left.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn add<T: Serialize>(&mut self, item: &T) -> Result<(), Error> {
        let written = serde_json::to_vec(item).map_err(Into::into);
        let written = written.and_then(|mut line| {
            line.push(b'\n');
            self.file.write_all(&line).map(|()| line.len() as u64)
        });
        match written {
            Ok(bytes) => {
                self.length += bytes;
                Ok(())
            }
            Err(why) => {
                // The first error is the one to tell.
                let _ = self.cut();
                Err(Error::io("write", &self.path)(why))
            }
        }
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The items of a file's whole lines; none if there is no file.
///
/// # Errors
/// [`Error::Io`]; [`Error::Line`] for one that is not an item.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, Error> {
    let bytes = read::bytes_if_there(path)?.unwrap_or_default();
    parse(path, &bytes[..whole(&bytes)])
}

/// Bytes up to the last line break.
fn whole(bytes: &[u8]) -> usize {
    let last = bytes.iter().rposition(|byte| *byte == b'\n');
    last.map_or(0, |at| at + 1)
}

/// The items of whole lines, which are said to lie in that file.
///
/// # Errors
/// [`Error::Line`] for one that is not an item.
pub fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<Vec<T>, Error> {
    let lines = bytes.split_inclusive(|byte| *byte == b'\n').enumerate();
    let item = |(at, line): (usize, &[u8])| {
        serde_json::from_slice(line).map_err(|e| Error::Line {
            path: path.into(),
            line: at + 1,
            why: format!("{e}; delete this line to run it again"),
        })
    };
    lines.map(item).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    proptest! {
        #[test]
        fn a_torn_file_goes_on_behind_its_last_whole_line(
            items in prop::collection::vec(".*", 1..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("new/l.jsonl");
            let (mut lines, none) = Lines::open::<String>(&path).unwrap();
            prop_assert!(none.is_empty());
            items.iter().for_each(|item| lines.add(item).unwrap());
            prop_assert_eq!(&read::<String>(&path).unwrap(), &items);
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[..cut.index(bytes.len())]).unwrap();
            let left = read::<String>(&path).unwrap();
            prop_assert!(items.starts_with(&left));
            let (mut lines, again) = Lines::open::<String>(&path).unwrap();
            prop_assert_eq!(&again, &left);
            items[left.len()..].iter().for_each(|item| lines.add(item).unwrap());
            prop_assert_eq!(fs::read(&path).unwrap(), bytes);
        }

        #[test]
        fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("l.jsonl");
            fs::write(&path, &bytes).unwrap();
            if read::<u64>(&path).is_err() {
                // What is refused is left as it was.
                prop_assert!(Lines::open::<u64>(&path).is_err());
                prop_assert_eq!(fs::read(&path).unwrap(), bytes);
            }
        }
    }

    #[test]
    fn a_line_that_is_no_item_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("l.jsonl");
        fs::write(&path, "1\n\"x\"\n2\n").unwrap();
        let message = read::<u8>(&path).unwrap_err().to_string();
        assert!(
            message.contains("l.jsonl, line 2: ") && message.contains("delete this line"),
            "{message}"
        );
    }

    #[test]
    fn one_run_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("l.jsonl");
        let (mut lines, text) = Lines::open_alone(&path).unwrap();
        assert_eq!(text, "");
        let locked = Lines::open_alone(&path).unwrap_err();
        assert!(matches!(locked, Error::Locked(_)), "{locked}");
        lines.add(&1).unwrap();
        drop(lines);
        assert_eq!(Lines::open_alone(&path).unwrap().1, "1\n");
    }

    /// /dev/full says that the disk is full whenever it is written to.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error() {
        let full = fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let mut lines = Lines {
            path: "l.jsonl".into(),
            file: full,
            length: 0,
        };
        let message = lines.add(&1).unwrap_err().to_string();
        assert!(message.starts_with("cannot write l.jsonl: "), "{message}");
    }
}
