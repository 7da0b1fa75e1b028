//! What somebody else needs to get the same rows.

use super::setup::groups;
use crate::{row::short, store::Results};
use headkv_files::sha256;
use serde::Serialize;
use std::collections::BTreeSet;

/// Digests of everything that the rows depend on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Provenance {
    /// Name, digest, where it ran, and the version of the results.
    pub models: BTreeSet<[String; 4]>,
    /// File and digest.
    pub scores: BTreeSet<[String; 2]>,
    /// Table, number of prompts, and a digest over them: equal data, settings and seeds give an equal one.
    pub prompts: Vec<(String, usize, String)>,
}

/// Collects them from the rows.
pub fn provenance(results: &Results) -> Provenance {
    let models = results.rows.iter().map(|row| {
        let parts = [&row.model, &row.model_digest, &row.backend, &row.version];
        parts.map(String::clone)
    });
    let scores = results.rows.iter().filter_map(|row| {
        let digest = row.variant.scores_digest.clone()?;
        Some([row.variant.scores_name()?, digest])
    });
    let prompts = groups(&results.rows).into_iter().map(|group| {
        let prompts: BTreeSet<&[u8]> = group.rows.iter().map(|row| row.prompt.as_bytes()).collect();
        let all: Vec<&[u8]> = prompts.iter().copied().collect();
        (group.title, all.len(), short(&sha256(&all)))
    });
    Provenance {
        models: models.collect(),
        scores: scores.collect(),
        prompts: prompts.collect(),
    }
}
