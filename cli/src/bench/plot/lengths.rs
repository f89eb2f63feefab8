//! Time against length: calls that differ in nothing but their length, on logarithmic axes, where work that
//! grows with the square of the length is a line of slope 2.

use std::collections::BTreeMap;

use heedful::Shape;
use plotters::prelude::*;

use super::{Area, COLOURS, Drawn, FAINT, GREY, INK, decades, font, heading, shape, tick, timed};
use crate::bench::rows::Record;

/// Calls of one kind at several lengths.
pub(super) struct Series {
    name: String,
    /// How the time grows ideally: with this power of the length.
    power: i32,
    /// Keys and milliseconds.
    points: Vec<(f64, f64)>,
}

/// The series of a record with at least three lengths.
pub(super) fn series(record: &Record) -> Vec<Series> {
    let mut kinds: BTreeMap<String, Series> = BTreeMap::new();
    for (row, ms) in timed(record) {
        let Some(s) = shape(row) else { continue };
        let square = s.seq_q == s.seq_kv;
        // A mask or a bias would have to grow as well, and says its size.
        let rows = if square { "n".to_owned() } else { s.seq_q.to_string() };
        let unit = Shape { seq_q: 1, seq_kv: 1, ..s }.to_string();
        let sizes: Vec<&str> = unit.split('x').collect();
        let [batch, heads, _, dim] = sizes[..] else { continue };
        let keys = if square { rows } else { format!("{rows}/n") };
        let name = format!("{batch}x{heads}x{keys}x{dim} {} {}", row.features, row.path);
        let window = row.features.contains("window");
        let power = if square && !window { 2 } else { 1 };
        let kind = kinds.entry(name.clone()).or_insert(Series { name, power, points: Vec::new() });
        kind.points.push((f64::from(s.seq_kv), ms));
    }
    let mut series: Vec<Series> = kinds.into_values().collect();
    for one in &mut series {
        one.points.sort_by(|a, b| a.0.total_cmp(&b.0));
        one.points.dedup_by(|a, b| a.0 == b.0);
    }
    series.retain(|one| one.points.len() >= 3);
    series
}

pub(super) fn draw<B: DrawingBackend>(
    record: &Record,
    series: &[Series],
    area: &Area<'_, B>,
) -> Drawn {
    heading(
        area,
        "Time against length; dotted: in proportion to the work, from the shortest on",
        record,
    )?;
    let points = || series.iter().flat_map(|one| &one.points);
    let (left, right) = {
        let (low, high) = points().fold((f64::MAX, 0.0_f64), |(a, b), p| (a.min(p.0), b.max(p.0)));
        (low / 1.3, high * 1.3)
    };
    let (low, high) = decades(points().map(|p| p.1));
    let mut chart = ChartBuilder::on(area)
        .margin(16)
        .margin_top(74)
        .x_label_area_size(52)
        .y_label_area_size(76)
        .build_cartesian_2d((left..right).log_scale().base(2.0), (low..high).log_scale())
        .map_err(|e| e.to_string())?;
    chart
        .configure_mesh()
        .bold_line_style(FAINT)
        .light_line_style(TRANSPARENT)
        .axis_style(GREY)
        .label_style(font(13, INK))
        .x_desc("keys")
        .y_desc("milliseconds")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&tick)
        .draw()
        .map_err(|e| e.to_string())?;
    for (i, one) in series.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let line =
            LineSeries::new(one.points.iter().copied(), colour.stroke_width(2)).point_size(4);
        let drawn = chart.draw_series(line).map_err(|e| e.to_string())?;
        drawn
            .label(one.name.clone())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3)));
        let ideal = one.points.iter().map(|p| (p.0, one.ideal(p.0)));
        chart
            .draw_series(DashedLineSeries::new(ideal, 2, 4, colour.mix(0.6).stroke_width(1)))
            .map_err(|e| e.to_string())?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .label_font(font(13, INK))
        .background_style(WHITE.mix(0.85))
        .border_style(FAINT)
        .draw()
        .map_err(|e| e.to_string())
}

impl Series {
    /// The time at `length` if it grew with the work from the shortest call on.
    fn ideal(&self, length: f64) -> f64 {
        self.points.first().map_or(0.0, |first| first.1 * (length / first.0).powi(self.power))
    }
}
