//! Linear layers and averages over heads as drafts of dispatches: what a layer puts around attention.

use crate::engine::dispatch::Draft;
use crate::engine::range::{BoundRange, bind_range};
use crate::engine::{BufferView, Engine};
use crate::error::{Error, Result};
use crate::kernel::{
    Binding, Element, KernelSpec, MatrixTile, PROJECTION_BASE, PROJECTION_STRIDE_ROW, Params, TILE,
    Width, Work,
};

/// A tensor `[batch, rows, columns]`, f32, with rows one after another within a sequence.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) view: BufferView<'a>,
    /// Elements between sequences.
    pub(crate) batch_stride: u64,
}

impl Rows<'_> {
    /// Elements from the first to the last.
    pub(super) fn span(&self, batch: u32, rows: u32, columns: u32) -> u64 {
        let before = u64::from(batch.saturating_sub(1)) * self.batch_stride;
        before + u64::from(rows) * u64::from(columns)
    }
}

/// Sequences and rows of each: one sequence of all rows where these lie without gaps in every tensor, given with its
/// columns. Tiles of rows then go over the ends of sequences, and short ones share them.
pub(super) fn folded(
    engine: &Engine,
    [batch, rows]: [u32; 2],
    tensors: &[(&Rows<'_>, u32)],
) -> [u32; 2] {
    let gapless =
        |(x, columns): &(&Rows<'_>, u32)| x.batch_stride == u64::from(rows) * u64::from(*columns);
    match batch.checked_mul(rows) {
        Some(all) if all.div_ceil(TILE) <= engine.capabilities.max_workgroups => {
            if tensors.iter().all(gapless) { [1, all] } else { [batch, rows] }
        }
        _ => [batch, rows],
    }
}

/// y = x Wᵀ + b over `[batch, rows]` rows.
pub(crate) struct Linear<'a> {
    pub(crate) name: &'static str,
    pub(crate) batch: u32,
    pub(crate) rows: u32,
    pub(crate) inputs: u32,
    pub(crate) outputs: u32,
    pub(crate) x: Rows<'a>,
    /// `[outputs, inputs]`.
    pub(crate) w: BufferView<'a>,
    /// `[outputs]`.
    pub(crate) b: Option<BufferView<'a>>,
    pub(crate) y: Rows<'a>,
    /// Products on matrix units: operands rounded to f16.
    pub(crate) matrix: Option<MatrixTile>,
}

impl Linear<'_> {
    /// The draft of its dispatch; `None` where there is nothing to do.
    pub(crate) fn draft(&self, engine: &Engine) -> Result<Option<Draft>> {
        let [n, k] = [self.outputs, self.inputs];
        if [self.batch, self.rows, n].contains(&0) {
            return Ok(None);
        }
        let [batch, m] = folded(engine, [self.batch, self.rows], &[(&self.x, k), (&self.y, n)]);
        let x = part(engine, self.name, "input", self.x.view, self.x.span(batch, m, k))?;
        let w = part(engine, self.name, "weight", self.w, u64::from(n) * u64::from(k))?;
        let y = part(engine, self.name, "output", self.y.view, self.y.span(batch, m, n))?;
        let b = self.b.map(|b| part(engine, self.name, "bias", b, n.into())).transpose()?;
        let spec = KernelSpec::project(
            [
                element(x.1, &[k.into(), self.x.batch_stride]),
                element(w.1, &[k.into()]),
                element(y.1, &[n.into(), self.y.batch_stride]),
            ],
            self.b.is_some(),
            self.matrix,
        );
        let work = Work { batch, rows: m, columns: n, ..Work::default() };
        let most = engine.capabilities.max_workgroups;
        if spec.grid(&work).iter().any(|n| *n > most) {
            let found = format!("{m} rows of {n}");
            return Err(Error::invalid(self.name, found, format!("at most {most} tiles of 64")));
        }
        let params = Params {
            seq_q: m,
            dim_qk: k,
            dim_v: n,
            q_base: x.1,
            q_stride_batch: self.x.batch_stride as u32,
            q_stride_row: k,
            o_base: y.1,
            o_stride_batch: self.y.batch_stride as u32,
            o_stride_row: n,
            bias_base: b.as_ref().map_or(0, |b| b.1),
            ..Params::default()
        };
        let params = params.with([PROJECTION_BASE.is(w.1), PROJECTION_STRIDE_ROW.is(k)]);
        let mut ranges = vec![(Binding::Q, x.0), (Binding::Projection, w.0), (Binding::O, y.0)];
        ranges.extend(b.map(|b| (Binding::Bias, b.0)));
        Ok(Some(Draft::new(spec, work, params, ranges)))
    }
}

/// f32, four at a time where the base and the steps between rows and sequences allow it.
pub(super) fn element(base: u32, steps: &[u64]) -> Element {
    let aligned = base.is_multiple_of(4) && steps.iter().all(|n| n.is_multiple_of(4));
    Element { width: if aligned { Width::Vec4 } else { Width::Single }, ..Element::F32X4 }
}

/// The bound range of the first `elements` of a view, and its base.
pub(super) fn part(
    engine: &Engine,
    name: &str,
    what: &str,
    view: BufferView<'_>,
    elements: u64,
) -> Result<(BoundRange, u32)> {
    let argument = || format!("{name} {what}");
    let caps = &engine.capabilities;
    let bytes = elements.saturating_mul(4);
    if !view.offset.is_multiple_of(4) {
        return Err(Error::invalid(argument(), view.offset, "an offset that is a multiple of 4"));
    }
    if !view.buffer.usage().contains(wgpu::BufferUsages::STORAGE) {
        let found = format!("{:?}", view.buffer.usage());
        return Err(Error::invalid(format!("{} buffer usage", argument()), found, "STORAGE"));
    }
    if view.offset.checked_add(bytes).is_none_or(|end| end > view.buffer.size()) {
        let found = format!("{} B from offset {}", view.buffer.size(), view.offset);
        return Err(Error::invalid(argument(), found, format!("{bytes} B")));
    }
    if bytes + caps.storage_alignment > caps.max_binding_bytes {
        let wanted = format!("at most {} B in one binding", caps.max_binding_bytes);
        return Err(Error::invalid(argument(), format!("{bytes} B"), wanted));
    }
    bind_range(view, 0..elements, 32, caps.storage_alignment)
}

/// The mean over heads of `[batch, heads, elements]`.
pub(crate) fn average(
    engine: &Engine,
    [batch, heads]: [u32; 2],
    elements: u64,
    from: &wgpu::Buffer,
    to: BufferView<'_>,
) -> Result<Option<Draft>> {
    if elements == 0 || batch == 0 {
        return Ok(None);
    }
    let all = elements * u64::from(batch);
    let alignment = engine.capabilities.storage_alignment;
    let (source, _) = bind_range(from.into(), 0..all * u64::from(heads), 32, alignment)?;
    let (target, o_base) = bind_range(to, 0..all, 32, alignment)?;
    let params = Params {
        head_n: heads,
        q_stride_batch: (elements * u64::from(heads)) as u32,
        q_stride_head: elements as u32,
        o_base,
        o_stride_batch: elements as u32,
        ..Params::default()
    };
    let kernel = KernelSpec::average();
    let work = Work { batch, columns: elements as u32, ..Work::default() };
    let ranges = vec![(Binding::Q, source), (Binding::O, target)];
    Ok(Some(Draft::new(kernel, work, params, ranges)))
}
