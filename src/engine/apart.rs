//! Tensors in one buffer: outputs lie apart from all else but the input that they replace, and kernels bind such a
//! buffer one way only.

use crate::engine::BufferView;
use crate::engine::range::BoundRange;
use crate::error::{Error, Result};
use crate::kernel::{Access, Binding, KernelSpec};
use crate::plan::Capabilities;

/// The bytes of a tensor from its first element to its last.
#[derive(Clone, Copy)]
pub(crate) struct Extent<'a> {
    pub(crate) name: &'static str,
    pub(crate) view: BufferView<'a>,
    pub(crate) bytes: u64,
    /// Whether the call writes it.
    pub(crate) written: bool,
    /// The input whose very bytes it may have.
    pub(crate) over: Option<&'static str>,
}

impl<'a> Extent<'a> {
    pub(crate) fn read(name: &'static str, view: BufferView<'a>, bytes: u64) -> Self {
        Self { name, view, bytes, written: false, over: None }
    }

    pub(crate) fn written(name: &'static str, view: BufferView<'a>, bytes: u64) -> Self {
        Self { name, view, bytes, written: true, over: None }
    }

    fn ends(&self) -> [u64; 2] {
        [self.view.offset, self.view.offset.saturating_add(self.bytes)]
    }

    fn overlaps(&self, other: &Self) -> bool {
        let ([a, b], [c, d]) = (self.ends(), other.ends());
        self.view.buffer == other.view.buffer && a.max(c) < b.min(d)
    }

    /// Whether this output lies just where the input does that it may replace.
    fn replaces(&self, other: &Self) -> bool {
        self.over == Some(other.name)
            && self.view.buffer == other.view.buffer
            && self.ends() == other.ends()
    }
}

/// Refuses an output that shares bytes with any other tensor but the one that it replaces.
pub(crate) fn check_apart(extents: &[Extent<'_>]) -> Result<()> {
    for (i, output) in extents.iter().enumerate().filter(|(_, x)| x.written) {
        let other = extents.iter().enumerate().find(|(j, other)| {
            // Of two outputs the later one is named.
            let differs = *j != i && (!other.written || *j < i);
            differs && other.overlaps(output) && !output.replaces(other)
        });
        if let Some((_, other)) = other {
            let ([a, b], [c, d]) = (output.ends(), other.ends());
            let found =
                format!("bytes {a}..{b}, where {} is at {c}..{d} of the buffer", other.name);
            return Err(Error::invalid(output.name, found, "bytes of its own"));
        }
    }
    Ok(())
}

/// The variant for the ranges of a dispatch: what is read from a buffer that the dispatch also writes is declared
/// writable.
///
/// Ranges start at aligned offsets, so those of neighbours may overlap though their tensors do not. That is
/// harmless except in a browser, which refuses it.
pub(crate) fn shared_for(
    mut spec: KernelSpec,
    ranges: &[(Binding, BoundRange)],
    caps: &Capabilities,
) -> Result<KernelSpec> {
    spec.build.shared.clear();
    let kinds = spec.bindings();
    let written = |binding: Binding| {
        kinds.iter().any(|kind| kind.binding == binding && kind.access == Access::ReadWrite)
    };
    let buffer_is_written = |range: &BoundRange| {
        ranges.iter().any(|(other, x)| written(*other) && x.buffer == range.buffer)
    };
    let shared = ranges.iter().filter(|(binding, x)| !written(*binding) && buffer_is_written(x));
    spec.build.shared = shared.map(|(binding, _)| *binding).collect();
    spec.build.shared.sort_unstable();
    if caps.refuses_overlaps() {
        for (i, (binding, a)) in ranges.iter().enumerate() {
            let overlaps = |b: &BoundRange| {
                let starts = a.offset.max(b.offset);
                a.buffer == b.buffer && starts < (a.offset + a.size).min(b.offset + b.size)
            };
            let other = ranges[..i].iter().find(|(_, b)| buffer_is_written(a) && overlaps(b));
            if let Some((other, b)) = other {
                let found = format!(
                    "bytes {}..{} bound, where {} is bound at {}..{} of the buffer",
                    a.offset,
                    a.offset + a.size,
                    other.name(),
                    b.offset,
                    b.offset + b.size
                );
                let wanted = match a.offset == b.offset {
                    true => "a range of its own, as browsers want it".to_owned(),
                    false => {
                        format!("tensors that start at multiples of {}", caps.storage_alignment)
                    }
                };
                return Err(Error::invalid(binding.name(), found, wanted));
            }
        }
    }
    Ok(spec)
}
