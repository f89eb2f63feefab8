//! Vendor × feature: how the rows of each adapter ended, by what they exercise.

use serde::Serialize;

use crate::verify::report::features::{self, Feature};
use crate::verify::report::{Merged, Totals};

/// A line for each feature, a cell for each adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Matrix {
    /// The lines, those of a group one after another.
    pub rows: Vec<Row>,
}

/// One feature on every adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// What kind of feature: `Storage`, `Masks`, …
    pub group: String,
    /// The feature: `f16`, `causal`, the name of a suite, the name of a path.
    pub feature: String,
    /// How the rows that exercise it ended, an element for each of [`Merged::columns`].
    pub cells: Vec<Totals>,
}

impl Matrix {
    /// Consecutive rows of one group, group by group.
    pub fn groups(&self) -> impl Iterator<Item = &[Row]> {
        self.rows.chunk_by(|a, b| a.group == b.group)
    }

    /// The row of a feature.
    pub fn row(&self, feature: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.feature == feature)
    }

    /// Features that were run on an adapter, and features there are.
    pub fn coverage(&self, column: usize) -> (usize, usize) {
        let ran = |row: &&Row| row.cells.get(column).is_some_and(|cell| cell.ran() > 0);
        (self.rows.iter().filter(ran).count(), self.rows.len())
    }

    pub(super) fn count(merged: &Merged, features: &[Feature]) -> Self {
        let empty = |feature: &Feature| Row {
            group: feature.group.into(),
            feature: feature.name.clone(),
            cells: vec![Totals::default(); merged.columns.len()],
        };
        let mut rows: Vec<Row> = features.iter().map(empty).collect();
        for (i, column) in merged.columns.iter().enumerate() {
            for case in &column.cases {
                for feature in features::of(case, features) {
                    rows[feature].cells[i].count(case.status);
                }
            }
        }
        Self { rows }
    }
}
