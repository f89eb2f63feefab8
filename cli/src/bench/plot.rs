//! Pictures of a record: a roofline with every call as a point, time against length, paths side by side.
//!
//! SVG or PNG by the name's ending; a part of the name says which picture it is.

use std::path::{Path, PathBuf};

use heedful::{Error, Shape};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::rows::{Record, Row, Verdict};
use crate::Outcome;
use crate::outputs::put;
use crate::picture::{png, register_font, svg};

mod lengths;
mod paths;
mod roofline;

type Drawn = Result<(), String>;

/// What a picture is drawn on.
type Area<'a, B> = DrawingArea<B, Shift>;

const SIZE: (u32, u32) = (1200, 760);
const INK: RGBColor = RGBColor(38, 43, 51);
const FAINT: RGBColor = RGBColor(222, 226, 232);
const GREY: RGBColor = RGBColor(140, 146, 156);

/// Colours that are told apart in print and by colour-blind readers (Okabe and Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
];

/// Refuses a name that says no kind of picture.
pub(super) fn known(path: &Path) -> Outcome {
    let kind = path.extension().and_then(|x| x.to_str());
    if matches!(kind, Some("svg" | "png")) {
        return Ok(());
    }
    let wanted = "a name that ends in .svg or .png";
    Err(Error::invalid("--plot", path.display().to_string(), wanted).into())
}

/// Draws every picture that the record has something for: `NAME-roofline`, `NAME-lengths`, `NAME-paths`.
pub(super) fn write(path: &Path, record: &Record) -> Outcome<Vec<PathBuf>> {
    register_font()?;
    let mut written = Vec::new();
    let series = lengths::series(record);
    let pictures: [(&str, bool); 3] = [
        ("roofline", record.provenance.roofline.is_some()),
        ("lengths", !series.is_empty()),
        ("paths", record.rows.iter().any(|row| row.verdict == Verdict::Ok)),
    ];
    for (name, _) in pictures.iter().filter(|(_, any)| *any) {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let kind = path.extension().unwrap_or_default().to_string_lossy();
        let place = path.with_file_name(format!("{stem}-{name}.{kind}"));
        let size = if *name == "paths" { paths::size(record) } else { SIZE };
        let drawn = if kind == "png" {
            png(size, |area| draw(name, record, &series, area))
        } else {
            svg(size, |area| draw(name, record, &series, area))
        };
        let refuse =
            |e| Error::invalid(place.display().to_string(), e, "a picture that can be drawn");
        put(&place, &drawn.map_err(refuse)?)?;
        written.push(place);
    }
    Ok(written)
}

fn draw<B: DrawingBackend>(
    name: &str,
    record: &Record,
    series: &[lengths::Series],
    area: &Area<'_, B>,
) -> Drawn {
    area.fill(&WHITE).map_err(|e| e.to_string())?;
    let drawn = match name {
        "roofline" => roofline::draw(record, area),
        "lengths" => lengths::draw(record, series, area),
        _ => paths::draw(record, area),
    };
    drawn?;
    area.present().map_err(|e| e.to_string())
}

/// Text in the built-in font.
fn font(size: u32, colour: RGBColor) -> TextStyle<'static> {
    ("monospace", size).into_font().color(&colour)
}

fn heading<B: DrawingBackend>(area: &Area<'_, B>, title: &str, record: &Record) -> Drawn {
    let from = &record.provenance;
    let below = format!("{} / suite {} / {}", from.device(), from.suite, from.date);
    let put = |text: String, y: i32, style: TextStyle<'static>| {
        area.draw(&Text::new(text, (24, y), style)).map_err(|e| e.to_string())
    };
    put(title.into(), 16, font(21, INK))?;
    put(below, 44, font(13, GREY))
}

/// Times that are worth drawing, with their paths in a fixed order of colours.
fn timed(record: &Record) -> impl Iterator<Item = (&Row, f64)> {
    let ok = record.rows.iter().filter(|row| row.verdict == Verdict::Ok);
    ok.filter_map(|row| Some((row, row.median_ms?)))
}

/// The paths of a record, ours first.
fn paths_of(record: &Record) -> Vec<String> {
    let mut paths: Vec<String> = Vec::new();
    for (row, _) in timed(record) {
        if !paths.contains(&row.path) {
            paths.push(row.path.clone());
        }
    }
    let rank =
        |path: &String| ["fused", "staged", "split"].iter().position(|x| x == path).unwrap_or(9);
    paths.sort_by_key(rank);
    paths
}

fn colour(paths: &[String], path: &str) -> RGBColor {
    let place = paths.iter().position(|x| x == path).unwrap_or(0);
    COLOURS[place % COLOURS.len()]
}

/// Coloured squares with names, in a row that starts at `at`.
fn legend<B: DrawingBackend>(area: &Area<'_, B>, names: &[String], at: (i32, i32)) -> Drawn {
    let mut x = at.0;
    for name in names {
        let square = [(x, at.1), (x + 11, at.1 + 11)];
        let fill = colour(names, name).filled();
        area.draw(&Rectangle::new(square, fill)).map_err(|e| e.to_string())?;
        let text = Text::new(name.clone(), (x + 17, at.1 + 1), font(14, INK));
        area.draw(&text).map_err(|e| e.to_string())?;
        x += 40 + 9 * name.chars().count() as i32;
    }
    Ok(())
}

/// Bounds that hold every value, each rounded out to a power of ten or half of one.
fn decades(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (mut low, mut high) = (f64::INFINITY, 0.0_f64);
    for value in values.filter(|x| x.is_finite() && *x > 0.0) {
        (low, high) = (low.min(value), high.max(value));
    }
    if low > high {
        return (1.0, 10.0);
    }
    let half = |x: f64, round: fn(f64) -> f64| 10_f64.powf(round(x.log10() * 2.0) / 2.0);
    (half(low / 1.15, f64::floor), half(high * 1.15, f64::ceil))
}

/// A number on an axis.
fn tick(x: &f64) -> String {
    match *x {
        x if x >= 1.0 || x == 0.0 => format!("{}", (x * 10.0).round() / 10.0),
        x => format!("{x:.4}").trim_end_matches('0').to_owned(),
    }
}

/// Labels that do not lie on one another: those that would are left out.
#[derive(Default)]
struct Labels(Vec<[i32; 4]>);

impl Labels {
    /// Room for `text` near a point, right of it or else left, above or below; `None` where all is taken.
    fn place(&mut self, text: &str, (x, y): (i32, i32), within: (i32, i32)) -> Option<(i32, i32)> {
        let (width, height) = (text.chars().count() as i32 * 7 + 4, 13);
        let spots = [
            (x + 8, y - 6),
            (x - 8 - width, y - 6),
            (x - width / 2, y - 20),
            (x - width / 2, y + 8),
        ];
        let free = |(x, y): &(i32, i32)| {
            let inside = *x > 90 && x + width < within.0 && *y > 80 && y + height < within.1;
            let apart = |other: &[i32; 4]| {
                x + width < other[0] || other[2] < *x || y + height < other[1] || other[3] < *y
            };
            inside && self.0.iter().all(apart)
        };
        let spot = spots.into_iter().find(free)?;
        self.0.push([spot.0, spot.1, spot.0 + width, spot.1 + height]);
        Some(spot)
    }

    /// Keeps labels off a marker.
    fn marker(&mut self, (x, y): (i32, i32)) {
        self.0.push([x - 5, y - 5, x + 5, y + 5]);
    }
}

/// Right-aligned text.
fn right(size: u32, colour: RGBColor) -> TextStyle<'static> {
    font(size, colour).pos(Pos::new(HPos::Right, VPos::Center))
}

/// The sizes of a row's call.
fn shape(row: &Row) -> Option<Shape> {
    row.shape.parse().ok()
}
