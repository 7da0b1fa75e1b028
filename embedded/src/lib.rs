//! The embedded model and its head scores inside the programs, so that they work from any folder.
//!
//! The runtime reads models from disk, therefore the files are unpacked once, to `HEADKV_HOME` (see [`home`]), in a folder
//! that is named by their digest: another version of the programs has another folder, and nothing that a user put there
//! is ever overwritten.
#![deny(missing_docs)]

mod unpack;

use std::{
    env,
    path::{Path, PathBuf},
};

/// The folder, here and in [`home`], where head scores are looked for.
const SCORE_FOLDER: &str = "head_scores";

/// Errors of this crate; every message is one line that names the thing and the fix.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no place to unpack to.
    #[error("this user has no home folder; set HEADKV_HOME to a folder that can be written")]
    NoHome,
    /// The embedded files cannot be unpacked.
    #[error("{0}; set HEADKV_HOME to a folder that can be written")]
    Files(#[from] headkv_files::Error),
}

/// Where the programs keep files between runs: `$HEADKV_HOME`, else `$XDG_CACHE_HOME/headkv`, else `~/.cache/headkv`.
///
/// # Errors
/// [`Error::NoHome`].
pub fn home() -> Result<PathBuf, Error> {
    let given = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let folder = match (given("HEADKV_HOME"), given("XDG_CACHE_HOME")) {
        (Some(home), _) => PathBuf::from(home),
        (None, Some(cache)) => Path::new(&cache).join("headkv"),
        (None, None) => env::home_dir().ok_or(Error::NoHome)?.join(".cache/headkv"),
    };
    Ok(std::path::absolute(&folder).unwrap_or(folder))
}

/// The folder of the embedded model, `tiny`, unpacked and checked.
///
/// # Errors
/// A [`home`] that is not there or cannot be written.
pub fn model() -> Result<PathBuf, Error> {
    let folder = unpacked(&home()?).join("models/tiny");
    unpack::all(unpack::MODEL, &folder)?;
    Ok(folder)
}

/// Where head scores are looked for, in this order: `head_scores/` of the current folder, where `head-scoring` puts them, that
/// of [`home`], and the embedded ones.
///
/// A home that cannot be written has no embedded ones, and still serves what lies in it.
pub fn score_folders() -> Vec<PathBuf> {
    let mut folders = vec![PathBuf::from(SCORE_FOLDER)];
    if let Ok(home) = home() {
        folders.push(home.join(SCORE_FOLDER));
        let folder = unpacked(&home).join(SCORE_FOLDER);
        if unpack::all(unpack::SCORES, &folder).is_ok() {
            folders.push(folder);
        }
    }
    folders
}

/// The score file of that name in the first of the [`score_folders`] that has it; where none has, the place in the current
/// folder where `head-scoring` would put it.
///
/// # Errors
/// An embedded one that cannot be unpacked.
pub fn score_file(name: impl AsRef<Path>) -> Result<PathBuf, Error> {
    let name = name.as_ref();
    let own = Path::new(SCORE_FOLDER).join(name);
    if own.is_file() {
        return Ok(own);
    }
    let Some(file) = unpack::SCORES.iter().find(|file| name == file.name) else {
        let kept = home().map(|home| home.join(SCORE_FOLDER).join(name));
        return Ok(kept.ok().filter(|file| file.is_file()).unwrap_or(own));
    };
    let home = home()?;
    let kept = home.join(SCORE_FOLDER).join(name);
    if kept.is_file() {
        return Ok(kept);
    }
    let folder = unpacked(&home).join(SCORE_FOLDER);
    unpack::all(std::slice::from_ref(file), &folder)?;
    Ok(folder.join(name))
}

fn unpacked(home: &Path) -> PathBuf {
    home.join(format!("embedded-{}", unpack::VERSION))
}
