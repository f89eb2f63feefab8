//! The known-answer append: a kernel that writes a cache proves itself before it serves.

use crate::cache::append::{AppendDescriptor, NewRows};
use crate::cache::descriptor::{KvCacheDescriptor, Side};
use crate::cache::kv_cache::KvCache;
use crate::device::{Readback, Wait, scoped, settled, upload};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::tensor::Layout;

/// Tokens of the known append, over three pages.
const ROWS: u32 = 9;

impl KvCache {
    /// Appends known rows to a small cache of the same kind and compares what its keys and values then are.
    ///
    /// # Errors
    /// Unsupported when they are wrong; device lost; out of memory.
    pub(super) async fn proves_append(
        &self,
        engine: &Engine,
        append: &AppendDescriptor,
        wait: Wait,
    ) -> Result<()> {
        let d = self.descriptor();
        for (dim, turned) in [(d.dim_qk, append.rotary.is_some()), (d.dim_v, false)] {
            let spec = self.append_spec(engine, append, dim, turned);
            let trial = known_append(engine, d, append, dim, turned, wait);
            if let Some(rejection) = engine.tried(&spec, trial).await? {
                return Err(Error::unsupported("appending to a cache", vec![rejection]));
            }
        }
        Ok(())
    }
}

async fn known_append(
    engine: &Engine,
    d: &KvCacheDescriptor,
    append: &AppendDescriptor,
    dim: u32,
    turned: bool,
    wait: Wait,
) -> Result<Option<String>> {
    let pages = d.pages.map(|_| [8, 4]);
    let small =
        KvCacheDescriptor { pages, storage: d.storage, ..KvCacheDescriptor::new(1, 2, dim, 12) };
    let value = |i: u32| f64::from(i.wrapping_mul(0x9e37_79b9) >> 8) / f64::from(1 << 23) - 1.0;
    let values: Vec<f64> = (0..2 * ROWS * dim).map(|i| append.dtype.round(value(i))).collect();
    let bytes = append.dtype.encode(values.iter().copied());
    // Every place is turned by half a circle: the channels that are turned change their sign.
    let half = (append.rotary.unwrap_or_default().0 / 2) as usize;
    let (cos, sin) = (vec![-1.0; 12 * half], vec![0.0; 12 * half]);
    let small_append = AppendDescriptor {
        rows: ROWS,
        layout: Layout::Bhsd,
        rotary: append.rotary.filter(|_| turned),
        ..*append
    };
    let rotary = turned.then_some([cos.as_slice(), sin.as_slice()]);
    let work = || {
        let mut cache = KvCache::make(engine, &small)?;
        let source = upload(engine.device(), "known rows", &bytes, wgpu::BufferUsages::STORAGE)?;
        let rows = NewRows { k: (&source).into(), v: (&source).into(), rotary };
        let bound = cache.bind_unproved(engine, &small_append, &rows)?;
        let mut encoder = engine.device().create_command_encoder(&Default::default());
        cache.append(&mut encoder, &bound, &[ROWS])?;
        let back = Readback::record(engine.device(), &mut encoder, &cache.k, 0, cache.k.size())?;
        scoped(engine.device(), "submitting a self-test", 0, || {
            engine.queue().submit([encoder.finish()])
        })?;
        Ok((cache, back))
    };
    let (cache, back) = settled(work).await?;
    let found = cache.rows_of(Side::Keys, &back.get(wait).await?, 0);
    let turned_channels = if turned { 2 * half } else { 0 };
    for (row, found) in values.chunks(dim as usize).zip(&found) {
        let wanted: Vec<f64> = row
            .iter()
            .enumerate()
            .map(|(c, x)| if c < turned_channels { -x } else { *x })
            .collect();
        // 4-bit integers are the coarsest that may go either way, and values are below 1: anything wrong is far beyond
        // this. Floating-point numbers are rounded as the host rounds them.
        let rounded = d.storage.round(&wanted);
        let near = |((x, y), z): ((&f64, &f64), &f64)| (x - y).abs() <= 0.075 || x == z;
        if !found.iter().zip(&wanted).zip(&rounded).all(near) {
            return Ok(Some(format!("wrong in the self-test: {found:?}, want {wanted:?}")));
        }
    }
    Ok(None)
}
