//! Tables for the terminal and for Markdown, which are the same.

use headkv_files::terminal;

/// A byte count in binary units.
pub fn bytes(count: f64) -> String {
    match count {
        c if c >= 1024.0 * 1024.0 * 1024.0 => format!("{:.2} GiB", c / 1024.0f64.powi(3)),
        c if c >= 1024.0 * 1024.0 => format!("{:.2} MiB", c / 1024.0f64.powi(2)),
        c => format!("{:.1} KiB", c / 1024.0),
    }
}

/// A Markdown table with aligned columns; all but the first are figures. No cell breaks it.
pub fn markdown(header: &[String], lines: &[Vec<String>]) -> String {
    aligned(header, lines, true)
}

/// As [`markdown`], with columns of words.
pub fn words(header: &[String], lines: &[Vec<String>]) -> String {
    aligned(header, lines, false)
}

fn aligned(header: &[String], lines: &[Vec<String>], figures: bool) -> String {
    let cell = |text: &String| terminal::one_line(text).replace('|', "\\|");
    let header: &[String] = &header.iter().map(cell).collect::<Vec<_>>();
    let lines: &[Vec<String>] = &lines
        .iter()
        .map(|line| line.iter().map(cell).collect())
        .collect::<Vec<_>>();
    let width = |column: usize| {
        let cells = lines
            .iter()
            .map(|line| &line[column])
            .chain([&header[column]]);
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &[String]| {
        let cells = cells
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(column, (cell, width))| match (column, figures) {
                (0, _) | (_, false) => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
        format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
    };
    let rule = widths
        .iter()
        .enumerate()
        .map(|(column, width)| match (column, figures) {
            (0, _) | (_, false) => "-".repeat(*width),
            _ => format!("{}:", "-".repeat(width.saturating_sub(1).max(1))),
        });
    let mut text = line(header);
    text.push_str(&format!("| {} |\n", rule.collect::<Vec<_>>().join(" | ")));
    text.extend(lines.iter().map(|cells| line(cells)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_breaks_a_table() {
        let table = markdown(
            &["method".into(), "a|b".into()],
            &[vec!["x\ny\u{1b}[2J".into(), "1".into()]],
        );
        assert_eq!(table.lines().count(), 3);
        assert!(
            table.contains("a\\|b") && table.contains("| x y\\u{1b}[2J |"),
            "{table}"
        );
    }
}
