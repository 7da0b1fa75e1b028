//! From a grid to the plugin's configurations.

use super::backend;
use crate::{
    Error, Variant,
    grid::{Methods, Parameters},
    suggest,
};
use headkv_plugin::{Compression, methods, scores::Kind};
use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
};

/// The most configurations of a model: planning more takes minutes, and nobody waits for their answers.
const MOST_VARIANTS: usize = 20_000;

/// Every combination of methods and the parameters that matter to them.
///
/// # Errors
/// An unknown method (the nearest names are offered), values out of range, or a score file that cannot be read.
pub fn variants(grid: &Methods, model: &Path) -> Result<Vec<Variant>, Error> {
    let lists = [
        grid.method.len(),
        grid.capacity.len(),
        grid.ranking.len().max(1),
        grid.beta.len().max(1),
        grid.scores.len().max(grid.head_choice.len()).max(1),
    ];
    let planned = lists.iter().fold(1usize, |all, n| all.saturating_mul(*n));
    if planned > MOST_VARIANTS {
        return Err(Error::Option(format!(
            "{planned} configurations (methods x capacities x rankings x betas x score files) are more than {MOST_VARIANTS}; name fewer"
        )));
    }
    let mut files_read: HashMap<PathBuf, String> = HashMap::new();
    let mut variants = Vec::new();
    for name in &grid.method {
        let entries = methods::all();
        let known = entries.iter().map(|entry| entry.name.as_str());
        let entry = methods::find(name)
            .map_err(|_| Error::Option(suggest::unknown("method", name, known)))?;
        if entry.keeps_all {
            variants.push(Variant::new(&entry.name));
            continue;
        }
        let settings = rankings(grid);
        let each = grid.capacity.iter().flat_map(|capacity| {
            let settings = settings.iter();
            settings.map(move |settings| (*capacity, settings.clone()))
        });
        for (capacity, settings) in each {
            let plain = Variant {
                settings,
                ..Variant::new(&entry.name).capacity(capacity)
            };
            let config = compression(&plain)?;
            if !entry.needs_scores {
                variants.push(plain);
                continue;
            }
            let mut files = grid.scores.clone();
            if files.is_empty() {
                let asked = grid.head_choice.iter().map(|choice| head_choice(choice));
                let mut kinds = asked.collect::<Result<Vec<_>, _>>()?;
                if kinds.is_empty() {
                    kinds.push(entry.score_kind(name));
                }
                for kind in kinds {
                    let default = Compression {
                        head_choice: Some(kind),
                        ..config.clone()
                    };
                    let name = default.default_scores(Path::new(""), model);
                    files.push(headkv_embedded::score_file(name).map_err(backend)?);
                }
            }
            for file in files {
                let digest = match files_read.get(&file) {
                    Some(digest) => digest.clone(),
                    None => {
                        let digest = headkv_files::sha256(&[&read_scores(&file)?]);
                        files_read.insert(file.clone(), digest.clone());
                        digest
                    }
                };
                let own = [entry.defaults.beta];
                let betas = if grid.beta.is_empty() {
                    &own[..]
                } else {
                    &grid.beta
                };
                for &beta in betas {
                    let variant = Variant {
                        beta: Some(beta),
                        scores: Some(file.clone()),
                        scores_digest: Some(digest.clone()),
                        ..plain.clone()
                    };
                    compression(&variant)?;
                    variants.push(variant);
                }
            }
        }
    }
    let mut unique = HashSet::new();
    variants
        .retain(|variant: &Variant| unique.insert((variant.identity(), variant.scores.clone())));
    Ok(variants)
}

/// The parameters with each of the rankings.
fn rankings(grid: &Methods) -> Vec<Parameters> {
    if grid.ranking.is_empty() {
        return vec![grid.parameters.clone()];
    }
    let with = |name: &String| Parameters {
        ranking: Some(name.clone()),
        ..grid.parameters.clone()
    };
    grid.ranking.iter().map(with).collect()
}

/// What the rows of a server are labelled with: only its owner knows how it compresses, and says it with the same flags.
///
/// A flag that is left at its default says nothing, except the beta of a method that has one. The method may be any name.
///
/// # Errors
/// Several values of a flag, or a score file that cannot be read.
pub fn label(grid: &Methods) -> Result<Variant, Error> {
    let default = Methods::default();
    let Some(name) = one("method", &grid.method, &default.method)? else {
        return Ok(Variant::new("endpoint"));
    };
    let entry = methods::find(&name).ok();
    let method = entry
        .as_ref()
        .map_or(name.as_str(), |entry| entry.name.as_str());
    if entry.as_ref().is_some_and(|entry| entry.keeps_all) {
        return Ok(Variant::new(method));
    }
    let by_head = entry.as_ref().is_some_and(|entry| entry.needs_scores);
    let own = entry.as_ref().map(|entry| entry.defaults.beta);
    let beta = one("beta", &grid.beta, &[])?.or(own).filter(|_| by_head);
    let scores = one("scores", &grid.scores, &[])?;
    let ranking = one("ranking", &grid.ranking, &[])?;
    let bytes = scores.as_deref().map(read_scores).transpose()?;
    Ok(Variant {
        capacity: one("capacity", &grid.capacity, &default.capacity)?,
        beta,
        scores_digest: bytes.map(|bytes| headkv_files::sha256(&[&bytes])),
        scores,
        settings: Parameters {
            ranking: ranking.or(grid.parameters.ranking.clone()),
            ..grid.parameters.clone()
        },
        ..Variant::new(method)
    })
}

/// The only value of a flag; none if it is left at its default.
fn one<T: Clone + PartialEq>(flag: &str, values: &[T], default: &[T]) -> Result<Option<T>, Error> {
    match values {
        [] => Ok(None),
        values if values == default => Ok(None),
        [value] => Ok(Some(value.clone())),
        several => Err(Error::Option(format!(
            "a server has one configuration, but --{flag} has {} values; name its own",
            several.len()
        ))),
    }
}

fn read_scores(file: &Path) -> Result<Vec<u8>, Error> {
    let read = headkv_files::read::regular(file).and_then(|_| fs::read(file));
    read.map_err(|why| {
        Error::file(
            file,
            format!(
                "cannot read head scores ({why}); name a file with --scores, or make one: \
                 head-scoring score --model MODEL --kind retrieval"
            ),
        )
    })
}

fn head_choice(name: &str) -> Result<Kind, Error> {
    let known = Kind::ALL.map(Kind::name);
    name.parse()
        .map_err(|_| Error::Option(suggest::unknown("head choice", name, known)))
}

/// The plugin's configuration for a variant.
pub(super) fn compression(variant: &Variant) -> Result<Compression, Error> {
    // The parameters have the plugin's names, and go over as what they are.
    let wrong = |e: String| Error::Option(e);
    let given = toml::Table::try_from(&variant.settings).map_err(|e| wrong(e.to_string()))?;
    let base: Compression = given
        .try_into()
        .map_err(|e: toml::de::Error| wrong(e.message().into()))?;
    let capacity = variant.capacity.unwrap_or(base.capacity);
    let sinks = match variant.settings.sinks {
        Some(sinks) => sinks,
        // Only StreamingLLM has them; their default is no reason to refuse a small capacity of other methods.
        None if variant.method != "streaming" => {
            base.sinks.min(capacity.saturating_sub(base.window))
        }
        None => base.sinks,
    };
    // Checked once it is complete: a window of 128 does not fit the default capacity, but may fit the variant's.
    let config = Compression {
        method: variant.method.clone(),
        capacity,
        beta: variant.beta.or(base.beta),
        scores: variant.scores.as_ref().map(Into::into),
        sinks,
        ..base
    };
    config.check().map_err(backend)?;
    Ok(config)
}
