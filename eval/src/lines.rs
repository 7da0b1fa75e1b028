//! Files of JSON lines that survive a crash, and files that appear whole or not at all.

use crate::Error;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    path::Path,
};

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

/// Writes all items, one a line; the file appears whole or not at all.
///
/// # Errors
/// [`Error::Write`].
pub fn write_lines<T: Serialize>(path: &Path, items: &[T]) -> Result<(), Error> {
    let line = |item| serde_json::to_string(item).map(|line| line + "\n");
    let lines: Result<String, _> = items.iter().map(line).collect();
    let lines = lines.map_err(|e| Error::Write {
        path: path.into(),
        source: e.into(),
    })?;
    write_whole(path, &lines)
}

/// Adds one line.
///
/// # Errors
/// Whatever the system says.
pub fn append<T: Serialize>(file: &mut File, item: &T) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(item)?;
    line.push(b'\n');
    file.write_all(&line)
}

/// Opens a file for appending, cutting off what is behind its last line break.
///
/// # Errors
/// As [`read_lines`]; [`Error::Write`].
pub fn open_lines<T: DeserializeOwned>(path: &Path) -> Result<(File, Vec<T>), Error> {
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
///
/// # Errors
/// [`Error::Read`], [`Error::Line`].
pub fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<(Vec<T>, u64), Error> {
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
