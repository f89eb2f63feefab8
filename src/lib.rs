//! Attention for every GPU: tiled WGSL kernels on [`wgpu`], on your device, your buffers and your
//! encoder, checked against a float64 reference.
//!
//! ```text
//! o = softmax(mask(bias + cap(scale · q kᵀ))) v
//! ```
//!
//! with grouped heads, any head dimension from 1 to 1024 (dim_qk ≠ dim_v too), causal masks and
//! windows with explicit alignment, boolean masks and additive biases of any broadcast shape, lengths
//! per sequence, softcap, ALiBi, sinks, dropout, f32, f16 and bf16 storage in any strides, keys and values of 8 and 4
//! bits too ([`Storage`]), log-sum-exp and scores or weights as outputs; other scores ([`Attention::additive`],
//! [`general`](Attention::general), [`cosine`](Attention::cosine)) and [`Normalizer`]s, [`Rotary`] and [`Relative`]
//! positions, masks by place ([`Neighborhood`], [`Edges`], chunks, dilation, predicted [centres](Attention::local)),
//! [`Blocks`] of a sparse mask; and [`layer::MultiHeadAttention`] around it all. Keys and values that stay from step
//! to step are in a [`cache::KvCache`]. [`Backward`] says which gradients of a call are wanted,
//! [`layer::LayerBackward`] which of a layer.
//!
//! # The three nouns
//! [`Attention`] says what is asked, as plain data. [`Plan`] says how it will run: computed without a
//! GPU, printable, with the reason each other candidate was refused. [`Engine`] is where it runs: a
//! wgpu device (yours, or one of its own) with its compiled kernels.
//!
//! ```no_run
//! use heedful::{Align, Attention, Engine, Shape, Tensors, wgpu};
//!
//! # fn main() -> heedful::Result<()> {
//! let engine = Engine::new_blocking()?; // or Engine::from_wgpu(device, queue)
//! let shape = Shape { heads_kv: 2, ..Shape::self_attention(1, 8, 512, 64) };
//! let attention = Attention::new(shape).causal(Align::TopLeft);
//! let plan = engine.plan(&attention)?;
//! println!("{plan}");
//!
//! let buffer = |bytes| {
//!     engine.device().create_buffer(&wgpu::BufferDescriptor {
//!         label: None,
//!         size: bytes,
//!         usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST,
//!         mapped_at_creation: false,
//!     })
//! };
//! let [q, k, v, o] = shape.elements().map(|n| buffer(4 * n));
//! // Made once; recording it any number of times allocates nothing.
//! let bound = engine.bind(&plan, &Tensors::new(&q, &k, &v, &o))?;
//!
//! let mut encoder = engine.device().create_command_encoder(&Default::default());
//! bound.encode(&mut encoder); // one compute pass; nothing is submitted, nothing waits
//! engine.queue().submit([encoder.finish()]);
//! # Ok(())
//! # }
//! ```
//!
//! # Gallery
//! Who sees whom: rows down, keys across. Masks are AND-ed in any combination, with these and with tensors.
//!
//! ```
//! use heedful::{Align::TopLeft, Attention, Neighborhood, Operands, Position, Shape};
//!
//! let call = || Attention::new(Shape::self_attention(1, 1, 8, 16));
//! let calls = [
//!     call().causal(TopLeft),
//!     call().window(Some(2), Some(0), TopLeft),
//!     call().chunked(4, TopLeft).causal(TopLeft),
//!     call().dilated(2, TopLeft).causal(TopLeft),
//!     call().neighborhood(Neighborhood::line(8, 3)),
//! ];
//! let pictures = [
//!     "#.......   #.......   #.......   #.......   ###.....",
//!     "##......   ##......   ##......   .#......   ###.....",
//!     "###.....   ###.....   ###.....   #.#.....   .###....",
//!     "####....   .###....   ####....   .#.#....   ..###...",
//!     "#####...   ..###...   ....#...   #.#.#...   ...###..",
//!     "######..   ...###..   ....##..   .#.#.#..   ....###.",
//!     "#######.   ....###.   ....###.   #.#.#.#.   .....###",
//!     "########   .....###   ....####   .#.#.#.#   .....###",
//! ];
//! for (row, wanted) in pictures.iter().enumerate() {
//!     let drawn = calls.each_ref().map(|call| {
//!         let (problem, none) = (call.validate().unwrap(), Operands::default());
//!         let at = problem.position(0, 0, row as u32, &none);
//!         let sees = |key| problem.sees(&Position { key, ..at }, &none);
//!         (0..8).map(|key| if sees(key) { '#' } else { '.' }).collect::<String>()
//!     });
//!     assert_eq!(drawn.join("   "), *wanted);
//! }
//! ```
//!
//! The examples of the repository show the rest: `sequence_labeling` positions, `image_neighborhood` a picture's
//! neighbourhoods, `graph_attention` a molecule, `translation_decoder` general and additive scores, `learn_qkv`
//! gradients, `generate_step` a cache, `sentence_embedding` a whole model, `own_device` an application's arena,
//! `two_devices` one call over two. The guide, `docs/guide.md`, answers questions one by one.
//!
//! # What can be relied on
//! - A row that may attend to nothing gives o = 0 and lse = −∞ (with a sink: lse = sink). Masks decide that,
//!   never logits. NaN or infinity in a masked key never leaks; in a visible one it shows, whatever the key's
//!   weight.
//! - Scores are f32. One of −∞ by data has weight 0 beside others; a row that sees nothing else, or sees NaN
//!   or +∞, is NaN.
//! - Scores, sums and outputs are accumulated in f32 whatever the storage type. On matrix units, which are opt-in
//!   ([`Policy::matrix_units`]), operands and weights are f16.
//! - Two runs of a plan on one device give the same bits; so does a row alone and in a batch, on the split path
//!   with [`Policy::batch_invariant`].
//! - Bad input is a typed [`Error`] that names the argument, what was found and what is wanted; an
//!   unsupported call lists each candidate kernel and why it was refused; nothing panics, and no
//!   device-wide callback is installed on a borrowed device.
//! - How near results are to the float64 reference is written down in `verify::compare` (feature
//!   `verify`) and tested on every case.
//!
//! # Features
//! `gles` and `webgpu` forward wgpu's backends; `serde` makes descriptors serialisable; `verify` and `bench`
//! are what the command line is made of. On wasm32, where nothing may wait on the thread, both have their forms that
//! await: `verify` no recorded cases, `bench` no gradients and no search of tile shapes. The default has none of them:
//! Vulkan, Metal and DX12.
//!
//! # Layers
//! Imports only go down, and a test enforces it:
//! `error < tensor < feature < problem < {reference | kernel} < plan < device < engine < {cache | layer} < verify < bench`.

#[cfg(feature = "bench")]
pub mod bench;
pub mod cache;
pub mod device;
pub mod engine;
pub mod error;
// What an application needs of these two stands below; the rest is for the command line and this repository's tests.
#[doc(hidden)]
pub mod feature;
#[doc(hidden)]
pub mod kernel;
pub mod layer;
pub mod plan;
pub mod problem;
pub mod reference;
pub mod tensor;
#[cfg(feature = "verify")]
pub mod verify;

pub use engine::{
    BackwardTensors, BlockBuilder, Bound, BoundBackward, BufferView, Engine, Merge, MergeStates,
    PreparedRows, Table, Tensors,
};
pub use error::{Error, Rejection, Result};
#[doc(inline)]
pub use feature::align::Align;
#[doc(inline)]
pub use feature::custom::{CustomMask, CustomScore};
#[doc(inline)]
pub use feature::inner::{Activation, Inner};
#[doc(inline)]
pub use feature::mask::{Axis, Blocks, Edges, Neighborhood, Tree};
#[doc(inline)]
pub use feature::normalize::Normalizer;
#[doc(inline)]
pub use feature::prepare::Rotary;
#[doc(inline)]
pub use feature::rotary::{LongRope, RotaryScaling, Yarn};
#[doc(inline)]
pub use feature::rotary_config::RotaryConfig;
#[doc(inline)]
pub use feature::score::{Alibi, KvScales, Relative};
#[doc(inline)]
pub use feature::{Operands, Position};
#[doc(inline)]
pub use plan::tuning::Tuning;
pub use plan::{BackwardPlan, Capabilities, Checks, Path, Plan, Policy, SelfTest};
pub use problem::{Attention, Backward, BackwardProblem, Operand, Problem, WeightsAt};
pub use tensor::{Broadcast, DType, Layout, Scalar, Shape, Storage, Strides};
pub use wgpu;

/// README's code is compiled with the documentation tests.
#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct Readme;

/// So is every block of the guide; some of them compare results, which takes the feature.
#[doc = include_str!("../docs/guide.md")]
#[cfg(all(doctest, feature = "verify"))]
struct Guide;
