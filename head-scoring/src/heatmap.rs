//! Heatmaps of head scores, layers x heads, for the terminal and as SVG.

use crate::Error;
use headkv_files::{terminal, whole};
use headkv_plugin::HeadScores;
use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};
use std::{fmt::Write, path::Path};

/// From nothing to the largest score.
const SHADES: [char; 5] = ['·', '░', '▒', '▓', '█'];

/// One character per head, its shade the score's share of the largest.
pub fn text(scores: &HeadScores) -> String {
    let most = largest(scores);
    let mut text = format!(
        "layer  heads 0 to {} ({} 0 to {} {most:.4})\n",
        scores.heads() - 1,
        SHADES[0],
        SHADES[4]
    );
    for (layer, heads) in scores.values().chunks(scores.heads()).enumerate() {
        let shade =
            |score: &f64| SHADES[((score / most) * (SHADES.len() - 1) as f64).ceil() as usize];
        let _ = writeln!(
            text,
            "{layer:>5}  {}",
            heads.iter().map(shade).collect::<String>()
        );
    }
    text
}

/// Pixels of one head's square.
const CELL: i32 = 18;
/// Pixels around the squares.
const MARGIN: i32 = 48;
/// Pixels of the title.
const TITLE: i32 = 20;
/// Pixels between squares and the colour scale, and the scale's width.
const SCALE: i32 = 16;

/// Writes a heatmap as SVG; dark is little, bright is much (viridis, which colour-blind people read too).
///
/// # Errors
/// [`Error::Draw`], [`Error::Files`].
pub fn svg(scores: &HeadScores, title: &str, path: &Path) -> Result<(), Error> {
    let svg = draw(scores, &terminal::one_line(title)).map_err(|e| Error::Draw(e.to_string()))?;
    Ok(whole::write(path, svg)?)
}

fn draw(scores: &HeadScores, title: &str) -> Result<String, Box<dyn std::error::Error>> {
    let (layers, heads) = (scores.layers() as i32, scores.heads() as i32);
    let most = largest(scores);
    let (left, top) = (MARGIN, MARGIN + TITLE);
    let size = (
        (left + heads * CELL + 2 * SCALE + MARGIN) as u32,
        (top + layers * CELL + MARGIN) as u32,
    );
    let colour = |part: f64| ViridisRGB::get_color(part);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&WHITE)?;
        let label = |anchor: HPos| {
            ("sans-serif", 12)
                .into_font()
                .color(&BLACK)
                .pos(Pos::new(anchor, VPos::Center))
        };
        root.draw(&Text::new(
            title.to_string(),
            (left, TITLE),
            ("sans-serif", 14).into_font(),
        ))?;
        for (at, score) in scores.values().iter().enumerate() {
            let (x, y) = (
                left + at as i32 % heads * CELL,
                top + at as i32 / heads * CELL,
            );
            root.draw(&Rectangle::new(
                [(x, y), (x + CELL, y + CELL)],
                colour(score / most).filled(),
            ))?;
        }
        for layer in (0..layers).step_by(step(layers)) {
            let at = (left - 6, top + layer * CELL + CELL / 2);
            root.draw(&Text::new(layer.to_string(), at, label(HPos::Right)))?;
        }
        for head in (0..heads).step_by(step(heads)) {
            let at = (left + head * CELL + CELL / 2, top - 8);
            root.draw(&Text::new(head.to_string(), at, label(HPos::Center)))?;
        }
        let bottom = top + layers * CELL;
        root.draw(&Text::new(
            "layer (down), head (across)",
            (left, bottom + 14),
            label(HPos::Left),
        ))?;
        let x = left + heads * CELL + SCALE;
        for y in top..bottom {
            let part = f64::from(bottom - y) / f64::from(bottom - top);
            root.draw(&Rectangle::new(
                [(x, y), (x + SCALE, y + 1)],
                colour(part).filled(),
            ))?;
        }
        root.draw(&Text::new(
            format!("{most:.2}"),
            (x + SCALE + 4, top + 6),
            label(HPos::Left),
        ))?;
        root.draw(&Text::new(
            "0".to_string(),
            (x + SCALE + 4, bottom - 6),
            label(HPos::Left),
        ))?;
        root.present()?;
    }
    Ok(svg)
}

/// Every how manieth row or column is named.
fn step(count: i32) -> usize {
    if count > 16 { 4 } else { 1 }
}

fn largest(scores: &HeadScores) -> f64 {
    scores.values().iter().copied().fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores() -> HeadScores {
        HeadScores::new(2, 3, vec![0.0, 0.01, 0.5, 1.0, 0.3, 0.75]).unwrap()
    }

    #[test]
    fn shades_follow_the_scores() {
        insta::assert_snapshot!(text(&scores()), @r"
        layer  heads 0 to 2 (· 0 to █ 1.0000)
            0  ·░▒
            1  █▒▓
        ");
    }

    #[test]
    fn the_svg_has_a_square_per_head() {
        let svg = draw(&scores(), "tiny <retrieval>").unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("tiny &lt;retrieval&gt;"));
        assert_eq!(svg.matches("width=\"18\" height=\"18\"").count(), 6);
        // The largest score, layer 1 and head 0, has viridis's last colour.
        let brightest =
            "x=\"48\" y=\"86\" width=\"18\" height=\"18\" opacity=\"1\" fill=\"#FEE825\"";
        assert!(svg.contains(brightest), "{svg}");
    }
}
