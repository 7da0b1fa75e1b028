//! The numbers behind tables and charts.

use super::{
    interval::{Interval, Value, interval},
    names::names,
    setup::{Group, Setup, groups},
};
use crate::{Row, Variant};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A column in which full attention scores less than so many percent shows nothing of what compression costs.
const FLOOR: f64 = 5.0;

/// Methods against data sets, for one benchmark of one model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Table {
    /// Benchmark and model, and what else tells it from other tables.
    pub title: String,
    /// What all of its rows have in common.
    pub setup: Setup,
    /// What the columns stand for: data sets, or lengths in tokens.
    pub columns: Vec<String>,
    /// In which columns full attention is at the floor: they show nothing of what compression costs.
    pub uninformative: Vec<bool>,
    /// Whether the lines are of different prompts, so that averages cannot be compared; differences can.
    pub uneven: bool,
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
    /// Whether it is the best of its capacity there, and its lead over the next is significant.
    pub best: Vec<bool>,
    /// Mean over the columns.
    pub average: Interval,
    /// Whether the average is the best of its capacity, and its lead over the next is significant.
    pub best_average: bool,
    /// The average less that of `full`, over the prompts that both have.
    pub delta: Option<Interval>,
    /// Mean bytes that the prompts left of keys and values.
    pub kept_bytes: Option<f64>,
    /// The part of `full`'s bytes, in percent.
    pub kept_share: Option<f64>,
    /// Prompt tokens per second.
    pub prompt_speed: Option<f64>,
    /// Generated tokens per second, the first one apart.
    pub decode_speed: Option<f64>,
    /// Median seconds to the first token of a text's first question.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_turn: Option<f64>,
    /// Median seconds to the first token of its other questions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub later_turns: Option<f64>,
    /// The most bytes of earlier prompts that were remembered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_bytes: Option<f64>,
    /// Prompts.
    pub prompts: usize,
    /// Prompts without an answer; they count as score 0.
    pub failed: usize,
}

/// Scores in percent by sample and prompt, for each column.
type Answers<'a> = Vec<Column<'a>>;
type Column<'a> = BTreeMap<(&'a str, &'a str), Value>;

/// The tables of all rows; rows of different set-ups are never averaged.
pub fn tables(rows: &[Row]) -> Vec<Table> {
    groups(rows).iter().map(table).collect()
}

/// The table of one group of rows.
pub fn table(group: &Group) -> Table {
    let rows = &group.rows;
    let columns = columns(rows);
    let places: HashMap<&str, usize> = columns
        .iter()
        .enumerate()
        .map(|(at, name)| (name.as_str(), at))
        .collect();
    let variants = by_variant(rows);
    let names = names(&variants.iter().map(|(v, _)| *v).collect::<Vec<_>>());
    let answers: Vec<Answers> = variants
        .iter()
        .map(|(_, rows)| answers(rows, &places))
        .collect();
    let mut lines: Vec<Line> = names
        .into_iter()
        .zip(&variants)
        .zip(&answers)
        .map(|((name, (variant, rows)), answers)| line(name, variant, rows, answers))
        .collect();
    let full = lines.iter().position(|line| line.variant.method == "full");
    mark_best(&mut lines, &answers);
    let mut uninformative = vec![false; columns.len()];
    if let Some(full) = full {
        let full_bytes = lines[full].kept_bytes;
        for (at, line) in lines.iter_mut().enumerate() {
            if at != full {
                line.delta = interval(&differences(&answers[at], &answers[full]));
            }
            line.kept_share = line
                .kept_bytes
                .zip(full_bytes)
                .filter(|(_, full)| *full > 0.0)
                .map(|(ours, full)| 100.0 * ours / full);
        }
        for (low, score) in uninformative.iter_mut().zip(&lines[full].scores) {
            *low = score.is_some_and(|score| score < FLOOR);
        }
    }
    let same = |(a, b): (&Column, &Column)| a.keys().eq(b.keys());
    let uneven = answers
        .iter()
        .any(|other| !other.iter().zip(&answers[0]).all(same));
    Table {
        title: group.title.clone(),
        setup: group.setup.clone(),
        columns,
        uninformative,
        uneven,
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
    let keys: BTreeSet<_> = rows
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
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut groups: Vec<(&Variant, Vec<&Row>)> = Vec::new();
    for row in rows {
        let at = *places.entry(row.variant.identity()).or_insert_with(|| {
            groups.push((&row.variant, Vec::new()));
            groups.len() - 1
        });
        groups[at].1.push(row);
    }
    groups.sort_by_cached_key(|(v, _)| {
        // The bits of numbers that are not negative have their order.
        let beta = v.beta.unwrap_or(0.0).max(0.0).to_bits();
        let whole = (v.method != "full", v.capacity, v.method.clone());
        let settings = v.settings.settings();
        (whole, beta, v.scores.clone(), settings, v.reuse)
    });
    groups
}

fn answers<'a>(rows: &[&'a Row], places: &HashMap<&str, usize>) -> Answers<'a> {
    let mut answers = vec![BTreeMap::new(); places.len()];
    for row in rows {
        if let Some(&at) = places.get(column(row).as_str()) {
            let value = Value {
                score: 100.0 * row.score,
                cluster: row.cluster(),
            };
            answers[at].insert((&*row.sample, &*row.prompt), value);
        }
    }
    answers
}

fn line(name: String, variant: &Variant, rows: &[&Row], answers: &Answers) -> Line {
    let by_column: Vec<Vec<Value>> = answers
        .iter()
        .map(|column| column.values().cloned().collect())
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
    let waits = |which: &dyn Fn(usize) -> bool| -> Vec<f64> {
        let of = answered().filter(|row| row.turn.is_some_and(which));
        of.filter_map(|row| row.prompt_seconds).collect()
    };
    let nothing = Interval {
        mean: 0.0,
        low: None,
        high: None,
    };
    Line {
        variant: variant.clone(),
        name,
        average: interval(&by_column).unwrap_or(nothing),
        best: vec![false; by_column.len()],
        best_average: false,
        scores: by_column
            .iter()
            .map(|values| mean(values.iter().map(|value| value.score)))
            .collect(),
        delta: None,
        kept_bytes: mean(
            answered()
                .filter_map(|row| row.kept_bytes.or(row.kv_bytes))
                .map(|bytes| bytes as f64),
        ),
        kept_share: None,
        prompt_speed: prompt_speed.filter(|_| timed),
        decode_speed: decode_speed.filter(|_| timed),
        first_turn: median(waits(&|turn| turn == 1)),
        later_turns: median(waits(&|turn| turn > 1)),
        held_bytes: answered()
            .filter_map(|row| row.held_bytes)
            .max()
            .map(|bytes| bytes as f64),
        prompts: rows.len(),
        failed: rows.iter().filter(|row| row.error.is_some()).count(),
    }
}

/// What one variant scored more than another, by column, on the prompts that both answered.
fn differences(ours: &Answers, theirs: &Answers) -> Vec<Vec<Value>> {
    ours.iter().zip(theirs).map(difference).collect()
}

fn difference((ours, theirs): (&Column, &Column)) -> Vec<Value> {
    let pairs = ours
        .iter()
        .filter_map(|(key, a)| Some((a, theirs.get(key)?)));
    let less = |(a, b): (&Value, &Value)| Value {
        score: a.score - b.score,
        cluster: a.cluster.clone(),
    };
    pairs.map(less).collect()
}

/// Marks the compressed variants whose lead over the next of their capacity is significant.
fn mark_best(lines: &mut [Line], answers: &[Answers]) {
    let columns = lines.first().map_or(0, |line| line.scores.len());
    let capacities: BTreeSet<usize> = lines
        .iter()
        .filter_map(|line| line.variant.capacity)
        .collect();
    for capacity in capacities {
        let rivals: Vec<usize> = (0..lines.len())
            .filter(|&at| lines[at].variant.capacity == Some(capacity))
            .collect();
        for column in 0..columns {
            let scores = rivals.iter().map(|&at| (at, lines[at].scores[column]));
            let known = scores.filter_map(|(at, score)| Some((at, score?)));
            let lead = |best: usize, next: usize| {
                let pair = answers[best].get(column).zip(answers[next].get(column));
                pair.map(difference).into_iter().collect()
            };
            if let Some(best) = leader(known.collect(), lead) {
                lines[best].best[column] = true;
            }
        }
        let averages = rivals.iter().map(|&at| (at, lines[at].average.mean));
        let lead = |best: usize, next: usize| differences(&answers[best], &answers[next]);
        if let Some(best) = leader(averages.collect(), lead) {
            lines[best].best_average = true;
        }
    }
}

/// The highest of several, if its lead over the next is significant.
fn leader(
    mut scores: Vec<(usize, f64)>,
    lead: impl Fn(usize, usize) -> Vec<Vec<Value>>,
) -> Option<usize> {
    scores.sort_by(|a, b| b.1.total_cmp(&a.1));
    let (&(best, high), &(next, low)) = (scores.first()?, scores.get(1)?);
    let significant = || interval(&lead(best, next)).is_some_and(|lead| lead.above_zero());
    (high > low && significant()).then_some(best)
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.len().checked_sub(1)? / 2, values.len() / 2);
    Some((values[low] + values[high]) / 2.0)
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
    use crate::report::interval::Cluster;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0]), Some(3.0));
        assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![9.0, 1.0, 2.0, 4.0]), Some(3.0));
    }

    #[test]
    fn only_a_significant_lead_is_one() {
        let lead = |differences: &[f64]| {
            let scores = vec![(7, 50.0), (3, 60.0), (5, 10.0)];
            leader(scores, |a, b| {
                assert_eq!((a, b), (3, 7), "the best against the next");
                let value = |(at, score): (usize, &f64)| Value {
                    score: *score,
                    cluster: Cluster {
                        dataset: "d".into(),
                        item: at.to_string(),
                    },
                };
                vec![differences.iter().enumerate().map(value).collect()]
            })
        };
        assert_eq!(lead(&[10.0; 8]), Some(3));
        assert_eq!(lead(&[100.0, -60.0, 80.0, -80.0, 10.0, 10.0]), None);
        assert_eq!(lead(&[10.0; 2]), None, "too few");
        assert_eq!(leader(vec![(0, 1.0), (1, 1.0)], |_, _| vec![]), None);
        assert_eq!(leader(vec![(0, 1.0)], |_, _| vec![]), None);
    }
}
