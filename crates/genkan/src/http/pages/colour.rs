//! The operator's colour, adjusted until text on it has enough contrast (WCAG 2.2, 1.4.3).

use crate::config::Colour;

/// The colours of light and of dark pages.
#[derive(Clone, Debug)]
pub(super) struct Palette {
    pub(super) light: Shades,
    pub(super) dark: Shades,
}

#[derive(Clone, Debug)]
pub(super) struct Shades {
    /// The colour of buttons.
    pub(super) brand: Colour,
    /// The colour of text on buttons.
    pub(super) on_brand: Colour,
    /// The colour of links and of the keyboard focus.
    pub(super) accent: Colour,
    /// The colour of the background, with white text on it.
    pub(super) wall: Colour,
}

impl Palette {
    pub(super) fn of(colour: Colour) -> Self {
        let brand = toward(colour, BLACK, &[WHITE]);
        let light = Shades {
            brand,
            on_brand: WHITE,
            accent: toward(colour, BLACK, &[LIGHT_PAPER, WHITE, LIGHT_FLOOR]),
            wall: brand,
        };
        let bright = toward(colour, WHITE, &[DARK_SHEET, INK]);
        let dark = Shades {
            brand: bright,
            on_brand: INK,
            accent: bright,
            wall: toward(mix(colour, BLACK, 110), BLACK, &[WHITE]),
        };
        Self { light, dark }
    }
}

/// Mixes a colour with `end` until each of `against` has enough contrast with it.
fn toward(colour: Colour, end: Colour, against: &[Colour]) -> Colour {
    let readable = |mixed: Colour| against.iter().all(|other| contrast(mixed, *other) >= READABLE);
    // The first mix that is readable is the one closest to the operator's colour.
    (0..=u8::MAX).map(|part| mix(colour, end, part)).find(|mixed| readable(*mixed)).unwrap_or(end)
}

/// Mixes two colours. `part` of 255 is the other colour.
fn mix(one: Colour, other: Colour, part: u8) -> Colour {
    let part = u16::from(part);
    let channel = |one: u8, other: u8| {
        let mixed = (u16::from(one) * (255 - part) + u16::from(other) * part) / 255;
        u8::try_from(mixed).unwrap_or(u8::MAX)
    };
    Colour {
        red: channel(one.red, other.red),
        green: channel(one.green, other.green),
        blue: channel(one.blue, other.blue),
    }
}

fn contrast(one: Colour, other: Colour) -> f64 {
    // The formulas and constants of WCAG 2.2, "contrast ratio" and "relative luminance".
    let (one, other) = (luminance(one) + 0.05, luminance(other) + 0.05);
    if one > other { one / other } else { other / one }
}

fn luminance(colour: Colour) -> f64 {
    let channel = |value: u8| {
        let value = f64::from(value) / 255.0;
        if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * channel(colour.red) + 0.7152 * channel(colour.green) + 0.0722 * channel(colour.blue)
}

const fn rgb(red: u8, green: u8, blue: u8) -> Colour {
    Colour { red, green, blue }
}

/// A little over the required 4.5.
const READABLE: f64 = 4.7;
const WHITE: Colour = rgb(0xff, 0xff, 0xff);
const BLACK: Colour = rgb(0, 0, 0);
/// The paper colour of light pages, as in `style.css`.
const LIGHT_PAPER: Colour = rgb(0xf6, 0xf2, 0xe9);
const LIGHT_FLOOR: Colour = rgb(0xe9, 0xdf, 0xcd);
const DARK_SHEET: Colour = rgb(0x22, 0x20, 0x1b);
const INK: Colour = rgb(0x18, 0x17, 0x13);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contrast_is_that_of_the_guidelines() {
        assert!((contrast(WHITE, BLACK) - 21.0).abs() < 0.01);
        assert!((contrast(rgb(0x76, 0x76, 0x76), WHITE) - 4.54).abs() < 0.01);
    }

    #[test]
    fn any_colour_ends_readable() {
        for text in ["#ffffff", "#000000", "#ffff00", "#00ff00", "#3b6e5a", "#ff0000", "#0000ff", "#808080"] {
            let palette = Palette::of(text.parse().unwrap());
            for shades in [&palette.light, &palette.dark] {
                assert!(contrast(shades.brand, shades.on_brand) >= 4.5, "{text}");
                assert!(contrast(shades.wall, WHITE) >= 4.5, "{text}");
            }
            for paper in [LIGHT_PAPER, LIGHT_FLOOR, WHITE] {
                assert!(contrast(palette.light.accent, paper) >= 4.5, "{text}");
            }
            assert!(contrast(palette.dark.accent, DARK_SHEET) >= 4.5, "{text}");
        }
    }

    #[test]
    fn the_fixed_colours_are_readable_and_in_the_style_sheet() {
        let style = include_str!("../../../templates/pages/style.css");
        let light = ["#5d564b", "#a1231b", "#20603a", "#25221d"];
        let dark = ["#bdb4a5", "#ffb1a6", "#9bd8b0", "#f1ece1"];
        for (texts, papers) in
            [(light, ["#f6f2e9", "#fffdf8", "#fdf0ed"]), (dark, ["#181713", "#22201b", "#3a1d19"])]
        {
            for text in texts {
                assert!(style.contains(text), "{text}");
                for paper in papers {
                    assert!(style.contains(paper), "{paper}");
                    let found = contrast(text.parse().unwrap(), paper.parse().unwrap());
                    assert!(found >= 4.5, "{text} on {paper}: {found}");
                }
            }
        }
        // The border of a field needs contrast too (1.4.11).
        for (line, paper) in [("#857c6d", "#fffdf8"), ("#857c6d", "#f6f2e9"), ("#8f8677", "#22201b")] {
            assert!(style.contains(line));
            assert!(contrast(line.parse().unwrap(), paper.parse().unwrap()) >= 3.0, "{line} on {paper}");
        }
        // The footer's soft text on its background.
        assert!(contrast("#5d564b".parse().unwrap(), LIGHT_FLOOR) >= 4.5);
    }
}
