//! A self-contained HTML page of a needle test: the table, and a depth x length heatmap per configuration.

use crate::{row::Row, table};
use minijinja::{AutoEscape, Environment, Value, context};
use plotters::prelude::*;

const PAGE: &str = include_str!("report.html");

/// Renders the page.
///
/// # Errors
/// Only if a picture cannot be drawn.
pub fn html(rows: &[Row], command: &str) -> anyhow::Result<String> {
    let mut maps = Vec::new();
    for (label, rows) in table::by_label(rows) {
        let score = table::mean(rows.iter().copied(), |row| row.f1 * 100.0).unwrap_or(0.0);
        maps.push(context! { label, score => format!("{score:.1}"), svg => Value::from_safe_string(heatmap(&rows)?) });
    }
    let missed: Vec<&Row> = rows.iter().filter(|row| row.f1 < 0.5).collect();
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_template("page", PAGE)?;
    let page = environment.get_template("page")?.render(context! {
        model => rows.first().map(|row| row.model.as_str()),
        answers => rows.len(),
        table => table_cells(&table::summary(rows)),
        maps, missed, command,
    })?;
    Ok(page)
}

/// The cells of a Markdown table, without its rule.
fn table_cells(markdown: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| {
        line.trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().to_string())
            .collect()
    };
    markdown
        .lines()
        .enumerate()
        .filter(|(number, _)| *number != 1)
        .map(|(_, line)| cells(line))
        .collect()
}

/// Scores by depth (down) and length (across); colors run from dark blue to yellow, readable for color-blind people.
fn heatmap(rows: &[&Row]) -> anyhow::Result<String> {
    let distinct = |figure: fn(&Row) -> f64| {
        let mut values: Vec<f64> = rows.iter().map(|row| figure(row)).collect();
        values.sort_by(f64::total_cmp);
        values.dedup();
        values
    };
    let (lengths, depths) = (distinct(|row| row.length as f64), distinct(|row| row.depth));
    let (left, top, cell) = (64, 34, (64, 30));
    let size = (
        left + cell.0 * lengths.len() as i32 + 8,
        top + cell.1 * depths.len() as i32 + 8,
    );
    let mut svg = String::new();
    {
        let area =
            SVGBackend::with_string(&mut svg, (size.0 as u32, size.1 as u32)).into_drawing_area();
        let centered = |size: f64, color: RGBColor| {
            use plotters::style::text_anchor::{HPos, Pos, VPos};
            ("sans-serif", size)
                .into_font()
                .color(&color)
                .pos(Pos::new(HPos::Center, VPos::Center))
        };
        let axis = centered(12.0, RGBColor(60, 60, 60));
        for (x, length) in lengths.iter().enumerate() {
            let at = (left + cell.0 * x as i32 + cell.0 / 2, 20);
            area.draw(&Text::new(format!("{length}"), at, axis.clone()))?;
        }
        for (y, depth) in depths.iter().enumerate() {
            let at_y = top + cell.1 * y as i32;
            area.draw(&Text::new(
                format!("{depth} %"),
                (32, at_y + cell.1 / 2),
                axis.clone(),
            ))?;
            for (x, length) in lengths.iter().enumerate() {
                let here = rows
                    .iter()
                    .copied()
                    .filter(|row| row.length as f64 == *length && row.depth == *depth);
                let Some(score) = table::mean(here, |row| row.f1) else {
                    continue;
                };
                let at_x = left + cell.0 * x as i32;
                let shape = Rectangle::new(
                    [(at_x + 1, at_y + 1), (at_x + cell.0 - 1, at_y + cell.1 - 1)],
                    color(score).filled(),
                );
                area.draw(&shape)?;
                let ink = if score > 0.55 {
                    RGBColor(30, 30, 30)
                } else {
                    WHITE
                };
                let at = (at_x + cell.0 / 2, at_y + cell.1 / 2);
                area.draw(&Text::new(
                    format!("{:.0}", score * 100.0),
                    at,
                    centered(13.0, ink),
                ))?;
            }
        }
        area.present()?;
    }
    Ok(svg)
}

/// The cividis scale in five steps, linearly between them (Nuñez et al. 2018, doi 10.1371/journal.pone.0199239).
fn color(score: f64) -> RGBColor {
    const STEPS: [(f64, f64, f64); 5] = [
        (0.0, 34.0, 78.0),
        (65.0, 77.0, 107.0),
        (124.0, 123.0, 120.0),
        (188.0, 175.0, 111.0),
        (254.0, 232.0, 56.0),
    ];
    let at = score.clamp(0.0, 1.0) * 4.0;
    let below = (at as usize).min(3);
    let (a, b, part) = (STEPS[below], STEPS[below + 1], at - below as f64);
    let mix = |a: f64, b: f64| (a + (b - a) * part).round() as u8;
    RGBColor(mix(a.0, b.0), mix(a.1, b.1), mix(a.2, b.2))
}
