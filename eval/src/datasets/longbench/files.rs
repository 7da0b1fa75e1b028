//! The official files: which of them are read, and their config.

use super::{Options, names};
use crate::Error;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

/// LongBench or LongBench-E, which holds other samples of some of its data sets, spread evenly over lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edition {
    LongBench,
    E,
}

impl Edition {
    /// The benchmark's name in rows: scores of the two are never averaged.
    pub fn benchmark(self) -> &'static str {
        match self {
            Edition::LongBench => "longbench",
            Edition::E => "longbench-e",
        }
    }

    fn file(self, dataset: &str) -> String {
        match self {
            Edition::LongBench => format!("{dataset}.jsonl"),
            Edition::E => format!("{dataset}_e.jsonl"),
        }
    }
}

/// The files of one edition.
pub struct Files {
    pub edition: Edition,
    /// The folder they lie in.
    pub folder: PathBuf,
    /// Data sets and their files, in the order of [`names::DATASETS`].
    pub files: Vec<(String, PathBuf)>,
}

/// The files that the options ask for: LongBench-E's if asked for or if there are no others.
///
/// # Errors
/// An unknown data set, or one without a file.
pub fn find(options: &Options) -> Result<Files, Error> {
    for name in &options.datasets {
        names::metric(name)?;
    }
    if options.data.is_file() {
        return single(options);
    }
    let editions: &[Edition] = if options.longbench_e {
        &[Edition::E]
    } else {
        &[Edition::LongBench, Edition::E]
    };
    let wanted =
        |name: &str| options.datasets.is_empty() || options.datasets.iter().any(|d| d == name);
    for &edition in editions {
        let mut files = Vec::new();
        for (name, _) in names::DATASETS.iter().filter(|(name, _)| wanted(name)) {
            let file = options.data.join(edition.file(name));
            if file.is_file() {
                files.push((name.to_string(), file));
            }
        }
        if files.is_empty() {
            continue;
        }
        let there = |name: &str| files.iter().any(|(found, _)| found == name);
        if let Some(name) = options.datasets.iter().find(|name| !there(name)) {
            return Err(lacks(options, &edition.file(name)));
        }
        return Ok(Files {
            edition,
            folder: options.data.clone(),
            files,
        });
    }
    let name = options.datasets.first().map_or("{dataset}", String::as_str);
    Err(lacks(options, &editions[0].file(name)))
}

/// The one file that `data` names.
fn single(options: &Options) -> Result<Files, Error> {
    let file = &options.data;
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let (edition, name) = match stem.strip_suffix("_e") {
        Some(name) => (Edition::E, name),
        None => (Edition::LongBench, &*stem),
    };
    names::metric(name)?;
    if let Some(other) = options.datasets.iter().find(|other| *other != name) {
        return Err(Error::file(
            file,
            format!("is not `{other}`; leave out --datasets or name the folder with --data"),
        ));
    }
    if options.longbench_e && edition != Edition::E {
        return Err(Error::file(
            file,
            format!(
                "is not of LongBench-E; name {} with --data or leave out --longbench-e",
                Edition::E.file(name)
            ),
        ));
    }
    Ok(Files {
        edition,
        folder: file.parent().unwrap_or(Path::new(".")).into(),
        files: vec![(name.into(), file.clone())],
    })
}

fn lacks(options: &Options, file: &str) -> Error {
    Error::file(
        &options.data,
        format!(
            "holds no {file} of LongBench; get the official ones with `headkv-eval fetch longbench`, or check --data and \
             --datasets"
        ),
    )
}

/// One of LongBench's config files, beside the data or in `config/`.
///
/// # Errors
/// A file that is not there or malformed.
pub fn config<T: serde::de::DeserializeOwned>(
    folder: &Path,
    name: &str,
) -> Result<HashMap<String, T>, Error> {
    let places = [folder.join(name), folder.join("config").join(name)];
    let Some(path) = places.iter().find(|path| path.is_file()) else {
        return Err(Error::file(
            folder,
            format!(
                "has no {name}, neither beside the data nor in config/; get it with `headkv-eval fetch longbench`"
            ),
        ));
    };
    let text = headkv_files::read::text(path)?;
    serde_json::from_str(&text).map_err(|e| Error::file(path, format!("malformed: {e}")))
}
