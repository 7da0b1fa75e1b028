//! The numbers behind tables and charts.

use super::{
    names::names,
    setup::{Group, Setup, groups},
};
use crate::{Row, Variant};
use serde::Serialize;
use std::collections::BTreeSet;

/// Methods against data sets, for one benchmark of one model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Table {
    /// Benchmark and model, and what else tells it from other tables.
    pub title: String,
    /// What all of its rows have in common.
    pub setup: Setup,
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
    /// Its name; score files are told apart where there are several.
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

/// The tables of all rows; rows of different set-ups are never averaged.
pub fn tables(rows: &[Row]) -> Vec<Table> {
    groups(rows).iter().map(table).collect()
}

/// The table of one group of rows.
pub fn table(group: &Group) -> Table {
    let rows = &group.rows;
    let columns = columns(rows);
    let variants = by_variant(rows);
    let names = names(
        &variants
            .iter()
            .map(|(variant, _)| *variant)
            .collect::<Vec<_>>(),
    );
    let mut lines: Vec<Line> = names
        .into_iter()
        .zip(&variants)
        .map(|(name, (variant, rows))| line(name, variant, rows, &columns))
        .collect();
    let full = lines
        .iter()
        .find(|line| line.variant.method == "full")
        .cloned();
    mark_best(&mut lines);
    for line in &mut lines {
        line.delta = full
            .as_ref()
            .filter(|full| full.name != line.name)
            .and_then(|full| delta(line, full));
    }
    Table {
        title: group.title.clone(),
        setup: group.setup.clone(),
        columns,
        lines,
    }
}

/// The column of a row: its data set, and its length where the benchmark asks for several.
pub fn column(row: &Row) -> String {
    match (row.length, bucket(row)) {
        (Some(length), _) => format!("{} {length}", row.dataset),
        (None, Some(bucket)) => format!("{} {bucket}", row.dataset),
        (None, None) => row.dataset.clone(),
    }
}

/// The length bucket, but for LongBench: its samples have lengths, but it is not about them as LongBench-E is.
fn bucket(row: &Row) -> Option<&str> {
    let bucket = row.bucket.as_deref();
    bucket.filter(|_| row.benchmark != "longbench")
}

fn columns(rows: &[&Row]) -> Vec<String> {
    let mut keys: Vec<_> = rows
        .iter()
        .map(|row| {
            (
                natural(&row.dataset),
                row.length,
                bucket(row).map(natural),
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
            .find(|(variant, _)| variant.same(&row.variant))
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

fn line(name: String, variant: &Variant, rows: &[&Row], columns: &[String]) -> Line {
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
        name,
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

/// Marks the best compressed variants of each capacity.
fn mark_best(lines: &mut [Line]) {
    let columns = lines.first().map_or(0, |line| line.scores.len());
    let capacities: BTreeSet<usize> = lines
        .iter()
        .filter_map(|line| line.variant.capacity)
        .collect();
    for capacity in capacities {
        let mut rivals: Vec<&mut Line> = lines
            .iter_mut()
            .filter(|line| line.variant.capacity == Some(capacity))
            .collect();
        for column in 0..columns {
            let best = best(rivals.iter().map(|line| line.scores[column]));
            for (line, best) in rivals.iter_mut().zip(best) {
                line.best[column] = best;
            }
        }
        let best = best(rivals.iter().map(|line| Some(line.average)));
        for (line, best) in rivals.iter_mut().zip(best) {
            line.best_average = best;
        }
    }
}

/// Which scores are the highest; none is where all are equal.
fn best(scores: impl Iterator<Item = Option<f64>> + Clone) -> Vec<bool> {
    let known = || scores.clone().flatten();
    let high = known().fold(f64::NEG_INFINITY, f64::max);
    let low = known().fold(f64::INFINITY, f64::min);
    scores
        .clone()
        .map(|score| score == Some(high) && low < high)
        .collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_is_better_than_another() {
        let best = |scores: &[Option<f64>]| best(scores.iter().copied());
        assert_eq!(
            best(&[Some(1.0), None, Some(2.0), Some(2.0)]),
            [false, false, true, true]
        );
        assert_eq!(best(&[Some(0.0), Some(0.0)]), [false, false]);
        assert_eq!(best(&[Some(3.0), None]), [false, false]);
    }
}
