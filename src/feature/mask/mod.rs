//! Masks: predicates that are AND-ed. True means attend.
//!
//! A mask is a file here and one in `shaders/slot/mask`: what it is made of, its meaning, its text, its
//! parameters and tensors. From its two lines below follow its place in [`Masks`], and so in
//! [`Attention`](crate::Attention), in files of calls and workloads, in kernels, in the grid of cases and in
//! reports.
//!
//! Lengths are not a mask of their own: every kernel knows `kv_len` and `q_len` of a sequence and
//! never looks past them.

pub mod bits;
pub mod blocks;
pub mod causal;
pub mod chunked;
pub mod dense;
pub mod dilated;
pub mod edges;
pub mod local;
pub mod neighborhood;
pub mod segments;
pub mod tree;
pub mod window;

pub use neighborhood::Axis;

use std::ops::Range;

use super::align::Align;
use super::{Entry, Operand, Operands, Position, Setting, Slot};
use crate::error::{Error, Result};
use crate::tensor::{Broadcast, Shape};

/// A mask: its WGSL, its meaning, and the keys it can rule out for a whole row at once.
pub trait Mask {
    /// The WGSL file. Its functions are `fn mask_{name}(p: Position) -> bool` and
    /// `fn mask_{name}_range(rows: Rows, keys: vec2<i32>) -> vec2<i32>`.
    fn slot(&self) -> Slot;
    /// A word for names of cases, plans and messages: what it is, and in brackets what it is made of.
    fn text(&self) -> String;
    /// The alignment of the diagonal that it looks at; masks of one call must agree on it.
    fn align(&self) -> Option<Align> {
        None
    }
    /// Checks it against the shape of its call.
    ///
    /// # Errors
    /// An invalid-argument error that names what cannot be, what it holds and what it may hold.
    fn validate(&self, _: &Shape) -> Result<()> {
        Ok(())
    }
    /// Where packed sequences cannot have it: what is wanted instead.
    fn unpacked(&self) -> Option<&'static str> {
        None
    }
    /// The tensors that come with it, each with its elements.
    fn operands(&self, _: &Shape) -> Vec<(Operand, u64)> {
        Vec::new()
    }
    /// Values of the slot's parameters.
    fn parameters(&self, _: &Shape) -> Vec<Setting> {
        Vec::new()
    }
    /// Whether the row may attend to the key, in a call of the given shape.
    fn keeps(&self, at: &Position, operands: &Operands<'_>, shape: &Shape) -> bool;
    /// Narrows the keys that `row` can attend to; `keys` as it is when the mask hides no whole ranges.
    fn narrow(&self, _row: u32, _diagonal: i64, keys: Range<i64>) -> Range<i64> {
        keys
    }
    /// Keys that n neighbouring rows see at most, without n; `None` where there is no such bound.
    fn reach(&self) -> Option<u32> {
        None
    }
    /// Whether weights are multiplied with its [`factor`](Self::factor).
    fn weighs(&self) -> bool {
        false
    }
    /// What the weight of a visible key is multiplied with after it is normalised.
    fn factor(&self, _: &Position, _: &Operands<'_>, _: &Shape) -> f64 {
        1.0
    }
    /// The element of a tensor that the factor takes in, and the derivative of the factor by it.
    fn factor_entry(&self, _: &Position, _: &Operands<'_>, _: &Shape) -> Option<Entry> {
        None
    }
}

/// A mask of the library's own: one that has a place in [`Masks`].
pub trait Kind: Mask + Copy {
    /// Some of the kind, each of which hides some pair of a call of at least 8 rows and as many keys and shows
    /// another: cases of the grid where there are none of its own, and what tests try.
    fn examples(shape: &Shape) -> Vec<Self>;
    /// The same with numbers of the self-test's own, for its smaller call of the given shape: the kernels stay.
    fn known(self, _: &Shape) -> Self {
        self
    }
}

/// A number of positions that kernels count in i32.
fn positions(argument: &str, n: u32) -> Result<()> {
    if n == 0 || n > 1 << 28 {
        return Err(Error::invalid(argument, n, "1..=2^28"));
    }
    Ok(())
}

macro_rules! masks {
    ($($name:ident: $Mask:ident,)*) => {
        $(pub use $name::$Mask;)*

        /// The WGSL files.
        pub(crate) const SLOTS: &[Slot] = &[$($name::SLOT),*];

        /// The masks of a call, at most one of each kind: a key is visible where all of them keep it.
        ///
        /// ```
        /// use heedful::feature::mask::{Causal, Chunked, Masks};
        /// use heedful::{Align, Attention, Shape};
        /// let align = Align::TopLeft;
        /// let masks = Masks { chunked: Some(Chunked { size: 64, align }), ..Masks::default() };
        /// let masks = masks.with(Causal { align });
        /// assert_eq!(masks.iter().count(), 2);
        /// let shape = Shape::self_attention(1, 8, 256, 64);
        /// assert_eq!(Attention::new(shape).chunked(64, align).causal(align).masks, masks);
        /// ```
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
        pub struct Masks {
            $(
                #[doc = concat!("See [`", stringify!($Mask), "`].")]
                #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
                pub $name: Option<$Mask>,
            )*
        }

        impl Masks {
            /// The names of the kinds, in the order in which masks are asked: those of their WGSL files.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),*];

            /// Those that are there, in the order of [`NAMES`](Self::NAMES).
            pub fn iter(&self) -> impl Iterator<Item = &dyn Mask> {
                [$(self.$name.as_ref().map(|mask| mask as &dyn Mask)),*].into_iter().flatten()
            }

            /// [`Kind::examples`] of every kind, each alone.
            pub fn examples(shape: &Shape) -> Vec<Self> {
                let mut all = Vec::new();
                $(all.extend($Mask::examples(shape).into_iter().map(|x| Self::default().with(x)));)*
                all
            }

            /// [`Kind::known`] of each.
            pub(crate) fn known(self, shape: &Shape) -> Self {
                Self { $($name: self.$name.map(|mask| mask.known(shape)),)* }
            }
        }

        $(
            impl Place for $Mask {
                fn place(masks: &mut Masks) -> &mut Option<Self> {
                    &mut masks.$name
                }
            }
        )*
    };
}

// In the order in which kernels ask them and names list them.
masks! {
    causal: Causal,
    window: Window,
    dilated: Dilated,
    chunked: Chunked,
    neighborhood: Neighborhood,
    edges: Edges,
    local: Local,
    dense: Dense,
    bits: Bits,
    segments: Segments,
    tree: Tree,
    blocks: Blocks,
}

/// Where a kind of masks is kept.
pub trait Place: Sized {
    /// Its place among the masks of a call.
    fn place(masks: &mut Masks) -> &mut Option<Self>;
}

impl Masks {
    /// These and another; of two of one kind the later stays.
    pub fn with<M: Place>(mut self, mask: M) -> Self {
        *M::place(&mut self) = Some(mask);
        self
    }

    /// The shape of the boolean mask, in bytes or in bits.
    pub(crate) fn boolean_shape(&self) -> Option<Broadcast> {
        self.dense.map(|mask| mask.0).or(self.bits.map(|mask| mask.0))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}
