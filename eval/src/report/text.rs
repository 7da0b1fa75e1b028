//! Tables as Markdown and CSV.

use super::{Interval, Line, Table};
use crate::{Variant, speed};
use headkv_files::terminal::one_line;
use std::fmt::Write;

/// Below a table whose lines are of different prompts.
pub const UNEVEN: &str = "Not all methods answered the same prompts: averages cannot be compared, differences from full are over the prompts that both answered.";
/// Below a table with columns that say nothing.
pub const UNINFORMATIVE: &str = "(!) Full attention scores less than 5 there: the column shows nothing of what compression costs.";

/// Below a table of several questions over one text.
pub const TURNS: &str = "Turn 1 and later turns: median seconds to the first token. Remembered: the most bytes of earlier prompts. `exact` reads prompts on from these, `compressed` from what was kept of the turn before.";

/// Above the tables of speed.
pub const SPEED: &str =
    "Medians of all rounds; ratios are to the first path over the same prompts.";

/// The tables as Markdown, aligned so that they also read well in a terminal.
pub fn markdown(tables: &[Table]) -> String {
    let mut out = String::new();
    for table in tables {
        let (title, protocol) = (one_line(&table.title), one_line(&table.setup.protocol));
        let _ = writeln!(out, "### {title} (prompt protocol: {protocol})\n");
        let lines: Vec<_> = table
            .lines
            .iter()
            .map(|line| cells(line, has_turns(table)))
            .collect();
        out.push_str(&crate::table::markdown(&header(table), &lines));
        out.push('\n');
        for (said, note) in [
            (has_turns(table), TURNS),
            (table.uneven, UNEVEN),
            (table.uninformative.contains(&true), UNINFORMATIVE),
        ] {
            if said {
                let _ = writeln!(out, "{note}\n");
            }
        }
    }
    out
}

/// What `bench` measured, as Markdown; nothing if nothing was.
pub fn speed(rows: &[speed::Row]) -> String {
    let tables = speed::tables(rows);
    if tables.is_empty() {
        return String::new();
    }
    let tables: Vec<_> = tables.iter().map(speed::Plain::markdown).collect();
    format!("### Speed and memory\n\n{SPEED}\n\n{}\n", tables.join("\n"))
}

fn header(table: &Table) -> Vec<String> {
    let first = [
        "method", "average", "95 %", "vs full", "95 %", "n", "kept KV",
    ];
    let mut cells: Vec<String> = first.map(String::from).into();
    for (name, low) in table.columns.iter().zip(&table.uninformative) {
        cells.push(format!("{name}{}", if *low { " (!)" } else { "" }));
    }
    if has_turns(table) {
        cells.extend(["turn 1", "later turns", "remembered"].map(String::from));
    }
    cells.extend(["prompt tok/s", "decode tok/s"].map(String::from));
    cells
}

/// Whether a table is of several questions over one text: it then says how long their first tokens took.
fn has_turns(table: &Table) -> bool {
    table.lines.iter().any(|line| line.first_turn.is_some())
}

/// `12.3 to 45.6`, or nothing where there are too few prompts.
fn bounds(interval: &Interval, signed: bool) -> String {
    match (interval.low, interval.high) {
        (Some(low), Some(high)) if signed => format!("{low:+.1} to {high:+.1}"),
        (Some(low), Some(high)) => format!("{low:.1} to {high:.1}"),
        _ => "-".into(),
    }
}

fn cells(line: &Line, turns: bool) -> Vec<String> {
    let failed = if line.failed > 0 {
        format!(" ({} failed)", line.failed)
    } else {
        String::new()
    };
    let bold = |text: String, best: bool| if best { format!("**{text}**") } else { text };
    let delta = line.delta.as_ref();
    let mut cells = vec![
        line.name.clone() + &failed,
        bold(format!("{:.1}", line.average.mean), line.best_average),
        bounds(&line.average, false),
        delta.map_or("-".into(), |delta| format!("{:+.1}", delta.mean)),
        delta.map_or("-".into(), |delta| bounds(delta, true)),
        line.prompts.to_string(),
        line.kept_bytes.map_or("-".into(), crate::table::bytes),
    ];
    cells.extend(
        line.scores
            .iter()
            .zip(&line.best)
            .map(|(score, best)| match score {
                Some(score) => bold(format!("{score:.1}"), *best),
                None => "-".into(),
            }),
    );
    if turns {
        let seconds = [line.first_turn, line.later_turns];
        cells.extend(seconds.map(|wait| wait.map_or("-".into(), |wait| format!("{wait:.3} s"))));
        cells.push(line.held_bytes.map_or("-".into(), crate::table::bytes));
    }
    cells.extend(
        [line.prompt_speed, line.decode_speed]
            .map(|speed| speed.map_or("-".into(), |speed| format!("{speed:.0}"))),
    );
    cells
}

const CSV_HEADER: [&str; 26] = [
    "benchmark",
    "model",
    "model_digest",
    "backend",
    "protocol",
    "version",
    "method",
    "capacity",
    "beta",
    "scores",
    "settings",
    "column",
    "score",
    "low",
    "high",
    "vs_full",
    "vs_full_low",
    "vs_full_high",
    "kept_bytes",
    "first_turn_s",
    "later_turns_s",
    "remembered_bytes",
    "prompt_tokens_per_s",
    "decode_tokens_per_s",
    "prompts",
    "failed",
];

/// The tables as CSV (RFC 4180), one record per set-up, method and column; the average is a column too.
pub fn csv(tables: &[Table]) -> String {
    let mut out = csv::WriterBuilder::new()
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::new());
    let mut records = vec![CSV_HEADER.map(String::from)];
    for table in tables {
        for line in &table.lines {
            let scores = line.scores.iter().copied();
            for (column, score) in table.columns.iter().zip(scores) {
                records.push(record(table, line, column, score, None, None));
            }
            let (average, delta) = (&line.average, line.delta.as_ref());
            let mean = Some(average.mean);
            records.push(record(table, line, "average", mean, Some(average), delta));
        }
    }
    for record in records {
        // Nothing can go wrong in memory; a record of another length would, and all have the header's.
        let _ = out.write_record(record.map(harmless));
    }
    let bytes = out.into_inner().unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn record(
    table: &Table,
    line: &Line,
    column: &str,
    score: Option<f64>,
    bounds: Option<&Interval>,
    delta: Option<&Interval>,
) -> [String; CSV_HEADER.len()] {
    let (setup, variant) = (&table.setup, &line.variant);
    let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
    let scores = variant.scores.as_deref();
    [
        setup.benchmark.clone(),
        setup.model.clone(),
        setup.model_digest.clone(),
        setup.backend.clone(),
        setup.protocol.clone(),
        setup.version.clone(),
        variant.method.clone(),
        variant
            .capacity
            .map_or(String::new(), |tokens| tokens.to_string()),
        number(variant.beta),
        scores.map_or(String::new(), |path| path.display().to_string()),
        settings(variant),
        column.into(),
        number(score),
        number(bounds.and_then(|interval| interval.low)),
        number(bounds.and_then(|interval| interval.high)),
        number(delta.map(|interval| interval.mean)),
        number(delta.and_then(|interval| interval.low)),
        number(delta.and_then(|interval| interval.high)),
        number(line.kept_bytes),
        number(line.first_turn),
        number(line.later_turns),
        number(line.held_bytes),
        number(line.prompt_speed),
        number(line.decode_speed),
        line.prompts.to_string(),
        line.failed.to_string(),
    ]
}

/// Further parameters, and what is reused.
fn settings(variant: &Variant) -> String {
    let mut settings = variant.settings.settings();
    settings.extend(variant.reuse.map(|reuse| format!("reuse={}", reuse.name())));
    settings.join(" ")
}

/// A field that a spreadsheet does not take for a formula; numbers stay what they are.
fn harmless(field: String) -> String {
    let formula = field.starts_with(['=', '+', '-', '@', '\t', '\r']);
    if formula && field.parse::<f64>().is_err() {
        format!("'{field}")
    } else {
        field
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreadsheets_are_given_no_formulas() {
        let after = |text: &str| harmless(text.into());
        assert_eq!(after("=1+1"), "'=1+1");
        assert_eq!(after("@SUM(A1)"), "'@SUM(A1)");
        assert_eq!(after("-16.5"), "-16.5");
        assert_eq!(after("tiny"), "tiny");
    }
}
