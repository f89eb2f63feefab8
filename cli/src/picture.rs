//! Pictures are drawn in memory and written as whole files: a drawing library's own files are made piece by piece.

use heedful::Error;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::FontStyle;

/// The bytes of a PNG file of `size` pixels.
///
/// # Errors
/// What could not be drawn.
pub(crate) fn png(
    size: (u32, u32),
    draw: impl FnOnce(&DrawingArea<BitMapBackend<'_>, Shift>) -> Result<(), String>,
) -> Result<Vec<u8>, String> {
    let mut pixels = vec![0; size.0 as usize * size.1 as usize * 3];
    draw(&BitMapBackend::with_buffer(&mut pixels, size).into_drawing_area())?;
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, size.0, size.1);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    // Pictures are of few colours, and rows repeat: a ninth of the bytes that the quickest way takes.
    encoder.set_filter(png::FilterType::Up);
    encoder.set_compression(png::Compression::Best);
    let mut writer = encoder.write_header().map_err(|e| e.to_string())?;
    writer.write_image_data(&pixels).map_err(|e| e.to_string())?;
    writer.finish().map_err(|e| e.to_string())?;
    Ok(bytes)
}

/// The text of an SVG file of `size` pixels.
///
/// # Errors
/// What could not be drawn.
pub(crate) fn svg(
    size: (u32, u32),
    draw: impl FnOnce(&DrawingArea<SVGBackend<'_>, Shift>) -> Result<(), String>,
) -> Result<Vec<u8>, String> {
    let mut text = String::new();
    draw(&SVGBackend::with_string(&mut text, size).into_drawing_area())?;
    Ok(text.into_bytes())
}

/// The font lies in the binary: no picture depends on what a machine has installed.
pub(crate) fn register_font() -> Result<(), Error> {
    let font = epaint_default_fonts::HACK_REGULAR;
    plotters::style::register_font("monospace", FontStyle::Normal, font)
        .map_err(|_| Error::internal("drawing", "the built-in font is damaged"))
}
