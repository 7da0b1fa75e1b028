//! The official data of the benchmarks, fetched from where it is published into the folders that the readers read.
//!
//! ```text
//! wanted (which files) -> download (one file, resumed) -> records, prompts, unpack (the readers' form) -> SHA256SUMS
//! ```
//!
//! A file whose digest is still the one in `SHA256SUMS` is not asked for again. What came of a file that was cut stays
//! beside its place as `NAME.part`, and the next call goes on from there.

mod bar;
mod client;
mod download;
mod location;
mod prompts;
mod records;
mod sources;
mod sums;
mod unpack;
mod wanted;

use crate::Error;
use client::Client;
use headkv_files::{Lock, terminal, whole};
use sources::Origin;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};
use sums::{Kept, Sums};
use wanted::{Form, Wanted};

pub use sources::{GITHUB_VARIABLE, Sources};
pub use wanted::{Options, What};

/// What became of a call.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The files that are there and whole, in the order in which they were wanted.
    pub paths: Vec<PathBuf>,
    /// How many of them came with this call.
    pub fetched: usize,
    /// Which are not there and why, a line each.
    pub failed: Vec<String>,
    /// Whether it was interrupted.
    pub stopped: bool,
}

impl Outcome {
    /// Whether everything is there.
    pub fn complete(&self) -> bool {
        self.failed.is_empty() && !self.stopped
    }
}

/// Why a file did not come.
enum Trouble {
    /// The call was interrupted.
    Stopped,
    /// What is wrong, and whether the others would fail the same way.
    Failed { why: String, dead: bool },
    /// This machine's disk.
    Disk(Error),
}

impl Trouble {
    fn failed(why: impl Into<String>) -> Self {
        Self::Failed {
            why: why.into(),
            dead: false,
        }
    }
}

impl From<headkv_files::Error> for Trouble {
    fn from(error: headkv_files::Error) -> Self {
        Self::Disk(error.into())
    }
}

/// Fetches what is missing or damaged, until `stop` is set.
///
/// # Errors
/// An unknown task or length, a folder that cannot be written or that another call writes to, and files that are
/// missing while nothing may be asked for over the network. A file that cannot be had is no error but in the outcome.
pub fn run(options: &Options, sources: &Sources, stop: &AtomicBool) -> Result<Outcome, Error> {
    let wanted = wanted::list(options)?;
    let folder = options.to.join(options.what.folder());
    let _alone = Lock::take(&folder.join(".lock")).map_err(|error| match error {
        headkv_files::Error::Locked(_) => Error::file(
            &folder,
            "another call fetches to this folder; wait for it, or name another with --to",
        ),
        error => error.into(),
    })?;
    let mut call = Call {
        sums: Sums::read(&folder)?,
        folder,
        sources,
        client: Client::new(sources, stop),
        outcome: Outcome::default(),
        dead: Vec::new(),
    };
    for file in &wanted {
        call.outcome.stopped |= stop.load(Relaxed);
        if call.outcome.stopped {
            break;
        }
        call.one(file)?;
    }
    Ok(call.outcome)
}

/// One call, while it runs.
struct Call<'a> {
    folder: PathBuf,
    sources: &'a Sources,
    client: Client<'a>,
    sums: Sums,
    outcome: Outcome,
    /// Where nobody answers.
    dead: Vec<Origin>,
}

impl Call<'_> {
    /// Has one file, or notes why not.
    fn one(&mut self, file: &Wanted) -> Result<(), Error> {
        let place = self.folder.join(&file.name);
        let (kept, which) = self.kept(file)?;
        if kept == Kept::Whole {
            let names = self.names(file);
            let paths = names.iter().map(|name| self.folder.join(name));
            self.outcome.paths.extend(paths);
            return self.sums.write(&self.folder);
        }
        if self.sources.offline {
            return Err(Error::file(
                &self.folder.join(which),
                format!("{kept}, and HF_HUB_OFFLINE is set, so that it is not fetched; unset it"),
            ));
        }
        if self.dead.contains(&file.origin) {
            let failed = format!(
                "{}: not asked for, as nobody answers there",
                place.display()
            );
            self.outcome.failed.push(failed);
            return Ok(());
        }
        if kept != Kept::Missing {
            let which = self.folder.join(which);
            terminal::say(&format!("{} {kept}; fetching it anew", which.display()));
        }
        match self.fetch(file) {
            Ok(names) => {
                // After each, so that a call that ends early has what it got.
                self.sums.write(&self.folder)?;
                self.outcome.fetched += names.len();
                let paths = names.iter().map(|name| self.folder.join(name));
                self.outcome.paths.extend(paths);
            }
            Err(Trouble::Stopped) => self.outcome.stopped = true,
            Err(Trouble::Failed { why, dead }) => {
                if dead {
                    self.dead.push(file.origin);
                }
                let why = terminal::one_line(&why);
                let failed = format!("{}: {why}", place.display());
                self.outcome.failed.push(failed);
            }
            Err(Trouble::Disk(error)) => return Err(error),
        }
        Ok(())
    }

    /// The names of what a wanted file is or was unpacked to, as far as they are known.
    fn names(&self, file: &Wanted) -> Vec<String> {
        match file.form {
            Form::Archive => self.sums.names_with(unpack::ENDING),
            _ => vec![file.name.clone()],
        }
    }

    /// Whether a wanted file, or all that it was unpacked to, is what it was; the name of the first that is not.
    fn kept(&mut self, file: &Wanted) -> Result<(Kept, String), Error> {
        let names = self.names(file);
        let known = match file.form {
            Form::AsItIs => self.sources.digest(&file.path),
            _ => None,
        };
        let unknown_yet = names.is_empty();
        for name in names {
            match self.sums.check(&self.folder, &name, known)? {
                Kept::Whole => {}
                other => return Ok((other, name)),
            }
        }
        let kept = if unknown_yet {
            Kept::Missing
        } else {
            Kept::Whole
        };
        Ok((kept, file.name.clone()))
    }

    /// Fetches a file, gives it the reader's form, and notes its digests; the names of what it became.
    fn fetch(&mut self, file: &Wanted) -> Result<Vec<String>, Trouble> {
        let place = self.folder.join(&file.name);
        let came = beside(&place, ".came");
        if !came.is_file() {
            let part = beside(&place, ".part");
            self.client.download(file, &part)?;
            fs::rename(&part, &came).map_err(headkv_files::Error::io("write", &came))?;
        }
        let shaped = self.shape(file, &came, &place);
        if !matches!(shaped, Err(Trouble::Stopped)) {
            // What cannot be read is not worth keeping, and what was read stands in its place.
            fs::remove_file(&came).map_err(headkv_files::Error::io("remove", &came))?;
        }
        shaped
    }

    /// Gives what came the form that its reader reads.
    fn shape(&mut self, file: &Wanted, came: &Path, place: &Path) -> Result<Vec<String>, Trouble> {
        match file.form {
            Form::AsItIs => {
                whole::write_with(place, |new| fs::copy(came, new).map(|_| ()))?;
            }
            Form::Records => {
                let wrong = records::check(came).err();
                if let Some(why) = wrong {
                    return Err(Trouble::failed(why));
                }
                whole::write_with(place, |new| records::to_lines(came, new))?;
            }
            Form::Prompts => {
                let text = headkv_files::read::text(came)?;
                let prompts = prompts::read(&text).map_err(|why| {
                    Trouble::failed(format!(
                        "{why} in {}; write this file by hand: for each task, its instruction, examples and post_prompt, \
                         as DEFAULT_PROMPTS has them there",
                        self.client.url(file)
                    ))
                })?;
                whole::write(place, prompts)?;
            }
            Form::Archive => return self.unpack(came),
        }
        self.sums.note(&self.folder, &file.name)?;
        Ok(vec![file.name.clone()])
    }

    fn unpack(&mut self, archive: &Path) -> Result<Vec<String>, Trouble> {
        let entries = unpack::entries(archive).map_err(Trouble::failed)?;
        for entry in &entries {
            if self.client.stopped() {
                return Err(Trouble::Stopped);
            }
            let place = self.folder.join(&entry.name);
            whole::write_with(&place, |new| unpack::one(archive, entry, new))
                .map_err(|error| Trouble::failed(error.to_string()))?;
        }
        let names: Vec<String> = entries.into_iter().map(|entry| entry.name).collect();
        for name in &names {
            self.sums.note(&self.folder, name)?;
        }
        Ok(names)
    }
}

/// A path with that behind its name.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(ending);
    name.into()
}
