//! Reading regular files only: a pipe that nobody writes to waits for ever, and a device never ends.

use crate::Error;
use std::{
    fs::{self, File, Metadata},
    io,
    path::Path,
};

/// What a path leads to, if that is a regular file.
///
/// # Errors
/// Whatever the system says, and for everything else what it is.
pub fn regular(path: &Path) -> io::Result<Metadata> {
    let found = fs::metadata(path)?;
    if found.is_file() {
        Ok(found)
    } else if found.is_dir() {
        Err(io::Error::other("it is a folder, not a file"))
    } else {
        Err(io::Error::other("it is a pipe or a device, not a file"))
    }
}

/// Opens a regular file.
///
/// # Errors
/// [`Error::Io`].
pub fn open(path: &Path) -> Result<File, Error> {
    // Asked before it is opened, because opening a pipe waits.
    let opened = regular(path).and_then(|_| File::open(path));
    opened.map_err(Error::io("read", path))
}

/// A regular file's bytes.
///
/// # Errors
/// [`Error::Io`].
pub fn bytes(path: &Path) -> Result<Vec<u8>, Error> {
    let read = regular(path).and_then(|_| fs::read(path));
    read.map_err(Error::io("read", path))
}

/// A regular file's text.
///
/// # Errors
/// [`Error::Io`], also for what is not UTF-8.
pub fn text(path: &Path) -> Result<String, Error> {
    let read = regular(path).and_then(|_| fs::read_to_string(path));
    read.map_err(Error::io("read", path))
}

/// A regular file's bytes; `None` if there is no file.
///
/// # Errors
/// [`Error::Io`].
pub fn bytes_if_there(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match bytes(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(Error::Io { why, .. }) if why.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let message = text(dir.path()).unwrap_err().to_string();
        assert!(message.ends_with("it is a folder, not a file"), "{message}");
        let missing = dir.path().join("none");
        assert!(bytes_if_there(&missing).unwrap().is_none());
        assert!(
            text(&missing)
                .unwrap_err()
                .to_string()
                .starts_with("cannot read ")
        );
    }

    #[cfg(unix)]
    #[test]
    fn pipes_are_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        for message in [
            open(&pipe).unwrap_err().to_string(),
            text(&pipe).unwrap_err().to_string(),
            bytes_if_there(&pipe).unwrap_err().to_string(),
            crate::whole::write(&pipe, "x").unwrap_err().to_string(),
            crate::Lines::open::<u8>(&pipe).unwrap_err().to_string(),
            crate::Lock::take(&pipe).unwrap_err().to_string(),
        ] {
            assert!(
                message.ends_with("it is a pipe or a device, not a file"),
                "{message}"
            );
        }
    }
}
