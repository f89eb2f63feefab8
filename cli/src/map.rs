//! `heedful map`: attention weights as a picture.

use std::path::PathBuf;

use clap::Args;
use heedful::Error;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::files::{Elements, Source};
use crate::picture::{png, register_font};
use crate::{Outcome, outputs};

#[derive(Debug, Args)]
pub(crate) struct MapArgs {
    /// Weights [batch, heads, rows, keys], as `run --weights` writes them; with three axes [heads, rows, keys],
    /// with two [rows, keys].
    #[arg(long, value_name = "ARRAY", default_value = "weights")]
    weights: String,
    /// Take the array by name from this .npz file.
    #[arg(long, value_name = "FILE", conflicts_with = "safetensors")]
    npz: Option<PathBuf>,
    /// Take the array by name from this .safetensors file.
    #[arg(long, value_name = "FILE")]
    safetensors: Option<PathBuf>,
    /// Which sequence of the batch.
    #[arg(long, value_name = "N", default_value_t = 0)]
    batch: usize,
    /// One head only; all of them as a grid unless it is given.
    #[arg(long, value_name = "N")]
    head: Option<usize>,
    /// Only the first N rows and keys: a padded sequence's own.
    #[arg(long, value_name = "N")]
    length: Option<usize>,
    /// Tokens of the query rows, separated by commas.
    #[arg(long, value_name = "TOKENS", value_delimiter = ',')]
    rows: Vec<String>,
    /// Tokens of the keys; those of the rows unless they are given.
    #[arg(long, value_name = "TOKENS", value_delimiter = ',')]
    keys: Vec<String>,
    /// Where to write the picture, PNG.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Pixels of a cell, of a letter's width, of a title's height, and around everything.
const CELL: usize = 22;
const LETTER: usize = 8;
const TITLE: usize = 20;
const MARGIN: usize = 14;

/// What is drawn: heads of one sequence with their labels.
struct Picture {
    heads: Vec<(usize, Vec<f64>)>,
    rows: Vec<String>,
    keys: Vec<String>,
}

/// Draws the picture.
pub(crate) fn map(args: &MapArgs) -> Outcome {
    outputs::check([("--out", &args.out)])?;
    if args.out.extension().is_none_or(|kind| kind != "png") {
        let argument = format!("--out {}", args.out.display());
        return Err(Error::invalid(argument, "another kind of file", "a PNG: NAME.png").into());
    }
    let picture = Picture::read(args)?;
    register_font()?;
    let drawn = picture.draw().map_err(|problem| {
        let path = args.out.display().to_string();
        Error::invalid(path, problem, "a picture that can be drawn")
    })?;
    Ok(outputs::put(&args.out, &drawn)?)
}

impl Picture {
    fn read(args: &MapArgs) -> Result<Self, Error> {
        let mut source = Source::open(args.npz.as_ref(), args.safetensors.as_ref())?;
        let array = source.get("weights", &args.weights, Elements::Floats)?;
        let mut shape: Vec<usize> = array.shape.iter().map(|n| *n as usize).collect();
        if !(2..=4).contains(&shape.len()) || shape.contains(&0) {
            let found = format!("shape {shape:?}");
            return Err(Error::invalid(
                "--weights",
                found,
                "[batch, heads, rows, keys], none of them 0",
            ));
        }
        while shape.len() < 4 {
            shape.insert(0, 1);
        }
        let [batch, heads, rows, keys] = [shape[0], shape[1], shape[2], shape[3]];
        if rows * keys > 1 << 20 {
            let found = format!("{rows} rows of {keys} keys");
            return Err(Error::invalid("--weights", found, "at most 2^20 cells to a head"));
        }
        let within = |name: &str, found: usize, n: usize| {
            let wanted = || Error::invalid(name, found, format!("below {n}"));
            (found < n).then_some(found).ok_or_else(wanted)
        };
        let sequence = within("--batch", args.batch, batch)?;
        let chosen = match args.head {
            Some(head) => vec![within("--head", head, heads)?],
            None => (0..heads).collect(),
        };
        let length = args.length.unwrap_or(rows.max(keys));
        if length == 0 || args.length.is_some_and(|n| n > rows.max(keys)) {
            return Err(Error::invalid("--length", length, format!("1..={}", rows.max(keys))));
        }
        let (drawn_rows, drawn_keys) = (rows.min(length), keys.min(length));
        let cut = |head: usize| {
            let start = (sequence * heads + head) * rows * keys;
            let of_head = array.values[start..start + rows * keys].chunks(keys).take(drawn_rows);
            (head, of_head.flat_map(|row| &row[..drawn_keys]).copied().collect())
        };
        let row_labels = labels("--rows", &args.rows, drawn_rows)?;
        let given =
            if args.keys.is_empty() && drawn_rows == drawn_keys { &args.rows } else { &args.keys };
        let key_labels = labels("--keys", given, drawn_keys)?;
        let heads = chosen.into_iter().map(cut).collect();
        Ok(Self { heads, rows: row_labels, keys: key_labels })
    }

    fn draw(&self) -> Result<Vec<u8>, String> {
        let widest =
            |labels: &[String]| labels.iter().map(|x| x.chars().count()).max().unwrap_or(0);
        // Long sequences get smaller cells, down to one pixel.
        let cell = (2000 / self.rows.len().max(self.keys.len())).clamp(1, CELL);
        let labelled = cell >= 12;
        let side = if labelled { widest(&self.rows) * LETTER + 6 } else { 0 };
        let head = if labelled { widest(&self.keys) * LETTER + 6 } else { 0 };
        let width = side + self.keys.len() * cell + MARGIN;
        let height = head + self.rows.len() * cell + MARGIN + TITLE;
        let columns = (self.heads.len() as f64).sqrt().ceil() as usize;
        let lines = self.heads.len().div_ceil(columns);
        let size = [columns * width + MARGIN, lines * height + MARGIN].map(|n| n as u32);
        if size[0].max(size[1]) > 20_000 {
            return Err(format!("{} by {} pixels; choose one --head", size[0], size[1]));
        }
        let draw = |area: &Area<'_>| -> Result<(), DrawingAreaErrorKind<_>> {
            area.fill(&WHITE)?;
            for (i, (number, weights)) in self.heads.iter().enumerate() {
                let x0 = (MARGIN + i % columns * width + side) as i32;
                let y0 = (MARGIN + i / columns * height + TITLE + head) as i32;
                let at = (x0, y0 - head as i32 - 4);
                let style = font().pos(Pos::new(HPos::Left, VPos::Bottom));
                area.draw(&Text::new(format!("head {number}"), at, style))?;
                self.cells(area, weights, (x0, y0), cell as i32)?;
                if labelled {
                    self.labels(area, (x0, y0), cell as i32)?;
                }
            }
            area.present()
        };
        png((size[0], size[1]), |area| draw(area).map_err(|e| e.to_string()))
    }

    /// A head's weights, the first of them at a corner.
    fn cells(
        &self,
        area: &Area<'_>,
        weights: &[f64],
        (x0, y0): (i32, i32),
        step: i32,
    ) -> Result<(), DrawingAreaErrorKind<DrawingError>> {
        let largest = weights.iter().copied().filter(|w| w.is_finite()).fold(0.0, f64::max);
        for (at, weight) in weights.iter().enumerate() {
            let (row, key) = ((at / self.keys.len()) as i32, (at % self.keys.len()) as i32);
            let corner = (x0 + key * step, y0 + row * step);
            let far = (corner.0 + step, corner.1 + step);
            area.draw(&Rectangle::new([corner, far], shade(*weight, largest).filled()))?;
        }
        Ok(())
    }

    /// What rows and keys are called, beside and above the weights.
    fn labels(
        &self,
        area: &Area<'_>,
        (x0, y0): (i32, i32),
        step: i32,
    ) -> Result<(), DrawingAreaErrorKind<DrawingError>> {
        for (row, label) in self.rows.iter().enumerate() {
            let at = (x0 - 5, y0 + row as i32 * step + step / 2);
            let style = font().pos(Pos::new(HPos::Right, VPos::Center));
            area.draw(&Text::new(label.clone(), at, style))?;
        }
        for (key, label) in self.keys.iter().enumerate() {
            let at = (x0 + key as i32 * step + step / 2 - 6, y0 - 5);
            let up = ("monospace", 13).into_font().transform(FontTransform::Rotate270);
            area.draw(&Text::new(label.clone(), at, up.color(&BLACK)))?;
        }
        Ok(())
    }
}

/// The picture under way.
type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;
type DrawingError = <BitMapBackend<'static> as DrawingBackend>::ErrorType;

fn font() -> TextStyle<'static> {
    ("monospace", 13).into_font().color(&BLACK)
}

/// White for 0 to dark blue for the largest; grey for what is no number.
fn shade(weight: f64, largest: f64) -> RGBColor {
    if !weight.is_finite() {
        return RGBColor(190, 190, 190);
    }
    let t = if largest > 0.0 { (weight / largest).clamp(0.0, 1.0) } else { 0.0 };
    let mix = |from: f64, to: f64| (from + (to - from) * t.sqrt()).round() as u8;
    RGBColor(mix(255.0, 8.0), mix(255.0, 48.0), mix(255.0, 107.0))
}

/// The labels that are given, or numbers.
fn labels(option: &str, given: &[String], wanted: usize) -> Result<Vec<String>, Error> {
    if given.is_empty() {
        return Ok((0..wanted).map(|i| i.to_string()).collect());
    }
    if given.len() == wanted {
        return Ok(given.to_vec());
    }
    Err(Error::invalid(option, format!("{} tokens", given.len()), format!("{wanted}")))
}
