//! The numbers behind tables and charts.

use crate::{Row, Variant};
use serde::Serialize;
use std::collections::BTreeMap;

/// Methods against data sets, for one benchmark of one model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Table {
    /// `needle`, `longbench`, `babilong` or `ruler`.
    pub benchmark: String,
    /// The model's name.
    pub model: String,
    /// The protocols or templates of its prompts.
    pub protocol: String,
    /// What the columns stand for: data sets, or lengths in tokens.
    pub columns: Vec<String>,
    /// One line per variant: `full` first, then by capacity, method and beta.
    pub lines: Vec<Line>,
}

/// One variant's scores and costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// The variant.
    pub variant: Variant,
    /// Its name; the model's score files are told apart where there are several.
    pub name: String,
    /// Mean score of each column in percent; none where nothing was run.
    pub scores: Vec<Option<f64>>,
    /// Whether it is the best of its capacity there.
    pub best: Vec<bool>,
    /// Mean over the columns.
    pub average: f64,
    /// Whether the average is the best of its capacity.
    pub best_average: bool,
    /// The average less that of `full`, over the columns that both have.
    pub delta: Option<f64>,
    /// Mean bytes of keys and values held at the end.
    pub kv_bytes: Option<f64>,
    /// Prompt tokens per second.
    pub prompt_speed: Option<f64>,
    /// Generated tokens per second, the first one apart.
    pub decode_speed: Option<f64>,
    /// Prompts.
    pub prompts: usize,
    /// Prompts without an answer; they count as score 0.
    pub failed: usize,
}

/// The tables of all benchmarks and models among the rows.
pub fn tables(rows: &[Row]) -> Vec<Table> {
    let mut groups: BTreeMap<(&str, &str), Vec<&Row>> = BTreeMap::new();
    for row in rows {
        groups
            .entry((&row.benchmark, &row.model))
            .or_default()
            .push(row);
    }
    groups
        .into_iter()
        .map(|((benchmark, model), rows)| table(benchmark, model, &rows))
        .collect()
}

fn table(benchmark: &str, model: &str, rows: &[&Row]) -> Table {
    let columns = columns(rows);
    let mut lines: Vec<Line> = Vec::new();
    for (variant, rows) in by_variant(rows) {
        lines.push(line(variant, &rows, &columns));
    }
    let full = lines
        .iter()
        .find(|line| line.variant.method == "full")
        .cloned();
    mark_best(&mut lines);
    tell_scores_apart(&mut lines);
    for line in &mut lines {
        line.delta = full
            .as_ref()
            .filter(|full| full.name != line.name)
            .and_then(|full| delta(line, full));
    }
    let mut protocols: Vec<_> = rows.iter().map(|row| row.protocol.as_str()).collect();
    protocols.sort_unstable();
    protocols.dedup();
    Table {
        benchmark: benchmark.into(),
        model: model.into(),
        protocol: protocols.join(", "),
        columns,
        lines,
    }
}

/// The column of a row: its length in tokens, its data set, or both where there are several of each.
pub fn column(row: &Row) -> String {
    match (row.length, &row.bucket) {
        (Some(length), _) => format!("{} {length}", row.dataset),
        (None, Some(bucket)) => format!("{} {bucket}", row.dataset),
        (None, None) => row.dataset.clone(),
    }
}

fn columns(rows: &[&Row]) -> Vec<String> {
    let mut keys: Vec<_> = rows
        .iter()
        .map(|row| {
            (
                natural(&row.dataset),
                row.length,
                row.bucket.as_deref().map(natural),
                column(row),
            )
        })
        .collect();
    keys.sort();
    keys.dedup();
    keys.into_iter().map(|(.., name)| name).collect()
}

/// Sorts `qa2` before `qa10`.
fn natural(name: &str) -> (String, u64) {
    let digits = name
        .find(|c: char| c.is_ascii_digit())
        .unwrap_or(name.len());
    let end = name[digits..]
        .find(|c: char| !c.is_ascii_digit())
        .map_or(name.len(), |at| digits + at);
    (
        name[..digits].into(),
        name[digits..end].parse().unwrap_or(0),
    )
}

/// Rows by variant, `full` first, then by capacity, method, beta and score file.
pub fn by_variant<'a>(rows: &[&'a Row]) -> Vec<(&'a Variant, Vec<&'a Row>)> {
    let mut groups: Vec<(&Variant, Vec<&Row>)> = Vec::new();
    for row in rows {
        match groups
            .iter_mut()
            .find(|(variant, _)| *variant == &row.variant)
        {
            Some((_, rows)) => rows.push(row),
            None => groups.push((&row.variant, vec![row])),
        }
    }
    groups.sort_by(|(a, _), (b, _)| {
        let whole = |v: &Variant| (v.method != "full", v.capacity, v.method.clone());
        let fine = |v: &Variant| (v.scores.clone(), v.settings.clone());
        let beta = a.beta.unwrap_or(0.0).total_cmp(&b.beta.unwrap_or(0.0));
        whole(a)
            .cmp(&whole(b))
            .then(beta)
            .then_with(|| fine(a).cmp(&fine(b)))
    });
    groups
}

fn line(variant: &Variant, rows: &[&Row], columns: &[String]) -> Line {
    let scores: Vec<_> = columns
        .iter()
        .map(|name| {
            mean(
                rows.iter()
                    .filter(|row| column(row) == *name)
                    .map(|row| 100.0 * row.score),
            )
        })
        .collect();
    let answered = || rows.iter().filter(|row| row.error.is_none());
    let total = |value: fn(&Row) -> f64| answered().map(|row| value(row)).sum::<f64>();
    let speed =
        |tokens: f64, seconds: f64| (tokens > 0.0 && seconds > 0.0).then_some(tokens / seconds);
    // A server tells the whole time only, so that neither speed is known.
    let timed = answered().all(|row| row.prompt_seconds.is_some());
    let prompt_speed = speed(
        total(|row| row.prompt_tokens as f64),
        total(|row| row.prompt_seconds.unwrap_or(0.0)),
    );
    let decode_speed = speed(
        total(|row| row.tokens.saturating_sub(1) as f64),
        total(|row| row.decode_seconds),
    );
    Line {
        variant: variant.clone(),
        name: variant.to_string(),
        average: mean(scores.iter().flatten().copied()).unwrap_or(0.0),
        best: vec![false; scores.len()],
        best_average: false,
        scores,
        delta: None,
        kv_bytes: mean(
            answered()
                .filter_map(|row| row.kv_bytes)
                .map(|bytes| bytes as f64),
        ),
        prompt_speed: prompt_speed.filter(|_| timed),
        decode_speed: decode_speed.filter(|_| timed),
        prompts: rows.len(),
        failed: rows.iter().filter(|row| row.error.is_some()).count(),
    }
}

/// Marks the best compressed variant of each capacity; a column where only one was run has no best.
fn mark_best(lines: &mut [Line]) {
    let capacities: Vec<_> = lines.iter().map(|line| line.variant.capacity).collect();
    for at in 0..lines.len() {
        let Some(capacity) = capacities[at] else {
            continue;
        };
        let rivals: Vec<usize> = (0..lines.len())
            .filter(|&other| capacities[other] == Some(capacity))
            .collect();
        if rivals.len() < 2 {
            continue;
        }
        let top = |value: &dyn Fn(&Line) -> Option<f64>| {
            rivals
                .iter()
                .filter_map(|&r| value(&lines[r]))
                .reduce(f64::max)
        };
        let best = (0..lines[at].scores.len()).map(|c| {
            lines[at].scores[c].is_some()
                && lines[at].scores[c] == top(&|line: &Line| line.scores[c])
        });
        let best: Vec<bool> = best.collect();
        let best_average = Some(lines[at].average) == top(&|line: &Line| Some(line.average));
        lines[at].best = best;
        lines[at].best_average = best_average;
    }
}

fn tell_scores_apart(lines: &mut [Line]) {
    let names: Vec<_> = lines.iter().map(|line| line.name.clone()).collect();
    for line in lines {
        let file = line
            .variant
            .scores
            .as_deref()
            .and_then(|path| path.file_stem());
        if let Some(file) =
            file.filter(|_| names.iter().filter(|name| **name == line.name).count() > 1)
        {
            line.name = format!("{} {}", line.name, file.to_string_lossy());
        }
    }
}

fn delta(line: &Line, full: &Line) -> Option<f64> {
    mean(
        line.scores
            .iter()
            .zip(&full.scores)
            .filter_map(|(ours, full)| Some((*ours)? - (*full)?)),
    )
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0usize), |(sum, count), value| {
        (sum + value, count + 1)
    });
    (count > 0).then(|| sum / count as f64)
}
