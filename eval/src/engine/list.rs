//! What there is to choose from: the methods and the rankings, those of one's own included.

use crate::table;
use headkv_plugin::{
    methods::{self, Entry},
    ranking,
};
use serde_json::{Value, json};
use std::fmt::Write;

/// What a method has to be told, or given, beside its name.
fn needs(entry: &Entry) -> Vec<&'static str> {
    match (entry.keeps_all, entry.needs_scores) {
        (true, _) => vec![],
        (false, false) => vec!["capacity"],
        (false, true) => vec!["capacity", "head scores"],
    }
}

/// Tables of all methods and rankings.
pub fn text() -> String {
    let row = |cells: &[&str]| cells.iter().map(ToString::to_string).collect::<Vec<_>>();
    let lines = methods::all().into_iter().map(|entry| {
        let needs = needs(&entry).join(", ");
        let needs = if needs.is_empty() {
            "nothing".into()
        } else {
            needs
        };
        let about = if entry.about.is_empty() {
            "-".into()
        } else {
            entry.about
        };
        let aliases = if entry.aliases.is_empty() {
            "-".into()
        } else {
            entry.aliases.join(", ")
        };
        vec![entry.name, needs, aliases, about]
    });
    let mut out = table::words(
        &row(&["method", "needs", "also called", "what it keeps"]),
        &lines.collect::<Vec<_>>(),
    );
    let _ = writeln!(
        out,
        "\nHead scores come with the embedded model; of others, head-scoring makes them. --ranking takes one of:\n"
    );
    let lines = ranking::all()
        .into_iter()
        .map(|entry| vec![entry.name, entry.about]);
    out + &table::words(
        &row(&["ranking", "what a position is worth"]),
        &lines.collect::<Vec<_>>(),
    )
}

/// The same as one JSON object, for programs.
pub fn json() -> Value {
    let methods = methods::all().into_iter().map(|entry| {
        let kinds = entry.score_kinds.iter();
        let kinds: serde_json::Map<_, _> = kinds
            .map(|(alias, kind)| (alias.clone(), kind.name().into()))
            .collect();
        json!({
            "name": entry.name,
            "aliases": entry.aliases,
            "needs": needs(&entry),
            "about": entry.about,
            "ranking": entry.defaults.ranking,
            "beta": entry.needs_scores.then_some(entry.defaults.beta),
            "scores_by_alias": kinds,
        })
    });
    let rankings = ranking::all()
        .into_iter()
        .map(|entry| json!({"name": entry.name, "about": entry.about}));
    json!({"methods": methods.collect::<Vec<_>>(), "rankings": rankings.collect::<Vec<_>>()})
}
