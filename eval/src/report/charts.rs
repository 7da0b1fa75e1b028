//! Charts as inline SVG.

use super::{
    numbers::{Table, by_variant},
    palette,
};
use crate::{Row, store::Heads};
use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};
use std::collections::BTreeSet;

type Drawn = Result<(), Box<dyn std::error::Error>>;
const FONT: &str = "sans-serif";

/// A named line of a chart: points (x, score in percent).
struct Series {
    name: String,
    method: String,
    points: Vec<(f64, f64)>,
}

/// Average score against capacity, one line per method, where there are several capacities.
pub fn by_capacity(table: &Table) -> Option<String> {
    let x = |line: &super::Line| line.variant.capacity.map(|tokens| tokens as f64);
    curves(
        table,
        "tokens kept per head",
        &x,
        &|line| match line.variant.beta {
            Some(beta) => format!("{} beta {beta}", line.variant.method),
            None => line.variant.method.clone(),
        },
    )
}

/// Average score against beta, one line per capacity, where there are several betas.
pub fn by_beta(table: &Table) -> Option<String> {
    let x = |line: &super::Line| line.variant.beta;
    curves(table, "beta", &x, &|line| {
        format!(
            "{}@{}",
            line.variant.method,
            line.variant.capacity.unwrap_or_default()
        )
    })
}

fn curves(
    table: &Table,
    label: &str,
    x: &dyn Fn(&super::Line) -> Option<f64>,
    name: &dyn Fn(&super::Line) -> String,
) -> Option<String> {
    let mut series: Vec<Series> = Vec::new();
    for line in &table.lines {
        let Some(at) = x(line) else { continue };
        let name = name(line);
        let point = (at, line.average);
        match series.iter_mut().find(|series| series.name == name) {
            Some(series) => series.points.push(point),
            None => series.push(Series {
                name,
                method: line.variant.method.clone(),
                points: vec![point],
            }),
        }
    }
    for series in &mut series {
        series.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    if series.iter().all(|series| series.points.len() < 2) {
        return None;
    }
    let full = table
        .lines
        .iter()
        .find(|line| line.variant.method == "full")
        .map(|line| line.average);
    draw((560, 340), |area| draw_curves(area, label, &series, full))
}

fn draw_curves(
    area: &DrawingArea<SVGBackend, Shift>,
    label: &str,
    series: &[Series],
    full: Option<f64>,
) -> Drawn {
    // Places are spaced evenly: capacities and betas both grow by factors.
    let mut places: Vec<f64> = series
        .iter()
        .flat_map(|s| s.points.iter().map(|p| p.0))
        .collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    let last = (places.len() - 1) as f64;
    let place = |x: f64| places.iter().position(|p| *p == x).unwrap_or(0) as f64;
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .margin_right(150)
        .x_label_area_size(42)
        .y_label_area_size(46)
        .build_cartesian_2d(-0.15..last + 0.15, 0.0..103.0)?;
    let names = |at: &f64| {
        let near = at.round();
        let exact = (at - near).abs() < 1e-6 && near >= 0.0;
        places
            .get(near as usize)
            .filter(|_| exact)
            .map_or(String::new(), |x| x.to_string())
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(225, 225, 225))
        .axis_style(RGBColor(120, 120, 120))
        .x_desc(label)
        .y_desc("average score")
        .x_labels(places.len() * 4)
        .x_label_formatter(&names)
        .label_style((FONT, 13))
        .axis_desc_style((FONT, 14))
        .draw()?;
    let mut labels: Vec<(f64, String, RGBColor)> = Vec::new();
    if let Some(full) = full {
        let grey = palette::method("full");
        chart.draw_series(DashedLineSeries::new(
            [(-0.15, full), (last + 0.15, full)],
            5,
            4,
            grey.stroke_width(2),
        ))?;
        labels.push((full, "full".into(), grey));
    }
    for (at, series) in series.iter().enumerate() {
        let color = palette::method(&series.method);
        let points: Vec<_> = series.points.iter().map(|&(x, y)| (place(x), y)).collect();
        chart.draw_series(LineSeries::new(
            points.iter().copied(),
            color.stroke_width(2),
        ))?;
        // Shapes differ too, so that colour is not the only key.
        for &point in &points {
            match at % 3 {
                0 => chart.draw_series([Circle::new(point, 4, color.filled())])?,
                1 => chart.draw_series([TriangleMarker::new(point, 6, color.filled())])?,
                _ => chart.draw_series([Cross::new(point, 5, color.stroke_width(2))])?,
            };
        }
        if let Some(&(_, y)) = points.last() {
            labels.push((y, series.name.clone(), color));
        }
    }
    // Names stand at the lines' right ends, apart from each other.
    labels.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut above = f64::INFINITY;
    for (y, name, color) in labels {
        let y = y.min(above - 6.0);
        above = y;
        let (x, y) = chart.backend_coord(&(last + 0.15, y));
        let style = (FONT, 13)
            .into_font()
            .color(&color)
            .pos(Pos::new(HPos::Left, VPos::Center));
        area.draw_text(&name, &style, (x + 8, y))?;
    }
    Ok(())
}

/// One depth x length heatmap per variant of a needle test.
pub fn needle_maps(rows: &[&Row]) -> Vec<(String, String)> {
    let lengths: BTreeSet<usize> = rows.iter().filter_map(|row| row.length).collect();
    let mut depths: Vec<f64> = rows.iter().filter_map(|row| row.depth).collect();
    depths.sort_by(f64::total_cmp);
    depths.dedup();
    let maps = by_variant(rows).into_iter().filter_map(|(variant, rows)| {
        let cell = |depth: f64, length: usize| {
            let here = rows
                .iter()
                .filter(|row| row.depth == Some(depth) && row.length == Some(length));
            let scores: Vec<f64> = here.map(|row| row.score).collect();
            (!scores.is_empty()).then(|| scores.iter().sum::<f64>() / scores.len() as f64)
        };
        let table = depths
            .iter()
            .map(|&depth| lengths.iter().map(|&length| cell(depth, length)).collect())
            .collect();
        let map = Heatmap {
            across: lengths.iter().map(|length| length.to_string()).collect(),
            down: depths.iter().map(|depth| format!("{depth} %")).collect(),
            across_name: "tokens of context",
            down_name: "depth",
            cells: table,
            text: |share| format!("{:.0}", 100.0 * share),
        };
        Some((variant.to_string(), map.draw()?))
    });
    maps.collect()
}

/// What each head of each layer keeps.
pub fn head_map(heads: &Heads) -> Option<String> {
    let most = heads
        .capacities
        .iter()
        .flatten()
        .copied()
        .max()
        .filter(|most| *most > 0)?;
    let count = heads.capacities.iter().map(Vec::len).max()?;
    // The square root tells small capacities apart: importance is very uneven.
    let share = |tokens: usize| (tokens as f64 / most as f64).sqrt();
    let map = Heatmap {
        across: (0..heads.capacities.len())
            .map(|layer| layer.to_string())
            .collect(),
        down: (0..count).map(|head| head.to_string()).collect(),
        across_name: "layer",
        down_name: "head",
        cells: (0..count)
            .map(|h| {
                heads
                    .capacities
                    .iter()
                    .map(|layer| layer.get(h).map(|&t| share(t)))
                    .collect()
            })
            .collect(),
        text: |_| String::new(),
    };
    map.with_text(|row, column| {
        heads.capacities[column]
            .get(row)
            .map(|tokens| tokens.to_string())
            .unwrap_or_default()
    })
}

struct Heatmap {
    across: Vec<String>,
    down: Vec<String>,
    across_name: &'static str,
    down_name: &'static str,
    /// 0 to 1, `[down][across]`; none is left blank.
    cells: Vec<Vec<Option<f64>>>,
    text: fn(f64) -> String,
}

impl Heatmap {
    fn draw(&self) -> Option<String> {
        self.with_text(|row, column| self.cells[row][column].map(self.text).unwrap_or_default())
    }

    fn with_text(&self, text: impl Fn(usize, usize) -> String) -> Option<String> {
        const LEFT: i32 = 58;
        const BOTTOM: i32 = 42;
        let wide = if self.across.len() > 16 { 26 } else { 46 };
        let high = if self.down.len() > 16 { 18 } else { 26 };
        let (width, height) = (
            wide * self.across.len() as i32,
            high * self.down.len() as i32,
        );
        draw(
            ((LEFT + width + 6) as u32, (height + BOTTOM) as u32),
            |area| {
                let label = |color: &RGBColor, h, v| {
                    (FONT, 12).into_font().color(color).pos(Pos::new(h, v))
                };
                let ink = RGBColor(60, 60, 60);
                for (row, cells) in self.cells.iter().enumerate() {
                    let y = row as i32 * high;
                    let name = label(&ink, HPos::Right, VPos::Center);
                    area.draw_text(&self.down[row], &name, (LEFT - 6, y + high / 2))?;
                    for (column, value) in cells.iter().enumerate() {
                        let Some(value) = value else { continue };
                        let x = LEFT + column as i32 * wide;
                        let (fill, ink) = palette::heat(*value);
                        area.draw(&Rectangle::new(
                            [(x, y), (x + wide - 1, y + high - 1)],
                            fill.filled(),
                        ))?;
                        let style = label(&ink, HPos::Center, VPos::Center);
                        area.draw_text(&text(row, column), &style, (x + wide / 2, y + high / 2))?;
                    }
                }
                for (column, name) in self.across.iter().enumerate() {
                    let x = LEFT + column as i32 * wide + wide / 2;
                    area.draw_text(name, &label(&ink, HPos::Center, VPos::Top), (x, height + 5))?;
                }
                let middle = (LEFT + width / 2, height + 22);
                area.draw_text(
                    self.across_name,
                    &label(&ink, HPos::Center, VPos::Top),
                    middle,
                )?;
                area.draw_text(
                    self.down_name,
                    &label(&ink, HPos::Left, VPos::Top),
                    (2, height + 5),
                )?;
                Ok(())
            },
        )
    }
}

/// Draws into an SVG text; a chart that cannot be drawn is left out.
fn draw(
    size: (u32, u32),
    content: impl FnOnce(&DrawingArea<SVGBackend, Shift>) -> Drawn,
) -> Option<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let drawn = content(&area).and_then(|()| area.present().map_err(Into::into));
        if let Err(e) = drawn {
            tracing::warn!("a chart could not be drawn: {e}");
            return None;
        }
    }
    Some(svg)
}
