//! `SHA256SUMS`: the digests of what was fetched, as `sha256sum -c` reads them.

use crate::Error;
use headkv_files::{Digest, read, whole};
use std::{collections::BTreeMap, fmt, path::Path};

const FILE: &str = "SHA256SUMS";

/// What a file is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    Whole,
    Missing,
    /// There, with another digest than it had, or should have.
    Damaged,
    /// There, put by somebody else.
    Unknown,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kept::Whole => "is whole",
            Kept::Missing => "is not there",
            Kept::Damaged => "is not what was fetched or published (its digest differs)",
            Kept::Unknown => "is not from here, and its digest is not known",
        })
    }
}

/// Digests by name.
#[derive(Debug, Default)]
pub(super) struct Sums(BTreeMap<String, String>);

impl Sums {
    /// Those of a folder; none if there is no such file.
    ///
    /// # Errors
    /// A file that cannot be read, and a line that is none.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(FILE);
        let bytes = read::bytes_if_there(&path)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines().enumerate();
        let parsed = lines.map(|(at, line)| {
            parse(line).ok_or_else(|| Error::Line {
                path: path.clone(),
                line: at + 1,
                why: "is not a digest and a name; delete this file, and all is fetched anew".into(),
            })
        });
        parsed.collect::<Result<_, _>>().map(Self)
    }

    /// Writes them to their folder.
    ///
    /// # Errors
    /// [`Error::Files`].
    pub fn write(&self, folder: &Path) -> Result<(), Error> {
        let lines = self.0.iter();
        let text: String = lines
            .map(|(name, digest)| format!("{digest}  {name}\n"))
            .collect();
        Ok(whole::write(&folder.join(FILE), text)?)
    }

    /// Notes the digest of a file as it is now.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn note(&mut self, folder: &Path, name: &str) -> Result<(), headkv_files::Error> {
        let digest = digest(&folder.join(name))?;
        self.0.insert(name.into(), digest);
        Ok(())
    }

    /// Whether a file is what was fetched, and what is known beforehand of it; what others put there and is as known is noted.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn check(&mut self, folder: &Path, name: &str, known: Option<&str>) -> Result<Kept, Error> {
        let path = folder.join(name);
        if !path.exists() {
            return Ok(Kept::Missing);
        }
        let now = digest(&path)?;
        let as_known = known.is_none_or(|known| known == now);
        Ok(match self.0.get(name) {
            Some(noted) if *noted == now && as_known => Kept::Whole,
            Some(_) => Kept::Damaged,
            None if known.is_some() && as_known => {
                self.0.insert(name.into(), now);
                Kept::Whole
            }
            None => Kept::Unknown,
        })
    }

    /// The names that end so.
    pub fn names_with(&self, ending: &str) -> Vec<String> {
        let names = self.0.keys().filter(|name| name.ends_with(ending));
        names.cloned().collect()
    }
}

/// A file's digest.
///
/// # Errors
/// A file that cannot be read.
pub(super) fn digest(path: &Path) -> Result<String, headkv_files::Error> {
    let mut digest = Digest::default();
    let read = digest.read(read::open(path)?);
    read.map_err(headkv_files::Error::io("read", path))?;
    Ok(digest.hexadecimal())
}

/// Whether a text is a SHA-256 in small letters.
pub(super) fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Name and digest of a line; a star before the name is what `sha256sum -b` puts there.
fn parse(line: &str) -> Option<(String, String)> {
    let (digest, name) = line.split_once(' ')?;
    let name = name.strip_prefix([' ', '*'])?;
    (is_digest(digest) && !name.is_empty()).then(|| (name.into(), digest.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn digests_come_back_and_tell_what_changed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.json"), "abc").unwrap();
        let mut sums = Sums::default();
        let kept = sums.check(dir.path(), "a.json", None).unwrap();
        assert_eq!(kept, Kept::Unknown);
        sums.note(dir.path(), "a.json").unwrap();
        sums.write(dir.path()).unwrap();
        let text = fs::read_to_string(dir.path().join(FILE)).unwrap();
        // The standard's own example.
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(text, format!("{known}  a.json\n"));
        let mut sums = Sums::read(dir.path()).unwrap();
        let mut check = |known| sums.check(dir.path(), "a.json", known).unwrap();
        assert_eq!(check(None), Kept::Whole);
        assert_eq!(check(Some(known)), Kept::Whole);
        assert_eq!(check(Some("0")), Kept::Damaged);
        fs::write(dir.path().join("a.json"), "xyz").unwrap();
        assert_eq!(check(None), Kept::Damaged);
        fs::remove_file(dir.path().join("a.json")).unwrap();
        assert_eq!(check(None), Kept::Missing);
        // What somebody else put there is taken if it is what has to come.
        fs::write(dir.path().join("b.json"), "abc").unwrap();
        let kept = sums.check(dir.path(), "b.json", Some(known)).unwrap();
        assert_eq!(kept, Kept::Whole);
        assert_eq!(sums.names_with(".json"), ["a.json", "b.json"]);
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "what\n").unwrap();
        let message = Sums::read(dir.path()).unwrap_err().to_string();
        assert!(
            message.contains("SHA256SUMS, line 1: is not a digest"),
            "{message}"
        );
        assert!(parse(&format!("{} *a b", "0".repeat(64))).is_some());
        assert!(parse(&format!("{} a", "0".repeat(64))).is_none());
    }
}
