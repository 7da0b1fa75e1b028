//! Line charts as inline SVG.

use super::{
    figures::{Curves, Series},
    palette,
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
    let margin = LETTER * names.max().unwrap_or(0).max(4) as u32 + 16;
    draw((320 + margin, 300), |area| {
        draw_curves(area, curves, margin)
    })
}

fn draw_curves(area: &DrawingArea<SVGBackend, Shift>, curves: &Curves, margin: u32) -> Drawn {
    // Places are spaced evenly: capacities and betas both grow by factors.
    let points = curves.series.iter().flat_map(|series| &series.points);
    let mut places: Vec<f64> = points.map(|point| point.0).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    let last = places.len().saturating_sub(1) as f64;
    let place = |x: f64| places.iter().position(|p| *p == x).unwrap_or(0) as f64;
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .margin_right(margin)
        .x_label_area_size(42)
        .y_label_area_size(46)
        .build_cartesian_2d(-0.15..last + 0.15, 0.0..HIGHEST)?;
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
        .x_desc(curves.x)
        .y_desc("average score")
        .x_labels(places.len() * 4)
        .x_label_formatter(&names)
        .label_style((FONT, 13))
        .axis_desc_style((FONT, 14))
        .draw()?;
    let mut labels: Vec<(f64, &str, RGBColor)> = Vec::new();
    if let Some(full) = curves.full {
        let grey = palette::method("full");
        let ends = [(-0.15, full), (last + 0.15, full)];
        chart.draw_series(DashedLineSeries::new(ends, 5, 4, grey.stroke_width(2)))?;
        labels.push((full, "full", grey));
    }
    for (at, series) in curves.series.iter().enumerate() {
        let color = palette::method(&series.method);
        let points: Vec<_> = series.points.iter().map(|&(x, y)| (place(x), y)).collect();
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
        // Shapes differ too, so that colour is not the only key.
        for &point in &points {
            match at % 3 {
                0 => chart.draw_series([Circle::new(point, 4, color.filled())])?,
                1 => chart.draw_series([TriangleMarker::new(point, 6, color.filled())])?,
                _ => chart.draw_series([Cross::new(point, 5, color.stroke_width(2))])?,
            };
        }
        if let Some(&(_, y)) = points.last() {
            labels.push((y, &series.name, color));
        }
    }
    labels.sort_by(|a, b| b.0.total_cmp(&a.0));
    let heights = apart(labels.iter().map(|label| label.0).collect());
    for (y, (_, name, color)) in heights.into_iter().zip(labels) {
        let (x, y) = chart.backend_coord(&(last + 0.15, y));
        let style = (FONT, 13)
            .into_font()
            .color(&color)
            .pos(Pos::new(HPos::Left, VPos::Center));
        area.draw_text(name, &style, (x + 8, y))?;
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
