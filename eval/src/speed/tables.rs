//! The tables of a run.

use super::rows::Row;
use crate::table;
use serde::Serialize;

/// A table of texts.
#[derive(Debug, Serialize)]
pub struct Plain {
    /// The columns' names.
    pub header: Vec<String>,
    /// A cell for each column.
    pub lines: Vec<Vec<String>>,
}

impl Plain {
    fn new(header: &[&str], lines: Vec<Vec<String>>) -> Self {
        let header = header.iter().map(ToString::to_string).collect();
        Self { header, lines }
    }

    /// As Markdown, aligned so that it also reads well in a terminal.
    pub fn markdown(&self) -> String {
        table::markdown(&self.header, &self.lines)
    }
}

/// What a report shows: nothing where nothing was measured.
pub fn tables(rows: &[Row]) -> Vec<Plain> {
    match rows {
        [] => Vec::new(),
        rows => vec![speed(rows), latency(rows)],
    }
}

/// Speed and memory; the ratios are to the first of the rows that measure the same prompts.
pub fn speed(rows: &[Row]) -> Plain {
    // A GPU's peak is the prompt's activations; what stays is the weights and the cache.
    let held = |row: &Row| row.rounds.iter().any(|round| round.held_bytes.is_some());
    let on_gpu = rows.iter().any(held);
    let header = [
        "tokens, path",
        "prompt tok/s",
        "ratio",
        "decode tok/s",
        "ratio",
        "KV bytes",
        "of first",
        "peak memory",
        "held after",
    ];
    let columns = header.len() - usize::from(!on_gpu);
    let prompts = |row: &Row| {
        (
            row.key.model.clone(),
            row.key.lengths.clone(),
            row.key.batch,
        )
    };
    let same = |a: &Row, b: &Row| prompts(a) == prompts(b);
    let lines = rows.chunk_by(same).flat_map(|group| {
        group.iter().map(|row| {
            let first = &group[0];
            let ratio = |figure| format!("{:.1}", row.median(figure) / first.median(figure));
            let bytes = row.median(|m| m.kv_bytes);
            let mut line = vec![
                row.key.name(),
                format!("{:.0}", row.median(|m| m.prompt)),
                ratio(|m| m.prompt),
                format!("{:.0}", row.median(|m| m.decode)),
                ratio(|m| m.decode),
                table::bytes(bytes),
                format!("{:.2} %", 100.0 * bytes / first.median(|m| m.kv_bytes)),
                table::bytes(row.median(|m| m.peak_bytes)),
                table::bytes(row.median(|m| m.held_bytes.unwrap_or(f64::NAN))),
            ];
            line.truncate(columns);
            line
        })
    });
    Plain::new(&header[..columns], lines.collect())
}

/// What a user waits for, over all prompts and rounds, and how much the rounds differ.
pub fn latency(rows: &[Row]) -> Plain {
    let header = [
        "tokens, path",
        "first token, median",
        "p99",
        "between tokens, median",
        "p99",
        "rounds",
        "prompts differ by",
        "decoding differs by",
    ];
    let line = |row: &Row| {
        let first = |share| milliseconds(row.percentile(|m| &m.first_token, share));
        let between = |share| milliseconds(row.percentile(|m| &m.between_tokens, share));
        vec![
            row.key.name(),
            first(0.5),
            first(0.99),
            between(0.5),
            between(0.99),
            row.rounds.len().to_string(),
            format!("{:.0} %", 100.0 * row.spread(|m| m.prompt)),
            format!("{:.0} %", 100.0 * row.spread(|m| m.decode)),
        ]
    };
    Plain::new(&header, rows.iter().map(line).collect())
}

/// Ratios to the rows of an earlier run that measured the same.
pub fn comparison(rows: &[Row], earlier: &[Row]) -> Plain {
    let header = [
        "now / then",
        "prompt tok/s",
        "decode tok/s",
        "first token",
        "KV bytes",
        "peak memory",
    ];
    let lines = rows.iter().map(|row| {
        let then = earlier.iter().find(|then| then.key == row.key);
        let ratio = |figure: &dyn Fn(&Row) -> f64| {
            then.map_or("-".into(), |then| {
                format!("{:.2}", figure(row) / figure(then))
            })
        };
        vec![
            row.key.name(),
            ratio(&|row| row.median(|m| m.prompt)),
            ratio(&|row| row.median(|m| m.decode)),
            ratio(&|row| row.percentile(|m| &m.first_token, 0.5)),
            ratio(&|row| row.median(|m| m.kv_bytes)),
            ratio(&|row| row.median(|m| m.peak_bytes)),
        ]
    });
    Plain::new(&header, lines.collect())
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.1} ms", 1000.0 * seconds)
}

#[cfg(test)]
mod tests {
    use super::{Row, comparison, latency, speed};
    use crate::speed::{Key, Measured};

    fn row(path: &str, speed: f64) -> Row {
        let measured = |speed: f64| Measured {
            prompt: 100.0 * speed,
            decode: 10.0 * speed,
            kv_bytes: 1024.0,
            peak_bytes: 2048.0,
            held_bytes: None,
            first_token: vec![0.5 / speed, 1.0 / speed],
            between_tokens: vec![0.1 / speed; 99].into_iter().chain([9.0]).collect(),
        };
        let key = Key {
            model: "m".into(),
            device: "cpu".into(),
            lengths: vec![1000],
            batch: 2,
            decode: 51,
            path: path.into(),
            beta: None,
        };
        let rounds = [1.0, 1.1, 0.9].map(|round| measured(speed * round)).into();
        Row { key, rounds }
    }

    #[test]
    fn tables() {
        let rows = [row("full", 1.0), row("headkv@32", 2.0)];
        let earlier = [row("headkv@32", 1.0)];
        insta::assert_snapshot!(
            [speed(&rows), latency(&rows), comparison(&rows, &earlier)]
                .map(|table| table.markdown())
                .join("\n")
        );
    }
}
