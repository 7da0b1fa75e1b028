//! Colours that people with any common kind of colour vision can tell apart, and marks for those who see none.

use plotters::style::RGBColor;

/// After Okabe and Ito (2008), "Color Universal Design", as dark as text on white has to be.
const LINES: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(178, 76, 0),
    RGBColor(0, 121, 88),
    RGBColor(163, 65, 122),
    RGBColor(138, 96, 0),
    RGBColor(88, 74, 190),
    RGBColor(90, 90, 90),
];

/// The methods that have a colour and a mark of their own.
const KNOWN: [&str; 6] = [
    "headkv",
    "snapkv",
    "adakv",
    "pyramidkv",
    "streaming",
    "headkv-plus",
];

/// The shape of a method's points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mark {
    /// A disc.
    Disc,
    /// A triangle that stands on its base.
    Triangle,
    /// A square.
    Square,
    /// A cross like a multiplication sign.
    Cross,
    /// A plus sign.
    Plus,
    /// A square on its corner.
    Diamond,
    /// A triangle on its tip.
    Wedge,
}

const MARKS: [Mark; 7] = [
    Mark::Disc,
    Mark::Triangle,
    Mark::Square,
    Mark::Cross,
    Mark::Plus,
    Mark::Diamond,
    Mark::Wedge,
];

/// A method's colour, the same in all charts.
pub fn method(name: &str) -> RGBColor {
    match place(name) {
        None if name == "full" => RGBColor(40, 40, 40),
        place => LINES[place.unwrap_or(KNOWN.len())],
    }
}

/// A method's mark, the same in all charts.
pub fn mark(name: &str) -> Mark {
    MARKS[place(name).unwrap_or(KNOWN.len())]
}

fn place(name: &str) -> Option<usize> {
    KNOWN.iter().position(|known| *known == name)
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

const BLACK: RGBColor = RGBColor(0, 0, 0);
const WHITE: RGBColor = RGBColor(255, 255, 255);

/// The colour of a value from 0 to 1, and one for text on it.
pub fn heat(value: f64) -> (RGBColor, RGBColor) {
    let place = value.clamp(0.0, 1.0) * (CIVIDIS.len() - 1) as f64;
    let at = (place as usize).min(CIVIDIS.len() - 2);
    let part = place - at as f64;
    let (a, b) = (CIVIDIS[at], CIVIDIS[at + 1]);
    let mix = |a: u8, b: u8| (f64::from(a) + part * (f64::from(b) - f64::from(a))).round() as u8;
    let color = RGBColor(mix(a.0, b.0), mix(a.1, b.1), mix(a.2, b.2));
    let text = if contrast(color, BLACK) > contrast(color, WHITE) {
        BLACK
    } else {
        WHITE
    };
    (color, text)
}

/// The contrast of two colours, 1 to 21 (WCAG 2, contrast ratio).
fn contrast(a: RGBColor, b: RGBColor) -> f64 {
    let light = |RGBColor(r, g, b): RGBColor| {
        let linear = |part: u8| {
            let part = f64::from(part) / 255.0;
            if part <= 0.04045 {
                part / 12.92
            } else {
                ((part + 0.055) / 1.055).powf(2.4)
            }
        };
        0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b)
    };
    let (a, b) = (light(a), light(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What WCAG 2 asks of text of any size.
    const ENOUGH: f64 = 4.5;

    #[test]
    fn everything_that_is_written_can_be_read() {
        assert!((contrast(BLACK, WHITE) - 21.0).abs() < 1e-9);
        for name in KNOWN.into_iter().chain(["full", "another"]) {
            let found = contrast(method(name), WHITE);
            assert!(found >= ENOUGH, "{name}: {found:.2}");
        }
        for step in 0..=100 {
            let (color, text) = heat(f64::from(step) / 100.0);
            let found = contrast(color, text);
            assert!(found >= ENOUGH, "{step} %: {found:.2}");
        }
    }

    #[test]
    fn the_pages_own_colours_can_be_read() {
        let page = include_str!("report.html");
        let color = |name: &str| {
            let at = page.find(&format!("--{name}: #")).unwrap() + name.len() + 5;
            let part = |at: usize| u8::from_str_radix(&page[at..at + 2], 16).unwrap();
            RGBColor(part(at), part(at + 2), part(at + 4))
        };
        for text in ["ink", "soft", "accent"] {
            for ground in ["page", "tint"] {
                let found = contrast(color(text), color(ground));
                assert!(found >= ENOUGH, "{text} on {ground}: {found:.2}");
            }
        }
    }

    #[test]
    fn every_method_has_a_mark_of_its_own() {
        let marks: Vec<_> = KNOWN.map(mark).to_vec();
        for (at, one) in marks.iter().enumerate() {
            assert!(!marks[..at].contains(one) && *one != mark("another"));
        }
    }
}
