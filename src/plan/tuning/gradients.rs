//! Shapes of gradients on tiles, and how many kernels they are.

use super::table::Class;
use crate::kernel::Repeats;

/// Which gradients on tiles have kernels of their own, whose sums are the only ones in registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Apart {
    /// None: 4 products for the gradient of q, and 4 for those of k and v.
    Nothing,
    /// That of q, behind what the others need of its rows: 5 products and 4.
    Queries,
    /// Each: 5 products and 5.
    All,
}

/// Shape of the workgroups of gradients on tiles up to a head dimension.
#[derive(Debug, Clone, Copy)]
pub(super) struct GradientRow {
    pub(super) class: Class,
    pub(super) device: &'static str,
    pub(super) max_dim: u32,
    /// Invocations along what is owned and across, and rows or keys of the other side.
    pub(super) shape: [u32; 3],
    pub(super) repeats: Repeats,
    /// Which gradients have kernels of their own.
    pub(super) apart: Apart,
    /// Whether registers hold all of it.
    pub(super) fits: bool,
}

const fn gradient(
    class: Class,
    device: &'static str,
    max_dim: u32,
    shape: [u32; 3],
    repeats: Repeats,
) -> GradientRow {
    GradientRow { class, device, max_dim, shape, repeats, apart: Apart::Nothing, fits: true }
}

impl GradientRow {
    const fn apart(self, apart: Apart) -> Self {
        Self { apart, ..self }
    }

    const fn spills(self) -> Self {
        Self { fits: false, ..self }
    }
}

/// The rows that ship. Of each pair an invocation has two products, and of its columns up to two sums.
///
/// NVIDIA: one H200, f32, 1x16x4096 by dim, TFLOP/s by the convention of 2.5 forward passes; 16 by 16, 16 by 8 and 8 by
/// 16 with 64 keys, 16 by 16 with 128, staged: dim 64 17.6, 17.5, 17.9, 15.1, 4.7; dim 128 17.1, 19.1, 19.2, 17.3, 8.8;
/// dim 256 15.8, 12.8, 12.2, 16.9, 14.4. In loops, 16 by 16 at dim 64: 9.6.
///
/// Others by what Mesa 26.2 compiles (`benches/record/compilers`), not measured: rows without a mark spill nothing.
/// What else was tried, registers that spill in f32 without a mask (a row changed, then `scripts/gpu-compilers`):
/// - DG2: rows and keys in one kernel each, 16 by 16 in eights, 113 and 14 at dim 64; each gradient apart so at dim 128
///   6 to 11, and 57 % of issue slots for the 48 of 8 by 32.
/// - M1: 16 by 16 in loops of one step 112 and 84 at dim 128, 373 and 420 at 256; the gradient of q in the kernel of
///   rows 5 at dim 64 and 3 at 128 under a causal mask.
/// - Adreno 740, which spills nothing: 16 by 16 in loops of one step has 4 waves, and 53 and 44 % of issue slots at
///   dims 64 and 128; these have 6, and 55 and 52 %.
///
/// Software: the path is not chosen there, and its tests take all forms.
pub(super) const GRADIENTS: &[GradientRow] = &[
    gradient(Class::Software, "", 16, [8, 32, 128], Repeats::Eights).apart(Apart::All),
    gradient(Class::Software, "", 32, [16, 16, 64], Repeats::Loops),
    gradient(Class::Software, "", 64, [16, 16, 64], Repeats::Eights).apart(Apart::Queries),
    gradient(Class::Software, "", 128, [8, 32, 128], Repeats::Eights),
    gradient(Class::Software, "", 512, [16, 16, 64], Repeats::Loops),
    gradient(Class::Any, "NVIDIA", 128, [8, 16, 64], Repeats::Written),
    gradient(Class::Any, "NVIDIA", 256, [16, 16, 128], Repeats::Written),
    gradient(Class::Any, "AMD", 256, [16, 16, 64], Repeats::Written),
    gradient(Class::Any, "Adreno", 64, [16, 16, 64], Repeats::Eights),
    gradient(Class::Any, "Adreno", 128, [8, 32, 128], Repeats::Eights),
    gradient(Class::Any, "Adreno", 256, [8, 32, 128], Repeats::Eights).apart(Apart::All),
    gradient(Class::Any, "Intel", 64, [16, 16, 64], Repeats::Eights).apart(Apart::All),
    gradient(Class::Any, "Intel", 128, [8, 32, 128], Repeats::Eights).apart(Apart::All),
    gradient(Class::Any, "Intel", 256, [8, 32, 128], Repeats::Eights).apart(Apart::All).spills(),
    gradient(Class::Any, "", 64, [16, 16, 64], Repeats::Eights).apart(Apart::Queries),
    gradient(Class::Any, "", 128, [8, 32, 128], Repeats::Eights).apart(Apart::Queries),
    gradient(Class::Any, "", 256, [8, 32, 128], Repeats::Eights).apart(Apart::All),
    gradient(Class::Any, "", 512, [16, 16, 64], Repeats::Loops).spills(),
];
