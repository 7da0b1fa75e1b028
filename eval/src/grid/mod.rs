//! What to run: models x benchmarks x methods x capacities x betas x score files, from flags or a TOML file.

mod benchmarks;
mod methods;
pub(crate) mod parameters;

pub use benchmarks::{Babilong, LongBench, Needle, Ruler, Turns};
pub use methods::Methods;
pub use parameters::{Granularity, Parameters, Pooling, Reduce};

use crate::{
    Error, Sample,
    datasets::{Target, babilong, longbench, needle, ruler, turns},
};
use clap::Args;
use headkv_haystack::Template;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

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
    /// Several questions over one text, if they are to be run.
    pub turns: Option<Turns>,
}

impl Grid {
    /// Reads a grid file; its relative paths start at the file's folder.
    ///
    /// # Errors
    /// A file that cannot be read, an unknown key or a value of the wrong type (the place is named).
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::parse(path, headkv_files::read::text(path)?)
    }

    /// The same for a text that lies in that file.
    ///
    /// # Errors
    /// As [`Grid::read`].
    pub fn parse(path: &Path, text: String) -> Result<Self, Error> {
        let mut grid: Self =
            toml::from_str(&text).map_err(|e| Error::file(path, one_line(&e.to_string())))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let models = grid.models.iter_mut();
        let models = models.filter(|model| !is_on_the_hub(model, folder));
        let paths = models.chain(&mut grid.methods.scores);
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
        let turns = grid.turns.iter_mut().flat_map(|turns| {
            let files = turns.state.iter_mut().chain(&mut turns.save_state);
            files.chain(&mut turns.haystack).chain(&mut turns.babilong)
        });
        for path in paths
            .chain(turns)
            .chain(needle)
            .chain(longbench)
            .chain(babilong)
            .chain(ruler)
        {
            *path = folder.join(&*path);
        }
        if let Some(needle) = &mut grid.needle {
            // A name of the project's own needles is no path.
            if !needle::NAMES.contains(&needle.needles.as_str()) {
                let file = folder.join(&needle.needles);
                needle.needles = match file.to_str() {
                    Some(file) => file.into(),
                    None => return Err(Error::file(path, "lies in a folder that is not UTF-8")),
                };
            }
        }
        grid.file = Some(text);
        Ok(grid)
    }

    /// Refuses a grid that has nothing to run.
    ///
    /// # Errors
    /// [`Error::Option`] says what is missing.
    pub fn check(&self) -> Result<(), Error> {
        let missing = |what: &str| Err(Error::Option(format!("nothing to run: {what}")));
        if self.models.is_empty() {
            return missing("no model is named; name one in `models`");
        }
        if self.methods.method.is_empty() {
            return missing("no method is named; leave the list out or fill it");
        }
        let benchmarks = [
            self.needle.is_some(),
            self.ruler.is_some(),
            self.longbench.is_some(),
            self.babilong.is_some(),
            self.turns.is_some(),
        ];
        if !benchmarks.contains(&true) {
            return missing(
                "no benchmark is named; add a table [needle], [ruler], [longbench], [babilong] or [turns]",
            );
        }
        Ok(())
    }

    /// Whether a prompt gets the model's own chat template.
    pub fn asks_for_chats(&self) -> bool {
        let template = |name: &str| name.parse::<Template>().is_ok_and(|t| t.is_chat());
        let protocol = |name: &str| name == "chat";
        self.needle.as_ref().is_some_and(|b| template(&b.template))
            || self.ruler.as_ref().is_some_and(|b| template(&b.template))
            || self.turns.as_ref().is_some_and(|b| template(&b.template))
            || self
                .longbench
                .as_ref()
                .is_some_and(|b| protocol(&b.protocol))
            || self
                .babilong
                .as_ref()
                .is_some_and(|b| protocol(&b.protocol))
    }

    /// Whether a question is to follow once its context is compressed.
    pub fn asks_apart(&self) -> bool {
        self.needle.as_ref().is_some_and(|b| b.question_apart)
            || self.ruler.as_ref().is_some_and(|b| b.question_apart)
            || self.babilong.as_ref().is_some_and(|b| b.question_apart)
            || self.turns.as_ref().is_some_and(|b| b.question_apart)
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
        if let Some(options) = &self.turns {
            samples.extend(turns::samples(&options.options()?, target)?);
        }
        if samples.is_empty() {
            return Err(Error::Option(
                "nothing to run: the benchmarks have no prompts; raise --samples, --draws, --documents or --limit, and fill empty lists"
                    .into(),
            ));
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
default_is_no_flags!(Methods, Needle, LongBench, Babilong, Ruler, Turns);

/// Whether a model is a name on the hub and no path: `org/name`, where the file's folder has no such folder.
fn is_on_the_hub(model: &Path, folder: &Path) -> bool {
    #[cfg(feature = "engine")]
    let could_be = crate::engine::is_hub_name(model);
    // Without an engine no model is loaded, whatever it is called.
    #[cfg(not(feature = "engine"))]
    let could_be = false;
    let first = model.components().next();
    could_be && first.is_some_and(|first| !folder.join(first).exists())
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

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
        assert_eq!(Needle::default().lengths, [2000]);
        assert_eq!(grid.models, [PathBuf::from("m")]);
        let settings = grid.settings().unwrap();
        assert!(
            settings.contains("seed = 0") && settings.contains("capacity = [64]"),
            "{settings}"
        );
        let again: Grid = toml::from_str(&settings).unwrap();
        assert_eq!(Grid { file: None, ..grid }, again);
    }

    #[cfg(feature = "engine")]
    #[test]
    fn names_on_the_hub_are_no_paths() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("grid.toml");
        fs::create_dir(dir.path().join("models")).unwrap();
        fs::write(
            &path,
            "models = ['org/name', 'models/tiny', '../a/b']\n[needle]",
        )
        .unwrap();
        let beside = |name: &str| dir.path().join(name);
        assert_eq!(
            Grid::read(&path).unwrap().models,
            ["org/name".into(), beside("models/tiny"), beside("../a/b")]
        );
    }

    #[test]
    fn the_examples_can_be_run() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let folders = ["examples", "docs/report"].map(|name| fs::read_dir(root.join(name)));
        let files = folders.into_iter().flatten().flatten().flatten();
        let files = files.map(|file| file.path());
        // The server's configuration is no grid.
        let grids: Vec<_> = files
            .filter(|file| file.extension().is_some_and(|kind| kind == "toml"))
            .filter(|file| !file.ends_with("serve.toml"))
            .collect();
        assert!(grids.len() > 2, "{grids:?}");
        for file in grids {
            Grid::read(&file).unwrap().check().unwrap();
        }
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
