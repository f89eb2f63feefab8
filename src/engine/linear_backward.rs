//! The gradients of linear layers as drafts of dispatches: of their inputs, matrices and biases.

use crate::engine::dispatch::Draft;
use crate::engine::linear::{Rows, element, folded, part};
use crate::engine::range::BoundRange;
use crate::engine::{BufferView, Engine};
use crate::error::{Error, Result};
use crate::kernel::{
    BATCH_N, Binding, CARRY_IN, KernelSpec, PROJECTION_BASE, PROJECTION_STRIDE_ROW, Params, Work,
};

/// What comes back through y = x Wᵀ + b over `[batch, rows]` rows: whatever has a place.
pub(crate) struct LinearBackward<'a> {
    pub(crate) name: &'static str,
    pub(crate) batch: u32,
    pub(crate) rows: u32,
    pub(crate) inputs: u32,
    pub(crate) outputs: u32,
    /// Gradient of y.
    pub(crate) d_y: Rows<'a>,
    pub(crate) x: Rows<'a>,
    /// `[outputs, inputs]`.
    pub(crate) w: BufferView<'a>,
    /// Gradient of x, and whether it is added to what is there.
    pub(crate) d_x: Option<(BufferView<'a>, bool)>,
    pub(crate) d_w: Option<BufferView<'a>>,
    pub(crate) d_b: Option<BufferView<'a>>,
}

impl LinearBackward<'_> {
    /// The drafts of its dispatches.
    pub(crate) fn drafts(&self, engine: &Engine) -> Result<Vec<Draft>> {
        let mut drafts = Vec::new();
        if let Some((view, added)) = self.d_x {
            drafts.extend(self.of_input(engine, view, added)?);
        }
        if let Some(view) = self.d_w {
            drafts.push(self.of_matrix(engine, view)?);
        }
        if let Some(view) = self.d_b {
            let d = self.d_y;
            drafts.push(columns(
                engine,
                self.name,
                [self.batch, self.rows, self.outputs],
                d,
                view,
            )?);
        }
        let most = engine.capabilities.max_workgroups;
        for draft in &drafts {
            if draft.kernel.grid(&draft.work).iter().any(|n| *n > most) {
                let found = format!("{} rows of {} and {}", self.rows, self.inputs, self.outputs);
                return Err(Error::invalid(
                    self.name,
                    found,
                    format!("at most {most} tiles of 64"),
                ));
            }
        }
        Ok(drafts)
    }

    fn of_input(
        &self,
        engine: &Engine,
        view: BufferView<'_>,
        added: bool,
    ) -> Result<Option<Draft>> {
        let [n, c] = [self.outputs, self.inputs];
        if [self.batch, self.rows, c].contains(&0) {
            return Ok(None);
        }
        let [batch, rows] = folded(engine, [self.batch, self.rows], &[(&self.d_y, n)]);
        let stride = u64::from(rows) * u64::from(c);
        let d = read(engine, self.name, "gradient", &self.d_y, [batch, rows, n])?;
        let w = part(engine, self.name, "weight", self.w, u64::from(n) * u64::from(c))?;
        let o = part(engine, self.name, "input gradient", view, u64::from(batch) * stride)?;
        let kernel = KernelSpec::backward_project([
            element(d.1, &[n.into(), self.d_y.batch_stride]),
            element(w.1, &[c.into()]),
            element(o.1, &[c.into(), stride]),
        ]);
        let params = Params {
            seq_q: rows,
            dim_qk: n,
            dim_v: c,
            q_base: d.1,
            q_stride_batch: self.d_y.batch_stride as u32,
            q_stride_row: n,
            o_base: o.1,
            o_stride_batch: stride as u32,
            o_stride_row: c,
            ..Params::default()
        };
        let params = params.with([
            PROJECTION_BASE.is(w.1),
            PROJECTION_STRIDE_ROW.is(c),
            CARRY_IN.is(u32::from(added)),
        ]);
        let work = Work { batch, rows, columns: c, ..Work::default() };
        let ranges = vec![(Binding::Q, d.0), (Binding::Projection, w.0), (Binding::O, o.0)];
        Ok(Some(Draft::new(kernel, work, params, ranges)))
    }

    fn of_matrix(&self, engine: &Engine, view: BufferView<'_>) -> Result<Draft> {
        let [n, c] = [self.outputs, self.inputs];
        let [batch, rows] =
            folded(engine, [self.batch, self.rows], &[(&self.d_y, n), (&self.x, c)]);
        let d = read(engine, self.name, "gradient", &self.d_y, [batch, rows, n])?;
        let x = read(engine, self.name, "input", &self.x, [batch, rows, c])?;
        let o = part(engine, self.name, "weight gradient", view, u64::from(n) * u64::from(c))?;
        let kernel = KernelSpec::backward_matrix(
            element(d.1, &[n.into(), self.d_y.batch_stride]),
            element(x.1, &[c.into(), self.x.batch_stride]),
        );
        let params = Params {
            head_n: 1,
            row_n: rows,
            dim_qk: c,
            dim_v: n,
            q_base: x.1,
            q_stride_batch: self.x.batch_stride as u32,
            q_stride_row: c,
            k_base: d.1,
            k_stride_batch: self.d_y.batch_stride as u32,
            k_stride_row: n,
            o_base: o.1,
            o_stride_head: 1,
            o_stride_row: c,
            minus_infinity: f32::NEG_INFINITY.to_bits(),
            ..Params::default()
        };
        let params = params.with([BATCH_N.is(batch)]);
        let work = Work { rows: n, columns: c, ..Work::default() };
        let ranges = vec![(Binding::K, d.0), (Binding::Q, x.0), (Binding::O, o.0)];
        Ok(Draft::new(kernel, work, params, ranges))
    }
}

/// Rows that are read; something else where there are none.
fn read(
    engine: &Engine,
    name: &str,
    what: &str,
    rows: &Rows<'_>,
    [batch, n, columns]: [u32; 3],
) -> Result<(BoundRange, u32)> {
    if [batch, n, columns].contains(&0) {
        return Ok((BoundRange { buffer: engine.placeholder()?, offset: 0, size: 16 }, 0));
    }
    part(engine, name, what, rows.view, rows.span(batch, n, columns))
}

/// Sums of the columns of d `[batch, rows, n]`.
pub(crate) fn columns(
    engine: &Engine,
    name: &'static str,
    [batch, rows, n]: [u32; 3],
    d: Rows<'_>,
    to: BufferView<'_>,
) -> Result<Draft> {
    let [batch, rows] = folded(engine, [batch, rows], &[(&d, n)]);
    let source = read(engine, name, "gradient", &d, [batch, rows, n])?;
    let target = part(engine, name, "bias gradient", to, n.into())?;
    let params = Params {
        row_n: rows,
        dim_v: n,
        k_base: source.1,
        k_stride_batch: d.batch_stride as u32,
        k_stride_row: n,
        o_base: target.1,
        ..Params::default()
    };
    let params = params.with([BATCH_N.is(batch)]);
    let work = Work { columns: n, ..Work::default() };
    let ranges = vec![(Binding::K, source.0), (Binding::DTable, target.0)];
    Ok(Draft::new(KernelSpec::backward_columns(), work, params, ranges))
}
