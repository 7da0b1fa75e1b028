//! Files of the program on disk: written once, whole, and checked by their digests each time they are used.

use headkv_files::{Digest, Error, whole};
use std::{fs, path::Path};

/// A file inside the program.
pub struct File {
    /// Its name in its folder.
    pub name: &'static str,
    /// Its SHA-256, computed when the program was built.
    pub digest: &'static str,
    /// What is in it.
    pub bytes: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/files.rs"));

/// Writes those that are missing or damaged into `folder`.
///
/// Programs that start together may all write: each file appears whole, and the same.
pub fn all(files: &[File], folder: &Path) -> Result<(), Error> {
    for file in files {
        let path = folder.join(file.name);
        if !is_whole(file, &path) {
            whole::write(&path, file.bytes)?;
        }
    }
    Ok(())
}

/// Reads the file rather than compare it with the program's bytes, which would come into memory for nothing.
fn is_whole(file: &File, path: &Path) -> bool {
    let length = fs::metadata(path).map(|found| found.is_file().then_some(found.len()));
    if !matches!(length, Ok(Some(length)) if length == file.bytes.len() as u64) {
        return false;
    }
    let mut digest = Digest::default();
    let read = fs::File::open(path).and_then(|open| digest.read(open));
    read.is_ok() && digest.hexadecimal() == file.digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_damaged_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("new/scores");
        all(SCORES, &folder).unwrap();
        let names = |folder: &Path| fs::read_dir(folder).unwrap().count();
        assert_eq!(names(&folder), SCORES.len());
        let [first, second, ..] = SCORES else {
            panic!("no score files")
        };
        // As long as before, and shorter.
        fs::write(folder.join(first.name), vec![b' '; first.bytes.len()]).unwrap();
        fs::write(folder.join(second.name), "{}").unwrap();
        all(SCORES, &folder).unwrap();
        for file in SCORES {
            assert_eq!(fs::read(folder.join(file.name)).unwrap(), file.bytes);
        }
        assert_eq!(names(&folder), SCORES.len());
    }

    #[test]
    fn the_model_is_complete() {
        let names: Vec<_> = MODEL.iter().map(|file| file.name).collect();
        for needed in ["config.json", "model.safetensors", "tokenizer.json"] {
            assert!(names.contains(&needed), "{names:?}");
        }
    }
}
