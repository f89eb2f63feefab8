//! Masks of an [`Attention`]: the methods that say which keys a row sees.

use crate::error::{Error, Result};
use crate::feature::align::Align;
use crate::feature::custom::CustomMask;
use crate::feature::mask::{
    Bits, Blocks, Causal, Chunked, Dense, Dilated, Edges, Local, Neighborhood, Place, Segments,
    Tree, Window,
};
use crate::problem::Attention;
use crate::tensor::{Broadcast, Scalar};

impl Attention {
    /// Adds a mask, whatever its kind; a second of one kind takes the place of the first.
    #[doc(hidden)]
    pub fn masked<M: Place>(mut self, mask: M) -> Self {
        self.masks = self.masks.with(mask);
        self
    }

    /// Hides keys after the diagonal.
    pub fn causal(self, align: Align) -> Self {
        self.masked(Causal { align })
    }

    /// Hides keys further than `left` before or `right` after the diagonal; `None` is unbounded.
    pub fn window(self, left: Option<u32>, right: Option<u32>, align: Align) -> Self {
        self.masked(Window { left, right, align })
    }

    /// Keeps every `step`-th key, counted from the diagonal; usually together with a window.
    pub fn dilated(self, step: u32, align: Align) -> Self {
        self.masked(Dilated { step, align })
    }

    /// Keeps keys in the chunk of `size` positions in which the row's diagonal lies.
    pub fn chunked(self, size: u32, align: Align) -> Self {
        self.masked(Chunked { size, align })
    }

    /// Keeps the neighbours on a grid whose points are both rows and keys.
    pub fn neighborhood(self, neighborhood: Neighborhood) -> Self {
        self.masked(neighborhood)
    }

    /// Keeps keys at most `reach` from a center per row, `centers` `[batch, seq_q]` among the tensors (Luong et al.,
    /// 2015).
    pub fn local(self, reach: f32) -> Self {
        self.masked(Local { reach: Scalar(reach), gaussian: false })
    }

    /// [`local`](Self::local), and weights are multiplied with exp(−(j − center)² / 2σ²), σ = reach / 2, after
    /// they are normalised.
    pub fn local_gaussian(self, reach: f32) -> Self {
        self.masked(Local { reach: Scalar(reach), gaussian: true })
    }

    /// Centers of local attention as Luong et al. (2015) predict them: seq_kv · sigmoid(vᵀ tanh(W h_i)) for each
    /// state h_i, of which there is one for each query row.
    ///
    /// `states` are `[batch, seq_q, width]`, `w` `[hidden, width]`, `v` `[hidden]`; what is returned is the table
    /// `centers` of [`local`](Self::local), `[batch, seq_q]`, in keys.
    ///
    /// ```
    /// use heedful::{Attention, Shape};
    /// let call = Attention::new(Shape { seq_q: 1, ..Shape::self_attention(1, 1, 10, 8) }).local(2.0);
    /// // tanh(0) = 0, so the sigmoid is in the middle.
    /// assert_eq!(call.predicted_centers(&[0.0, 0.0], &[1.0, 2.0], &[3.0])?, [5.0]);
    /// # Ok::<(), heedful::Error>(())
    /// ```
    ///
    /// # Errors
    /// Invalid argument naming `w` where it has no rows of one length for the elements of `v`, and `states` where they
    /// are not a row of that length for each query row.
    pub fn predicted_centers(&self, states: &[f64], w: &[f64], v: &[f64]) -> Result<Vec<f64>> {
        let elements = |n: usize| format!("{n} elements");
        let width = w.len().checked_div(v.len()).unwrap_or(0);
        if width == 0 || width * v.len() != w.len() {
            let wanted = format!("{} rows of one length, as v has elements", v.len());
            return Err(Error::invalid("w", elements(w.len()), wanted));
        }
        let rows = u64::from(self.shape.batch) * u64::from(self.shape.seq_q);
        if states.len() as u64 != rows.saturating_mul(width as u64) {
            let wanted = format!("{rows} rows of {width}");
            return Err(Error::invalid("states", elements(states.len()), wanted));
        }
        let center = |h: &[f64]| {
            let hidden = w.chunks(width).map(|row| row.iter().zip(h).map(|(w, h)| w * h).sum());
            let sum: f64 = hidden.zip(v).map(|(x, v): (f64, _)| v * x.tanh()).sum();
            f64::from(self.shape.seq_kv) / (1.0 + (-sum).exp())
        };
        Ok(states.chunks_exact(width).map(center).collect())
    }

    /// Keeps the edges of a graph given as compressed rows; [`Edges::rows`] makes them from pairs. The same
    /// for all sequences and heads. On the fused path work is proportional to the edges.
    pub fn edges(self, edges: Edges) -> Self {
        self.masked(edges)
    }

    /// Keeps of each row of a tree the keys before the tree, its own and those of the nodes above it; `parents` come
    /// with the tensors.
    pub fn tree(self, tree: Tree) -> Self {
        self.masked(tree)
    }

    /// Announces a boolean mask of shape `[batch|1, heads_q|1, seq_q|1, seq_kv|1]`, a byte each; nonzero = attend.
    pub fn mask(self, shape: [u32; 4]) -> Self {
        self.masked(Dense(Broadcast(shape)))
    }

    /// Announces a boolean mask of shape `[batch|1, heads_q|1, seq_q|1, seq_kv|1]` in bits, an eighth as large as
    /// [`mask`](Self::mask): bit i % 8 of byte i / 8 for element i, without gaps between rows.
    pub fn mask_bits(self, shape: [u32; 4]) -> Self {
        self.masked(Bits(Broadcast(shape)))
    }

    /// Announces segment ids: documents that share a sequence do not see each other. Ids are any numbers,
    /// in any order.
    pub fn segments(self) -> Self {
        self.masked(Segments {})
    }

    /// Announces a block table, so that blocks without a visible pair cost nothing; see [`Blocks::table`]
    /// and [`Engine::bind_blocks`](crate::Engine::bind_blocks).
    pub fn blocks(self, blocks: Blocks) -> Self {
        self.masked(blocks)
    }

    /// Adds a mask of the caller's own, fused into every kernel.
    pub fn keep(mut self, mask: CustomMask) -> Self {
        self.custom_masks.push(mask);
        self
    }
}
