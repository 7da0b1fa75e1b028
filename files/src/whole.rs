//! Files that appear whole or not at all.

use crate::{Error, read};
use serde::Serialize;
use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};
use tempfile::NamedTempFile;

/// As many links may lead to a file as Linux follows.
const LINKS: usize = 40;

/// Writes a file whole or not at all; missing folders are made, links are followed, and what is no regular file is refused.
///
/// # Errors
/// [`Error::Io`].
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<(), Error> {
    write_with(path, |file| {
        let mut file = fs::OpenOptions::new().write(true).open(file)?;
        file.write_all(bytes.as_ref())
    })
}

/// As [`write()`], for what is too large to be made in memory first: `fill` gets a path to write to.
///
/// # Errors
/// As [`write()`], and those of `fill`.
pub fn write_with(path: &Path, fill: impl Fn(&Path) -> io::Result<()>) -> Result<(), Error> {
    let written = || {
        let (target, before) = destination(path)?;
        let folder = folder(&target);
        fs::create_dir_all(folder)?;
        let file = new_file(folder)?;
        fill(file.path())?;
        if let Some(before) = before {
            file.as_file().set_permissions(before.permissions())?;
        }
        file.as_file().sync_all()?;
        file.persist(&target).map_err(|e| e.error)?;
        // The new name is on the disk only once its folder is. Not every file system knows how to do that.
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
        Ok(())
    };
    written().map_err(Error::io("write", path))
}

/// Writes all items, one a line, as [`write()`] does.
///
/// # Errors
/// [`Error::Io`].
pub fn write_lines<T: Serialize>(path: &Path, items: &[T]) -> Result<(), Error> {
    let line = |item| serde_json::to_string(item).map(|line| line + "\n");
    let lines: Result<String, _> = items.iter().map(line).collect();
    write(path, lines.map_err(|e| Error::io("write", path)(e.into()))?)
}

/// The folder that a file lies in.
pub(crate) fn folder(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Where a path leads, be there a file or not, and what is there.
fn destination(path: &Path) -> io::Result<(PathBuf, Option<fs::Metadata>)> {
    let mut target = path.to_path_buf();
    for _ in 0..LINKS {
        match fs::symlink_metadata(&target) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok((target, None)),
            Err(e) => return Err(e),
            // A link that is not absolute begins at its own folder.
            Ok(found) if found.is_symlink() => {
                target = folder(&target).join(fs::read_link(&target)?);
            }
            Ok(_) => {
                let found = read::regular(&target)?;
                return Ok((target, Some(found)));
            }
        }
    }
    Err(io::Error::other("too many links lead away from it"))
}

/// A temporary file with a plain new file's permissions, where there are such: its own would be its owner's only.
fn new_file(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_with_its_folders_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/lines");
        write(&path, "old").unwrap();
        write_lines(&path, &[1, 22]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n22\n");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn an_unwritable_place_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        for path in [file.join("s.json"), dir.path().into()] {
            let message = write(&path, "x").unwrap_err().to_string();
            assert!(message.starts_with("cannot write "), "{message}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn others_may_read_what_is_written() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let (path, usual) = (dir.path().join("s"), dir.path().join("usual"));
        write(&path, "").unwrap();
        // The user's mask can take permissions away from both files, but not from one.
        fs::write(&usual, "").unwrap();
        assert_eq!(mode(&path), mode(&usual));
        // What was private stays private.
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        write(&path, "secret").unwrap();
        assert_eq!(mode(&path), 0o600);
    }

    #[cfg(unix)]
    #[test]
    fn links_stay_links() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        symlink("b", at("a")).unwrap();
        symlink("new/c", at("b")).unwrap();
        for text in ["first", "second"] {
            write(&at("a"), text).unwrap();
            assert!(fs::symlink_metadata(at("a")).unwrap().is_symlink());
            assert_eq!(fs::read_to_string(at("new/c")).unwrap(), text);
        }
        symlink("loop", at("loop")).unwrap();
        let message = write(&at("loop"), "x").unwrap_err().to_string();
        assert!(message.contains("too many links"), "{message}");
    }

    #[cfg(unix)]
    #[test]
    fn devices_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("null");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        for path in [Path::new("/dev/null"), &link] {
            let message = write(path, "x").unwrap_err().to_string();
            assert!(
                message.ends_with("it is a pipe or a device, not a file"),
                "{message}"
            );
        }
    }
}
