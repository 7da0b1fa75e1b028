//! One writer at a time.

use crate::{Error, read, whole};
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    path::Path,
};

/// A file that no other run holds as long as this lives; a crash lets go of it too.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "closing the file lets go of it")] File);

impl Lock {
    /// Makes the file, and takes it.
    ///
    /// # Errors
    /// [`Error::Locked`] while another run holds it; [`Error::Io`].
    pub fn take(path: &Path) -> Result<Self, Error> {
        let file = open(path)?;
        hold(&file, path)?;
        Ok(Self(file))
    }
}

/// Opens a file for reading and appending, making it and its folders if they are not there.
pub(crate) fn open(path: &Path) -> Result<File, Error> {
    let made = || {
        fs::create_dir_all(whole::folder(path))?;
        if fs::exists(path)? {
            read::regular(path)?;
        }
        OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
    };
    made().map_err(Error::io("write", path))
}

/// Locks an open file until it is closed.
pub(crate) fn hold(file: &File, path: &Path) -> Result<(), Error> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => Error::Locked(path.into()),
        TryLockError::Error(why) => Error::io("lock", path)(why),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_runs_do_not_hold_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/.lock");
        let first = Lock::take(&path).unwrap();
        let message = Lock::take(&path).unwrap_err().to_string();
        assert!(
            message.contains(".lock is being written by another run; wait for it"),
            "{message}"
        );
        drop(first);
        Lock::take(&path).unwrap();
    }
}
