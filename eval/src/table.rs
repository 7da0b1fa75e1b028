//! Tables for the terminal and for Markdown, which are the same.

use crate::row::Row;

/// Rows of one configuration, in the order of their first appearance.
pub fn by_label(rows: &[Row]) -> Vec<(String, Vec<&Row>)> {
    let mut groups: Vec<(String, Vec<&Row>)> = Vec::new();
    for row in rows {
        let label = row.label();
        match groups.iter_mut().find(|(known, _)| *known == label) {
            Some((_, group)) => group.push(row),
            None => groups.push((label, vec![row])),
        }
    }
    groups
}

/// The distinct lengths, ascending.
pub fn lengths(rows: &[Row]) -> Vec<usize> {
    let mut lengths: Vec<usize> = rows.iter().map(|row| row.length).collect();
    lengths.sort_unstable();
    lengths.dedup();
    lengths
}

/// The mean of a figure; `None` without rows.
pub fn mean<'a>(
    rows: impl IntoIterator<Item = &'a Row>,
    figure: impl Fn(&Row) -> f64,
) -> Option<f64> {
    let (sum, count) = rows
        .into_iter()
        .fold((0.0, 0), |(sum, count), row| (sum + figure(row), count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

/// Score by method and length, KV bytes at the longest, and speed.
pub fn summary(rows: &[Row]) -> String {
    let lengths = lengths(rows);
    let longest = lengths.last().copied().unwrap_or(0);
    let mut header = vec!["QA-F1 x 100".to_string()];
    header.extend(lengths.iter().map(|n| format!("{n} tokens")));
    header.extend([
        format!("KV bytes at {longest}"),
        "prompt tok/s".into(),
        "decode tok/s".into(),
    ]);
    let lines = by_label(rows).into_iter().map(|(label, rows)| {
        let at = |n: usize| rows.iter().copied().filter(move |row| row.length == n);
        let cell = |value: Option<f64>, digits: usize| {
            value.map_or("-".into(), |x| format!("{x:.digits$}"))
        };
        let rate = |tokens: fn(&Row) -> f64, seconds: fn(&Row) -> f64| {
            let (t, s) = rows.iter().fold((0.0, 0.0), |(t, s), row| {
                (t + tokens(row), s + seconds(row))
            });
            if s > 0.0 {
                format!("{:.0}", t / s)
            } else {
                "-".into()
            }
        };
        let mut line = vec![label];
        line.extend(
            lengths
                .iter()
                .map(|n| cell(mean(at(*n), |row| row.f1 * 100.0), 1)),
        );
        line.push(mean(at(longest), |row| row.kv_bytes as f64).map_or("-".into(), bytes));
        line.push(rate(
            |row| row.prompt_tokens as f64,
            |row| row.prompt_seconds,
        ));
        line.push(rate(
            |row| row.answer_tokens.saturating_sub(1) as f64,
            |row| row.decode_seconds,
        ));
        line
    });
    markdown(&header, &lines.collect::<Vec<_>>())
}

/// A byte count in binary units.
pub fn bytes(count: f64) -> String {
    match count {
        c if c >= 1024.0 * 1024.0 * 1024.0 => format!("{:.2} GiB", c / 1024.0f64.powi(3)),
        c if c >= 1024.0 * 1024.0 => format!("{:.2} MiB", c / 1024.0f64.powi(2)),
        c => format!("{:.1} KiB", c / 1024.0),
    }
}

/// A Markdown table with aligned columns; all but the first are figures.
pub fn markdown(header: &[String], lines: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = lines
            .iter()
            .map(|line| &line[column])
            .chain([&header[column]]);
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &[String]| {
        let cells =
            cells
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(column, (cell, width))| match column {
                    0 => format!("{cell:<width$}"),
                    _ => format!("{cell:>width$}"),
                });
        format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
    };
    let rule = widths
        .iter()
        .enumerate()
        .map(|(column, width)| match column {
            0 => "-".repeat(*width),
            _ => format!("{}:", "-".repeat(width.saturating_sub(1).max(1))),
        });
    let mut text = line(header);
    text.push_str(&format!("| {} |\n", rule.collect::<Vec<_>>().join(" | ")));
    text.extend(lines.iter().map(|cells| line(cells)));
    text
}
