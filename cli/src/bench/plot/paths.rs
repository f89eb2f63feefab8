//! Paths side by side: for each call, a bar per path of the share that it reaches of the device's limit.

use plotters::prelude::*;

use super::{Area, Drawn, FAINT, GREY, INK, colour, font, heading, legend, paths_of, right, timed};
use crate::bench::output::number;
use crate::bench::rows::Record;

/// Height of a bar and of the space between calls, pixels.
const BAR: i32 = 13;
const GAP: i32 = 9;
/// Where bars start and how long the longest is.
const LEFT: i32 = 360;
const WIDTH: i32 = 660;
const TOP: i32 = 110;

fn groups(record: &Record) -> Vec<(&str, Vec<Bar<'_>>)> {
    let mut groups: Vec<(&str, Vec<Bar<'_>>)> = Vec::new();
    for (row, ms) in timed(record) {
        let bar = Bar { path: &row.path, share: row.of_limit.unwrap_or(0.0), ms };
        match groups.last_mut().filter(|(name, _)| *name == row.name) {
            Some((_, bars)) => bars.push(bar),
            None => groups.push((&row.name, vec![bar])),
        }
    }
    groups
}

struct Bar<'a> {
    path: &'a str,
    share: f64,
    ms: f64,
}

/// As high as there are bars.
pub(super) fn size(record: &Record) -> (u32, u32) {
    let heights = groups(record).iter().map(|(_, bars)| bars.len() as i32 * BAR + GAP).sum::<i32>();
    (1200, (TOP + heights + 30).clamp(240, 16_000) as u32)
}

pub(super) fn draw<B: DrawingBackend>(record: &Record, area: &Area<'_, B>) -> Drawn {
    heading(
        area,
        "Paths side by side: share of the device's limit for the call, and milliseconds",
        record,
    )?;
    let names = paths_of(record);
    legend(area, &names, (24, 74))?;
    let groups = groups(record);
    let all = groups.iter().flat_map(|(_, bars)| bars);
    let longest = all.map(|bar| bar.share).fold(0.0, f64::max).clamp(0.05, 10.0);
    let scale = f64::from(WIDTH) / longest;
    let bottom = size(record).1 as i32 - 24;
    let step = [0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0].into_iter().find(|x| longest / x < 8.0);
    let mut mark = 0.0;
    while mark <= longest {
        let x = LEFT + (mark * scale) as i32;
        let line = PathElement::new([(x, TOP - 10), (x, bottom)], FAINT);
        area.draw(&line).map_err(|e| e.to_string())?;
        let text = Text::new(format!("{:.0} %", mark * 100.0), (x - 10, TOP - 26), font(12, GREY));
        area.draw(&text).map_err(|e| e.to_string())?;
        mark += step.unwrap_or(5.0);
    }
    let mut y = TOP;
    for (name, bars) in &groups {
        let middle = y + bars.len() as i32 * BAR / 2;
        area.draw(&Text::new(shortened(name), (LEFT - 12, middle), right(14, INK)))
            .map_err(|e| e.to_string())?;
        for bar in bars {
            let end = LEFT + ((bar.share * scale) as i32).max(2);
            let fill = colour(&names, bar.path).filled();
            area.draw(&Rectangle::new([(LEFT, y), (end, y + BAR - 2)], fill))
                .map_err(|e| e.to_string())?;
            let text = format!("{:.0} %  {} ms", bar.share * 100.0, number(Some(bar.ms)));
            area.draw(&Text::new(text, (end + 8, y + 2), font(12, INK)))
                .map_err(|e| e.to_string())?;
            y += BAR;
        }
        y += GAP;
    }
    Ok(())
}

/// A name that fits beside the bars.
fn shortened(name: &str) -> String {
    if name.chars().count() <= 38 {
        return name.into();
    }
    name.chars().take(37).chain(['…']).collect()
}
