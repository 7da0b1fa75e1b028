//! What to run: models x benchmarks x methods x capacities x betas x score files, from flags or a TOML file.

mod benchmarks;
mod methods;
mod parameters;

pub use benchmarks::{Babilong, LongBench, Needle, Ruler};
pub use methods::Methods;
pub use parameters::Parameters;

use crate::{
    Error, Sample,
    datasets::{Target, babilong, longbench, needle, ruler},
};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A file for `headkv-eval run`; keys that are left out have the defaults of the flags.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Grid {
    /// The text of the file that it was read from.
    #[serde(skip)]
    pub file: Option<String>,
    /// Model folders or GGUF files.
    pub models: Vec<PathBuf>,
    /// Methods and their parameters.
    #[serde(default)]
    pub methods: Methods,
    /// The needle test, if it is to be run.
    pub needle: Option<Needle>,
    /// LongBench, if it is to be run.
    pub longbench: Option<LongBench>,
    /// babilong, if it is to be run.
    pub babilong: Option<Babilong>,
    /// Needles after RULER, if they are to be run.
    pub ruler: Option<Ruler>,
}

impl Grid {
    /// Reads a grid file; its relative paths start at the file's folder.
    ///
    /// # Errors
    /// A file that cannot be read, an unknown key or a value of the wrong type (the place is named).
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(Error::read(path))?;
        let mut grid: Self =
            toml::from_str(&text).map_err(|e| Error::file(path, one_line(&e.to_string())))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let paths = grid.models.iter_mut().chain(&mut grid.methods.scores);
        let needle = grid
            .needle
            .iter_mut()
            .filter_map(|needle| needle.haystack.as_mut());
        let longbench = grid
            .longbench
            .iter_mut()
            .filter_map(|longbench| longbench.data.as_mut());
        let babilong = grid
            .babilong
            .iter_mut()
            .filter_map(|babilong| babilong.data.as_mut());
        let ruler = grid
            .ruler
            .iter_mut()
            .filter_map(|ruler| ruler.haystack.as_mut());
        for path in paths
            .chain(needle)
            .chain(longbench)
            .chain(babilong)
            .chain(ruler)
        {
            *path = folder.join(&*path);
        }
        grid.file = Some(text);
        Ok(grid)
    }

    /// The grid as a file would say it, with everything that it leaves to the defaults.
    ///
    /// # Errors
    /// [`Error::Option`] for a path that is no text.
    pub fn settings(&self) -> Result<String, Error> {
        toml::to_string(self).map_err(|e| Error::Option(one_line(&e.to_string())))
    }

    /// The samples of all benchmarks for one model.
    ///
    /// # Errors
    /// Whatever is wrong with a benchmark's options or data.
    pub fn samples(&self, target: &Target) -> Result<Vec<Sample>, Error> {
        let mut samples = Vec::new();
        if let Some(options) = &self.needle {
            samples.extend(needle::samples(&options.options()?, target)?);
        }
        if let Some(options) = &self.ruler {
            samples.extend(ruler::samples(&options.options()?, target)?);
        }
        if let Some(options) = &self.longbench {
            samples.extend(longbench::samples(&options.options()?, target)?);
        }
        if let Some(options) = &self.babilong {
            samples.extend(babilong::samples(&options.options()?, target)?);
        }
        Ok(samples)
    }
}

/// The values that the flags have when none is given.
pub(crate) fn defaults<T: Args>() -> T {
    let matches = T::augment_args(clap::Command::new("defaults").no_binary_name(true))
        .get_matches_from([""; 0]);
    T::from_arg_matches(&matches).unwrap_or_else(|e| e.exit())
}

macro_rules! default_is_no_flags {
    ($($options:ty),*) => {
        $(impl Default for $options {
            fn default() -> Self {
                defaults()
            }
        })*
    };
}
default_is_no_flags!(Methods, Needle, LongBench, Babilong, Ruler);

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Grid, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("grid.toml");
        fs::write(&path, text).unwrap();
        let mut grid = Grid::read(&path)?;
        for model in &mut grid.models {
            *model = model.strip_prefix(dir.path()).unwrap().into();
        }
        Ok(grid)
    }

    #[test]
    fn files_and_flags_have_the_same_defaults() {
        let grid = read("models = ['m']\n[methods]\ncapacity = [64]\n[needle]\n").unwrap();
        assert_eq!(
            grid.methods,
            Methods {
                capacity: vec![64],
                ..Methods::default()
            }
        );
        assert_eq!(grid.needle, Some(Needle::default()));
        assert_eq!(grid.ruler, None);
        assert_eq!(Needle::default().lengths, [1000, 2000, 4000]);
        assert_eq!(grid.models, [PathBuf::from("m")]);
        let settings = grid.settings().unwrap();
        assert!(
            settings.contains("seed = 0") && settings.contains("capacity = [64]"),
            "{settings}"
        );
        let again: Grid = toml::from_str(&settings).unwrap();
        assert_eq!(Grid { file: None, ..grid }, again);
    }

    #[test]
    fn mistakes_are_named_on_one_line() {
        for (text, expected) in [
            ("models = []\n[needles]", "unknown field `needles`"),
            ("models = 3", "invalid type: integer `3`"),
            ("[needle]", "missing field `models`"),
            (
                "models = []\n[needle]\ndepth = [1]",
                "unknown field `depth`",
            ),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(
                message.contains("grid.toml")
                    && message.contains(expected)
                    && !message.contains('\n'),
                "{message}"
            );
        }
    }
}
