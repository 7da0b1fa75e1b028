//! Colours that people with any common kind of colour vision can tell apart.

use plotters::style::RGBColor;

/// Okabe and Ito (2008), "Color Universal Design", without black and yellow; black is for `full`.
const LINES: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// A method's colour, the same in all charts.
pub fn method(name: &str) -> RGBColor {
    let known = ["headkv", "snapkv", "adakv", "pyramidkv", "streaming"];
    match known.iter().position(|known| *known == name) {
        Some(at) => LINES[at],
        None if name == "full" => RGBColor(40, 40, 40),
        None => LINES[5],
    }
}

/// Anchors of cividis (Nuñez, Anderton and Renslow 2018), dark blue to yellow.
const CIVIDIS: [(u8, u8, u8); 6] = [
    (0, 34, 78),
    (53, 69, 108),
    (102, 105, 112),
    (148, 142, 119),
    (200, 184, 102),
    (254, 232, 56),
];

/// The colours of [`heat`] from 0 to 1, as CSS writes them.
pub fn shades() -> Vec<String> {
    let css = |(r, g, b): (u8, u8, u8)| format!("#{r:02x}{g:02x}{b:02x}");
    CIVIDIS.map(css).to_vec()
}

/// The colour of a value from 0 to 1, and one for text on it.
pub fn heat(value: f64) -> (RGBColor, RGBColor) {
    let place = value.clamp(0.0, 1.0) * (CIVIDIS.len() - 1) as f64;
    let at = (place as usize).min(CIVIDIS.len() - 2);
    let part = place - at as f64;
    let (a, b) = (CIVIDIS[at], CIVIDIS[at + 1]);
    let mix = |a: u8, b: u8| (f64::from(a) + part * (f64::from(b) - f64::from(a))).round() as u8;
    let text = if value > 0.5 {
        RGBColor(20, 20, 20)
    } else {
        RGBColor(255, 255, 255)
    };
    (RGBColor(mix(a.0, b.0), mix(a.1, b.1), mix(a.2, b.2)), text)
}
