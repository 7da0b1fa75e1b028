//! Line charts as inline SVG.

use super::{
    figures::{Curves, Series},
    palette::{self, Mark},
};
use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

type Drawn = Result<(), Box<dyn std::error::Error>>;
pub(super) const FONT: &str = "sans-serif";
/// Pixels of a letter of a line's name.
const LETTER: u32 = 7;
/// The upper end of the scores' axis, in percent.
const HIGHEST: f64 = 103.0;

/// The curves; none if they cannot be drawn.
pub fn chart(curves: &Curves) -> Option<String> {
    let names = curves.series.iter().map(|series| series.name.len());
    let margin = LETTER * names.max().unwrap_or(0).max(4) as u32 + 30;
    draw((320 + margin, 300), |area| {
        draw_curves(area, curves, margin)
    })
}

/// Where a chart's places are, from left to right, and what stands below some of them.
struct Across {
    /// Whether places are spaced by factors; otherwise evenly, since capacities and betas both grow by factors.
    log: bool,
    places: Vec<f64>,
    ends: (f64, f64),
    labels: Vec<(f64, String)>,
}

impl Across {
    fn new(curves: &Curves) -> Self {
        let points = curves.series.iter().flat_map(|series| &series.points);
        let mut places: Vec<f64> = points.map(|point| point.x).collect();
        places.sort_by(f64::total_cmp);
        places.dedup();
        if !curves.log {
            let names = places.iter().enumerate();
            return Self {
                log: false,
                ends: (-0.15, places.len().saturating_sub(1) as f64 + 0.15),
                labels: names.map(|(at, x)| (at as f64, x.to_string())).collect(),
                places,
            };
        }
        let low = places.first().copied().unwrap_or(1.0).max(1e-3);
        let high = places.last().copied().unwrap_or(1.0).max(2.0 * low);
        let steps = (-3..4).flat_map(|power| [1.0, 2.0, 5.0].map(|n| n * 10f64.powi(power)));
        let inside = steps.filter(|x| (0.6 * low..=1.7 * high).contains(x));
        Self {
            log: true,
            ends: ((0.6 * low).log10(), (1.7 * high).log10()),
            labels: inside.map(|x| (x.log10(), format!("{x} %"))).collect(),
            places,
        }
    }

    fn of(&self, x: f64) -> f64 {
        if self.log {
            return x.max(1e-3).log10();
        }
        self.places.iter().position(|p| *p == x).unwrap_or(0) as f64
    }
}

fn draw_curves(area: &DrawingArea<SVGBackend, Shift>, curves: &Curves, margin: u32) -> Drawn {
    let across = Across::new(curves);
    let (left, right) = across.ends;
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .margin_right(margin)
        .x_label_area_size(42)
        .y_label_area_size(46)
        .build_cartesian_2d(left..right, 0.0..HIGHEST)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(225, 225, 225))
        .axis_style(RGBColor(120, 120, 120))
        .x_desc(curves.x)
        .y_desc("average score")
        .x_labels(0)
        .label_style((FONT, 13))
        .axis_desc_style((FONT, 14))
        .draw()?;
    let below = (FONT, 13).into_font().color(&RGBColor(60, 60, 60));
    let below = below.pos(Pos::new(HPos::Center, VPos::Top));
    for (at, name) in &across.labels {
        let (x, y) = chart.backend_coord(&(*at, 0.0));
        area.draw(&PathElement::new(
            vec![(x, y), (x, y + 4)],
            RGBColor(120, 120, 120),
        ))?;
        area.draw_text(name, &below, (x, y + 6))?;
    }
    let mut labels: Vec<(f64, &str, &str)> = Vec::new();
    if let Some(full) = curves.full {
        let grey = palette::method("full");
        let ends = [(left, full), (right, full)];
        chart.draw_series(DashedLineSeries::new(ends, 5, 4, grey.stroke_width(2)))?;
        labels.push((full, "full", "full"));
    }
    for (at, series) in curves.series.iter().enumerate() {
        let color = palette::method(&series.method);
        let points: Vec<_> = series
            .points
            .iter()
            .map(|point| (across.of(point.x), point.y))
            .collect();
        // A method's lines share its colour: all but the first are dashed, each a little more.
        match rank(&curves.series, at) {
            0 => chart.draw_series(LineSeries::new(points.clone(), color.stroke_width(2)))?,
            more => chart.draw_series(DashedLineSeries::new(
                points.clone(),
                12 / more.min(4) as u32,
                4,
                color.stroke_width(2),
            ))?,
        };
        for (point, &(x, y)) in series.points.iter().zip(&points) {
            if let (Some(low), Some(high)) = (point.low, point.high) {
                let bar = vec![(x, low), (x, high)];
                chart.draw_series([PathElement::new(bar, color.stroke_width(1))])?;
            }
            mark(area, chart.backend_coord(&(x, y)), &series.method)?;
        }
        if let Some(&(_, y)) = points.last() {
            labels.push((y, &series.name, &series.method));
        }
    }
    labels.sort_by(|a, b| b.0.total_cmp(&a.0));
    let heights = apart(labels.iter().map(|label| label.0).collect());
    for (y, (_, name, method)) in heights.into_iter().zip(labels) {
        let (x, y) = chart.backend_coord(&(right, y));
        let style = (FONT, 13)
            .into_font()
            .color(&palette::method(method))
            .pos(Pos::new(HPos::Left, VPos::Center));
        if method != "full" {
            mark(area, (x + 12, y), method)?;
        }
        area.draw_text(name, &style, (x + 22, y))?;
    }
    Ok(())
}

/// A method's mark, so that colour is not the only key.
fn mark(area: &DrawingArea<SVGBackend, Shift>, (x, y): (i32, i32), method: &str) -> Drawn {
    let color = palette::method(method);
    let shape = |corners: &[(i32, i32)]| {
        let corners: Vec<_> = corners.iter().map(|(dx, dy)| (x + dx, y + dy)).collect();
        Polygon::new(corners, color.filled())
    };
    let stroke = |from: (i32, i32), to: (i32, i32)| {
        let ends = vec![(x + from.0, y + from.1), (x + to.0, y + to.1)];
        PathElement::new(ends, color.stroke_width(2))
    };
    match palette::mark(method) {
        Mark::Disc => area.draw(&Circle::new((x, y), 4, color.filled()))?,
        Mark::Triangle => area.draw(&shape(&[(0, -5), (5, 4), (-5, 4)]))?,
        Mark::Wedge => area.draw(&shape(&[(0, 5), (5, -4), (-5, -4)]))?,
        Mark::Square => area.draw(&shape(&[(-4, -4), (4, -4), (4, 4), (-4, 4)]))?,
        Mark::Diamond => area.draw(&shape(&[(0, -6), (6, 0), (0, 6), (-6, 0)]))?,
        Mark::Cross => {
            area.draw(&stroke((-4, -4), (4, 4)))?;
            area.draw(&stroke((-4, 4), (4, -4)))?;
        }
        Mark::Plus => {
            area.draw(&stroke((-5, 0), (5, 0)))?;
            area.draw(&stroke((0, -5), (0, 5)))?;
        }
    }
    Ok(())
}

/// How many lines of the same method come before this one.
fn rank(series: &[Series], at: usize) -> usize {
    series[..at]
        .iter()
        .filter(|other| other.method == series[at].method)
        .count()
}

/// Heights of the names at the lines' right ends, from the top down: near their lines, apart from each other, and on the
/// picture as far as there is room.
fn apart(mut heights: Vec<f64>) -> Vec<f64> {
    const GAP: f64 = 6.0;
    let mut below = -GAP;
    for height in heights.iter_mut().rev() {
        *height = height.max(below + GAP);
        below = *height;
    }
    let mut above = HIGHEST + GAP;
    for height in &mut heights {
        *height = height.min(above - GAP);
        above = *height;
    }
    heights
}

/// Draws into an SVG text; a picture that cannot be drawn is left out.
pub(super) fn draw(
    size: (u32, u32),
    content: impl FnOnce(&DrawingArea<SVGBackend, Shift>) -> Drawn,
) -> Option<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let drawn = content(&area).and_then(|()| area.present().map_err(Into::into));
        if let Err(e) = drawn {
            tracing::warn!("a picture could not be drawn: {e}");
            return None;
        }
    }
    Some(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_neither_overlap_nor_fall_off() {
        assert_eq!(apart(vec![80.0, 50.0]), [80.0, 50.0]);
        assert_eq!(apart(vec![100.0, 100.0, 100.0]), [103.0, 97.0, 91.0]);
        assert_eq!(apart(vec![1.0, 0.0]), [6.0, 0.0]);
    }
}
