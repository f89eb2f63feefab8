//! The known-answer append: kernels that write a cache prove themselves before they serve.

use crate::cache::append::{Append, AppendDescriptor, NewRows};
use crate::cache::descriptor::KvCacheDescriptor;
use crate::cache::kv_cache::KvCache;
use crate::device::{Readback, Wait, scoped, settled, upload};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::kernel::KernelSpec;
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
        for (spec, asked) in [
            (KernelSpec::cache_advance(), Asked::Lengths),
            (KernelSpec::cache_copy(), Asked::Copies),
        ] {
            let trial = known_fork(engine, d, append, asked, wait);
            if let Some(rejection) = engine.tried(&spec, trial).await? {
                return Err(Error::unsupported("appending to a cache", vec![rejection]));
            }
        }
        Ok(())
    }
}

/// Which kernel a fork is tried for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Lengths,
    Copies,
}

/// Rows of the known fork: all that a page which is copied may share.
const SHARED: u32 = 11;

/// Rows go to one sequence, another becomes the same and gets a row more: both lengths count, and what they share is
/// the same.
async fn known_fork(
    engine: &Engine,
    d: &KvCacheDescriptor,
    append: &AppendDescriptor,
    asked: Asked,
    wait: Wait,
) -> Result<Option<String>> {
    let trial = Trial {
        engine,
        cache: small(d, 2, d.dim_v),
        append: AppendDescriptor { rows: SHARED, layout: Layout::Bhsd, rotary: None, ..*append },
        values: values(append, 2 * 2 * SHARED * d.dim_v),
        rotary: None,
    };
    let work = || {
        let (mut cache, bound, mut encoder) = trial.begin()?;
        cache.append(&mut encoder, &bound, &[SHARED, 0])?;
        cache.fork(&mut encoder, 0, 1)?;
        cache.append(&mut encoder, &bound, &[0, 1])?;
        let buffer = if asked == Asked::Lengths { &cache.state } else { &cache.k };
        let back = trial.end(encoder, buffer)?;
        Ok((cache, back))
    };
    let (cache, back) = settled(work).await?;
    let bytes = back.get(wait).await?;
    if asked == Asked::Lengths {
        let found: Vec<u32> =
            bytes.chunks_exact(4).take(2).map(bytemuck::pod_read_unaligned).collect();
        let wanted = cache.lengths();
        let wrong = format!("wrong in the self-test: lengths {found:?}, want {wanted:?}");
        return Ok((found != wanted).then_some(wrong));
    }
    let rows = SHARED as usize;
    let [first, second] = [0, 1].map(|sequence| cache.k_rows(&bytes, sequence));
    // Head by head, of which the second sequence's have a row more.
    let same = first.chunks(rows).zip(second.chunks(rows + 1)).all(|(a, b)| a == &b[..rows]);
    let kept = first.iter().flatten().any(|x| *x != 0.0);
    let wrong = "wrong in the self-test: a copied page is not what it was";
    Ok((!same || !kept).then(|| wrong.into()))
}

/// What is appended to a small cache, and how.
struct Trial<'a> {
    engine: &'a Engine,
    cache: KvCacheDescriptor,
    append: AppendDescriptor,
    values: Vec<f64>,
    rotary: Option<[&'a [f32]; 2]>,
}

impl Trial<'_> {
    /// An empty cache, and the append that takes the values as its keys and its values.
    fn begin(&self) -> Result<(KvCache, Append, wgpu::CommandEncoder)> {
        let device = self.engine.device();
        let cache = KvCache::make(self.engine, &self.cache)?;
        let bytes = self.append.dtype.encode(self.values.iter().copied());
        let source = upload(device, "known rows", &bytes, wgpu::BufferUsages::STORAGE)?;
        let rows = NewRows { k: (&source).into(), v: (&source).into(), rotary: self.rotary };
        let bound = cache.bind_unproved(self.engine, &self.append, &rows)?;
        Ok((cache, bound, device.create_command_encoder(&Default::default())))
    }

    /// What a buffer holds after all, on its way to the host.
    fn end(&self, mut encoder: wgpu::CommandEncoder, buffer: &wgpu::Buffer) -> Result<Readback> {
        let device = self.engine.device();
        let back = Readback::record(device, &mut encoder, buffer, 0, buffer.size())?;
        scoped(device, "submitting a self-test", 0, || {
            self.engine.queue().submit([encoder.finish()])
        })?;
        Ok(back)
    }
}

/// A cache of the same kind for 12 tokens of two heads.
fn small(d: &KvCacheDescriptor, sequences: u32, dim: u32) -> KvCacheDescriptor {
    let pages = d.pages.map(|_| [8, 4]);
    KvCacheDescriptor { pages, storage: d.storage, ..KvCacheDescriptor::new(sequences, 2, dim, 12) }
}

/// Values below 1 in magnitude, as the new rows hold them.
fn values(append: &AppendDescriptor, n: u32) -> Vec<f64> {
    let value = |i: u32| f64::from(i.wrapping_mul(0x9e37_79b9) >> 8) / f64::from(1 << 23) - 1.0;
    (0..n).map(|i| append.dtype.round(value(i))).collect()
}

async fn known_append(
    engine: &Engine,
    d: &KvCacheDescriptor,
    append: &AppendDescriptor,
    dim: u32,
    turned: bool,
    wait: Wait,
) -> Result<Option<String>> {
    // Every place is turned by half a circle: the channels that are turned change their sign.
    let half = (append.rotary.unwrap_or_default().0 / 2) as usize;
    let (cos, sin) = (vec![-1.0; 12 * half], vec![0.0; 12 * half]);
    let rotary = append.rotary.filter(|_| turned);
    let trial = Trial {
        engine,
        cache: small(d, 1, dim),
        append: AppendDescriptor { rows: ROWS, layout: Layout::Bhsd, rotary, ..*append },
        values: values(append, 2 * ROWS * dim),
        rotary: turned.then_some([cos.as_slice(), sin.as_slice()]),
    };
    let work = || {
        let (mut cache, bound, mut encoder) = trial.begin()?;
        cache.append(&mut encoder, &bound, &[ROWS])?;
        let back = trial.end(encoder, &cache.k)?;
        Ok((cache, back))
    };
    let (cache, back) = settled(work).await?;
    let found = cache.k_rows(&back.get(wait).await?, 0);
    let turned_channels = if turned { 2 * half } else { 0 };
    for (row, found) in trial.values.chunks(dim as usize).zip(&found) {
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
