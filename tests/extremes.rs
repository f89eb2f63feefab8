//! Sizes at the ends of their ranges: nothing that computes with them panics, overflows or divides by 0.

use heedful::Operands;
use heedful::plan::{Capabilities, Plan, Policy};
use heedful::{
    Align, Attention, Axis, Blocks, Broadcast, DType, Layout, Neighborhood, Operand, Path, Problem,
    Shape, Storage, Strides,
};
use proptest::prelude::*;
use proptest::sample::select;

const ENDS: [u32; 12] =
    [0, 1, 2, 3, 64, 512, 1 << 16, 1 << 20, 1 << 28, i32::MAX as u32, u32::MAX - 1, u32::MAX];

fn end() -> impl Strategy<Value = u32> {
    select(&ENDS[..])
}

fn wide() -> impl Strategy<Value = u64> {
    prop_oneof![end().prop_map(u64::from), select(vec![1 << 46, u64::MAX / 2, u64::MAX])]
}

fn shape() -> impl Strategy<Value = Shape> {
    let few = || prop_oneof![2 => end(), 1 => 0_u32..6];
    (few(), few(), few(), few(), few(), few(), few()).prop_map(
        |(batch, heads_q, heads_kv, seq_q, seq_kv, dim_qk, dim_v)| Shape {
            batch,
            heads_q,
            heads_kv,
            seq_q,
            seq_kv,
            dim_qk,
            dim_v,
        },
    )
}

/// Shapes that calls may have, up to the largest.
fn valid_shape() -> impl Strategy<Value = Shape> {
    let seq = || select(vec![0, 1, 2, 3, 64, 1 << 20, 1 << 28]);
    let dim = || select(vec![1, 3, 64, 512]);
    let heads = select(vec![1, 2, 1 << 15]);
    (select(vec![0, 1, 2, 1 << 16, 1 << 24]), heads, 1_u32..3, seq(), seq(), dim(), dim()).prop_map(
        |(batch, heads_kv, group, seq_q, seq_kv, dim_qk, dim_v)| Shape {
            batch,
            heads_q: heads_kv * group,
            heads_kv,
            seq_q,
            seq_kv,
            dim_qk,
            dim_v,
        },
    )
}

fn layout() -> impl Strategy<Value = Layout> {
    let strides = (wide(), wide(), wide())
        .prop_map(|(batch, head, row)| Layout::Strided(Strides { batch, head, row }));
    prop_oneof![Just(Layout::Bhsd), Just(Layout::Bshd), strides]
}

fn align() -> impl Strategy<Value = Align> {
    let offset = select(vec![i32::MIN, -(1 << 28), 0, 1 << 28, i32::MAX]);
    prop_oneof![
        Just(Align::TopLeft),
        Just(Align::BottomRight),
        Just(Align::PerBatch),
        offset.prop_map(Align::Offset)
    ]
}

fn attention() -> impl Strategy<Value = Attention> {
    // Few at once, so that most calls are valid.
    let features = (0_u32..7, 0_u32..7).prop_map(|(a, b)| 1 << a | 1 << b);
    let sides = (end(), end(), align(), features);
    let tables = (end(), end(), end(), end());
    let storage = select(Storage::ALL);
    let shape = prop_oneof![1 => shape(), 4 => valid_shape()];
    (shape, [layout(), layout(), layout(), layout()], sides, tables, storage).prop_map(
        |(shape, [q, k, v, o], (left, right, align, features), (a, b, c, d), storage)| {
            let mut call = Attention::new(shape);
            let on = |bit: u32| features >> bit & 1 == 1;
            if on(0) {
                call = call.causal(align).window(Some(left), Some(right), align);
            }
            if on(1) {
                call = call.mask([a, 1, 1, 1]).bias([1, shape.heads_q, 1, shape.seq_kv]);
            }
            if on(6) {
                call = call.mask([shape.batch, 1, shape.seq_q, shape.seq_kv]).q_lengths();
            }
            if on(2) {
                call = call.packed(a, b);
            }
            if on(3) {
                call = call.kv_lengths().paged(a, b, c);
            }
            if on(4) {
                call = call.blocks(Blocks { rows: a, keys: b, batch: c, heads: d });
            }
            if on(5) {
                call = call.layout_q(q).layout_k(k).layout_v(v).layout_o(o);
            }
            call.kv_storage(storage).with_lse().dtype(DType::F16)
        },
    )
}

/// Everything that a valid problem answers without tensors.
fn ask(problem: &Problem, at: [u32; 3]) {
    let none = Operands::default();
    for operand in [Operand::Q, Operand::K, Operand::V, Operand::O] {
        let _ = (problem.strides(operand), problem.dim(operand), problem.extent(operand));
        let _ = (problem.prepares(operand), problem.storage(operand), problem.row_units(operand));
        let _ = problem.index(operand, at, &none);
    }
    let _ = (problem.scores(), problem.masks(), problem.operands(), problem.to_string());
    let _ = (problem.align(), problem.needs_offsets(), problem.scale());
    let _ = (problem.page_of(at[0], at[2], &none), problem.stores(at[0], at[2], &none));
    let _ = (problem.lse_index(at, &none), problem.lengths(at[0], &none));
    let _ = problem.key_range(&problem.position(at[0], at[1], at[2], &none));
    let s = problem.attention().shape;
    // Sequences are counted one by one, and under a mask rows.
    if s.batch <= 1 << 16 && (s.seq_q <= 64 || problem.masks().is_empty()) {
        let _ = (problem.flops(&none), problem.min_bytes(&none));
    }
    for path in [Path::Auto, Path::Fused, Path::Split, Path::Staged] {
        if let Ok(plan) =
            Plan::new(problem, &Capabilities::default(), &Policy { path, ..Policy::default() })
        {
            let _ = (plan.to_string(), plan.workspace_bytes(), plan.kernels());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn shapes_and_layouts_compute_at_the_ends_of_their_ranges(
        shape in shape(), layout in layout(),
        at in [wide(), wide(), wide(), wide()], axes in [end(), end(), end(), end()],
    ) {
        let [a, b, c, d] = axes;
        let _ = (shape.elements(), shape.rows(), shape.group(), shape.to_string());
        let _ = shape.row_positions().next();
        let strides = layout.strides(a, b, c);
        let _ = (strides.index(at[0], at[1], at[2]), strides.span(at[0], at[1], at[2], at[3]));
        let broadcast = Broadcast(axes);
        let _ = (broadcast.elements(), broadcast.strides(), broadcast.index([d, c, b, a]));
        let blocks = Blocks { rows: a, keys: b, batch: c, heads: d };
        let _ = (blocks.strides(&shape), blocks.words(&shape), blocks.density(&shape, &[u32::MAX]));
        let axis = Axis { n: a, size: b, stride: c, dilation: d, causal: a > b };
        let _ = (axis.sees(b, c), axis.sees(d, a));
        let grid = [Neighborhood([axis; 3]), Neighborhood::line(a, b), Neighborhood::image(a, b, c)];
        let _ = grid.map(|grid| grid.points());
        let _ = Storage::ALL.iter().map(|storage| (storage.row_units(a), storage.bytes(at[0])));
    }

    #[test]
    fn calls_are_refused_or_answer_everything(attention in attention(), at in [end(), end(), end()]) {
        match attention.validate() {
            Ok(problem) => ask(&problem, at),
            Err(error) => prop_assert!(error.argument().is_some(), "{}", error),
        }
    }
}

#[test]
fn what_is_too_large_to_count_is_the_largest_number() {
    let shape = Shape { batch: u32::MAX, ..Shape::self_attention(1, u32::MAX, u32::MAX, u32::MAX) };
    assert_eq!((shape.elements(), shape.rows()), ([u64::MAX; 4], u64::MAX));
    let none = Shape { seq_q: 0, ..shape };
    assert_eq!((none.elements()[0], none.elements()[3], none.rows()), (0, 0, 0));
    assert_eq!(Broadcast([u32::MAX; 4]).elements(), u64::MAX);
    assert_eq!(Layout::Bhsd.strides(u32::MAX, u32::MAX, u32::MAX).batch, u64::MAX);
}

#[test]
fn a_diagonal_whose_offsets_are_not_there_is_that_of_offset_0() {
    let shape = Shape::self_attention(3, 2, 8, 4);
    let pairs = |align| {
        let problem = Attention::new(shape).causal(align).validate().expect("a valid call");
        problem.flops(&Operands::default())
    };
    assert_eq!(pairs(Align::PerBatch), pairs(Align::TopLeft));
}

/// Rows that are read may overlap or be one; rows that are written may not.
#[test]
fn only_outputs_must_lie_apart() {
    let shape = Shape::self_attention(2, 2, 9, 16);
    let of = |row| Layout::Strided(Strides { batch: 2000, head: 500, row });
    for row in [0, 1, 5, 15] {
        let call = Attention::new(shape);
        let inputs = call.clone().layout_q(of(row)).layout_k(of(row)).layout_v(of(row));
        assert!(inputs.validate().is_ok(), "inputs {row} apart");
        let error = call.layout_o(of(row)).validate().expect_err("rows overlap");
        assert_eq!(error.argument(), Some("o strides"));
        let text = error.to_string();
        assert!(text.contains(&format!("row: {row}")) && text.contains("distinct"), "{text}");
    }
    assert!(Attention::new(shape).layout_o(of(16)).validate().is_ok());
}
