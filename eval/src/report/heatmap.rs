//! Heat maps as inline SVG.

use super::{
    charts::{FONT, draw},
    figures::Map,
    palette,
};
use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

const LEFT: i32 = 58;
const BOTTOM: i32 = 42;

/// The map; none if it cannot be drawn.
pub fn heatmap(map: &Map) -> Option<String> {
    let wide = if map.across.len() > 16 { 26 } else { 46 };
    let high = if map.down.len() > 16 { 18 } else { 26 };
    let (width, height) = (wide * map.across.len() as i32, high * map.down.len() as i32);
    let size = ((LEFT + width + 6) as u32, (height + BOTTOM) as u32);
    draw(size, |area| {
        let label =
            |color: &RGBColor, h, v| (FONT, 12).into_font().color(color).pos(Pos::new(h, v));
        let ink = RGBColor(60, 60, 60);
        for (row, (name, cells)) in map.down.iter().zip(&map.cells).enumerate() {
            let y = row as i32 * high;
            let style = label(&ink, HPos::Right, VPos::Center);
            area.draw_text(name, &style, (LEFT - 6, y + high / 2))?;
            for (column, cell) in cells.iter().enumerate() {
                let Some(cell) = cell else { continue };
                let x = LEFT + column as i32 * wide;
                let (fill, ink) = palette::heat(cell.shade);
                let corners = [(x, y), (x + wide - 1, y + high - 1)];
                area.draw(&Rectangle::new(corners, fill.filled()))?;
                let style = label(&ink, HPos::Center, VPos::Center);
                area.draw_text(&cell.text, &style, (x + wide / 2, y + high / 2))?;
            }
        }
        let below = label(&ink, HPos::Center, VPos::Top);
        for (column, name) in map.across.iter().enumerate() {
            let x = LEFT + column as i32 * wide + wide / 2;
            area.draw_text(name, &below, (x, height + 5))?;
        }
        area.draw_text(map.across_name, &below, (LEFT + width / 2, height + 22))?;
        let beside = label(&ink, HPos::Left, VPos::Top);
        area.draw_text(map.down_name, &beside, (2, height + 5))?;
        Ok(())
    })
}
