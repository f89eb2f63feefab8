//! The roofline: speed against arithmetic intensity, under what the device's arithmetic and memory allow.

use heedful::bench::Roofline;
use plotters::prelude::*;

use super::{
    Area, Drawn, FAINT, GREY, INK, Labels, SIZE, colour, decades, font, heading, legend, paths_of,
    tick, timed,
};
use crate::bench::rows::Record;

/// A row's FLOP per byte and GFLOP/s, its path and its name.
type Point<'a> = (f64, f64, &'a str, &'a str);

fn points_of(record: &Record) -> Vec<Point<'_>> {
    let intensity = |gflop: f64, megabytes: f64| gflop * 1e3 / megabytes.max(1e-9);
    let points = timed(record).filter_map(|(row, _)| {
        let x = intensity(row.gflop, row.megabytes);
        Some((x, row.gflops?, row.path.as_str(), row.name.as_str()))
    });
    points.collect()
}

pub(super) fn draw<B: DrawingBackend>(record: &Record, area: &Area<'_, B>) -> Drawn {
    let Some(roofline) = record.provenance.roofline else { return Ok(()) };
    heading(
        area,
        "Speed against arithmetic intensity, under the device's measured limits",
        record,
    )?;
    let paths = paths_of(record);
    legend(area, &paths, (24, 70))?;
    let points = points_of(record);
    // The roof of matrix units stands where a point belongs under it.
    let units =
        roofline.matrix_gflops.filter(|_| timed(record).any(|(row, _)| row.of_matrix.is_some()));
    let knee = roofline.f32_gflops / roofline.read_gbps;
    let (left, right) = decades(points.iter().map(|p| p.0).chain([knee]));
    let (low, high) = decades(points.iter().map(|p| p.1).chain([roofline.f32_gflops]).chain(units));
    let mut chart = ChartBuilder::on(area)
        .margin(16)
        .margin_top(96)
        .x_label_area_size(52)
        .y_label_area_size(76)
        .build_cartesian_2d((left..right).log_scale(), (low..high).log_scale())
        .map_err(|e| e.to_string())?;
    chart
        .configure_mesh()
        .bold_line_style(FAINT)
        .light_line_style(TRANSPARENT)
        .axis_style(GREY)
        .label_style(font(13, INK))
        .x_desc("FLOP per byte that must move")
        .y_desc("GFLOP/s")
        .x_label_formatter(&tick)
        .y_label_formatter(&tick)
        .draw()
        .map_err(|e| e.to_string())?;
    let roof = |gbps: f64, peak: f64| {
        let ends = [left, (peak / gbps).clamp(left, right), right];
        ends.map(|x| (x, (x * gbps).min(peak).max(low)))
    };
    for peak in [roofline.f32_gflops].into_iter().chain(units) {
        let line = LineSeries::new(roof(roofline.read_gbps, peak), INK.stroke_width(2));
        chart.draw_series(line).map_err(|e| e.to_string())?;
    }
    let cached = roof(roofline.cached_gbps, roofline.f32_gflops);
    chart
        .draw_series(DashedLineSeries::new(cached, 6, 5, GREY.stroke_width(1)))
        .map_err(|e| e.to_string())?;
    let mut labels = Labels::default();
    let places: Vec<(i32, i32)> = points.iter().map(|p| chart.backend_coord(&(p.0, p.1))).collect();
    places.iter().for_each(|place| labels.marker(*place));
    let put = |text: String, at: (i32, i32), style: TextStyle<'static>| {
        area.draw(&Text::new(text, at, style)).map_err(|e| e.to_string())
    };
    let peaks =
        [(roofline.f32_gflops, "f32")].into_iter().chain(units.map(|x| (x, "matrix units")));
    for (peak, of) in peaks {
        let text = format!("{peak:.0} GFLOP/s {of}");
        let (x, y) = chart.backend_coord(&(right, peak));
        put(text.clone(), (x - 10 - 8 * text.len() as i32, y - 20), font(13, INK))?;
    }
    let Roofline { read_gbps, cached_gbps, .. } = roofline;
    let slope = format!("{read_gbps:.1} GB/s from memory, dashed {cached_gbps:.1} from caches");
    put(slope, (24, SIZE.1 as i32 - 24), font(13, GREY))?;
    for ((_, _, path, name), place) in points.iter().zip(&places) {
        let fill = colour(&paths, path).filled();
        area.draw(&Circle::new(*place, 4, fill)).map_err(|e| e.to_string())?;
        if let Some(at) = labels.place(name, *place, (SIZE.0 as i32 - 10, SIZE.1 as i32 - 70)) {
            put((*name).to_owned(), at, font(11, GREY))?;
        }
    }
    Ok(())
}
