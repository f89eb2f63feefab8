//! Split keys: what the path promises beside right results, and what a cache's tables may hold.

#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod common;

use heedful::device::Readback;
use heedful::reference::{Outputs, merge_states};
use heedful::verify::data::{CaseData, DataOptions, Lengths};
use heedful::{
    Align, Attention, DType, Engine, MergeStates, Path, Plan, Policy, Shape, Storage, Table,
    Tensors, wgpu,
};

fn shape(batch: u32, seq_q: u32, seq_kv: u32) -> Shape {
    Shape { batch, heads_q: 6, heads_kv: 2, seq_q, seq_kv, dim_qk: 40, dim_v: 24 }
}

fn split(batch_invariant: bool) -> Policy {
    Policy { path: Path::Split, batch_invariant, ..Policy::default() }
}

fn run(engine: &Engine, attention: &Attention, data: &CaseData, policy: &Policy) -> Outputs {
    let plan = engine.plan_with(attention, policy).unwrap();
    engine.run_host(&plan, &data.inputs()).unwrap()
}

/// The part of a sequence, a gapless `[batch, heads, seq, dim]` tensor's.
fn part(values: &[f64], batch: usize, of: usize) -> Vec<f64> {
    let n = values.len() / of;
    values[batch * n..][..n].to_vec()
}

/// A sequence alone, in a batch, and in a batch with a longer one has the same bits, at lengths on both sides of
/// the shares' ends.
#[test]
fn shares_of_a_fixed_size_do_not_see_the_batch() {
    let Some(engine) = common::gpu::engine("fixed_shares") else { return };
    for seq_q in [1, 5] {
        let call = |batch, keys| {
            let call = Attention::new(shape(batch, seq_q, keys)).kv_lengths().with_lse();
            call.causal(Align::BottomRight).sinks()
        };
        let many = call(3, 1400);
        let mut data = CaseData::generate(&many.validate().unwrap(), 5, &DataOptions::default());
        data.kv_lengths = vec![513, 1400, 511];
        let together = run(&engine, &many, &data, &split(true));
        for (batch, length) in [(0, 513), (2, 511)] {
            for room in [length, 700] {
                let alone = call(1, room);
                let keys = |values: &[f64], dim: usize| -> Vec<f64> {
                    let own = part(values, batch, 3);
                    let head = |h: usize| own[h * 1400 * dim..][..room as usize * dim].to_vec();
                    [head(0), head(1)].concat()
                };
                let own = CaseData {
                    q: part(&data.q, batch, 3),
                    k: keys(&data.k, 40),
                    v: keys(&data.v, 24),
                    kv_lengths: vec![length],
                    ..data.clone()
                };
                let found = run(&engine, &alone, &own, &split(true));
                assert_eq!(found.o, part(&together.o, batch, 3), "{seq_q} {length} {room}");
                assert_eq!(found.lse, part(&together.lse, batch, 3), "{seq_q} {length} {room}");
            }
        }
    }
}

#[test]
fn the_plan_says_how_keys_are_shared_out_and_why_not() {
    let problem = Attention::new(shape(1, 1, 8192)).validate().unwrap();
    let plan = |policy: &Policy| Plan::new(&problem, &Default::default(), policy);
    let text = plan(&Policy::default()).unwrap().to_string();
    assert!(text.contains("path    split"), "{text}");
    assert!(text.contains("shares  64 of the keys, as even as whole tiles are"), "{text}");
    let text = plan(&split(true)).unwrap().to_string();
    assert!(text.contains("shares  16 of the keys, of 512 keys"), "{text}");
    // More rows are split on tiles.
    let many = Attention::new(shape(1, 17, 8192));
    let text = Plan::new(&many.validate().unwrap(), &Default::default(), &split(false));
    let text = text.unwrap().to_string();
    assert!(text.contains("refused split_forward: 17 query rows, at most 16"), "{text}");
    assert!(text.contains("kernel  split_forward_group/"), "{text}");
    assert!(text.contains("shares  128 of the keys, as even as whole tiles are"), "{text}");
    // Partial results are scratch, which is limited.
    let little = Policy { max_workspace_bytes: 1000, ..split(false) };
    let text = plan(&little).unwrap_err().to_string();
    assert!(text.contains("B of partial results, allowed 1000"), "{text}");
}

#[test]
fn memory_beyond_the_tensors_follows_the_rows_not_the_keys() {
    let bytes = |keys| {
        let problem = Attention::new(shape(1, 1, keys)).validate().unwrap();
        let plan = Plan::new(&problem, &Default::default(), &split(false)).unwrap();
        assert_eq!(plan.path(), Path::Split);
        plan.workspace_bytes()
    };
    assert_eq!(bytes(1 << 15), bytes(1 << 18));
}

fn upload(engine: &Engine, bytes: &[u8]) -> wgpu::Buffer {
    let usage =
        wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let size = (bytes.len() as u64).next_multiple_of(4);
    let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
    let buffer = engine.device().create_buffer(&descriptor);
    engine.queue().write_buffer(&buffer, 0, bytes);
    buffer
}

/// A call whose lengths and page table live on the GPU, where nothing checks them.
fn with_tables_on_the_gpu(
    engine: &Engine,
    plan: &Plan,
    data: &CaseData,
    lengths: &[u32],
) -> Outputs {
    let a = plan.problem().attention();
    let rows = |dtype: DType, values: &[f64]| upload(engine, &dtype.encode(values.iter().copied()));
    let [k, v] = [&data.k, &data.v].map(|values| rows(DType::F16, values));
    let q = rows(DType::F32, &data.q);
    let words = |words: &[u32]| upload(engine, bytemuck::cast_slice(words));
    let (lengths, table) = (words(lengths), words(&data.page_table));
    let o = upload(engine, &vec![0; 4 * a.shape.elements()[3] as usize]);
    let lse = upload(engine, &vec![0; 4 * a.shape.rows() as usize]);
    let mut tensors = Tensors::new(&q, &k, &v, &o);
    tensors.lse = Some((&lse).into());
    tensors.kv_lengths = Some(Table::Buffer((&lengths).into()));
    tensors.page_table = Some(Table::Buffer((&table).into()));
    let bound = engine.bind(plan, &tensors).unwrap();
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    bound.encode(&mut encoder);
    let read = |buffer: &wgpu::Buffer, encoder: &mut wgpu::CommandEncoder| {
        Readback::record(engine.device(), encoder, buffer, 0, buffer.size()).unwrap()
    };
    let [o, lse] = [&o, &lse].map(|buffer| read(buffer, &mut encoder));
    engine.queue().submit([encoder.finish()]);
    let values = |back: Readback| DType::F32.decode(&back.read_blocking().unwrap());
    Outputs { o: values(o), lse: values(lse), weights: None }
}

fn paged(keys: u32) -> Attention {
    Attention::new(shape(2, 2, keys)).kv_storage(Storage::F16).paged(20, 8, 10).with_lse()
}

/// Where the host sees lengths and pages, wrong ones are errors that name them.
#[test]
fn lengths_and_pages_that_do_not_exist_are_refused_where_the_host_sees_them() {
    let Some(engine) = common::gpu::engine("pages_refused") else { return };
    let call = paged(80);
    let problem = call.validate().unwrap();
    let options = DataOptions { lengths: Lengths::Full, ..DataOptions::default() };
    let data = CaseData::generate(&problem, 3, &options);
    for path in [Path::Split, Path::Fused] {
        let plan = engine.plan_with(&call, &Policy { path, ..Policy::default() }).unwrap();
        let refused = |data: &CaseData| {
            let error = engine.run_host(&plan, &data.inputs()).unwrap_err();
            assert!(error.is_invalid(), "{error}");
            error.to_string()
        };
        engine.run_host(&plan, &data.inputs()).unwrap();
        let mut wrong = data.clone();
        wrong.kv_lengths[1] = 81;
        let text = refused(&wrong);
        assert!(text.contains("kv_lengths") && text.contains("81 for sequence 1"), "{text}");
        let mut wrong = data.clone();
        wrong.page_table[13] = 20;
        let text = refused(&wrong);
        assert!(text.contains("page_table") && text.contains("20 at 3 of sequence 1"), "{text}");
        // What lies past a length may hold anything.
        wrong.kv_lengths[1] = 24;
        engine.run_host(&plan, &wrong.inputs()).unwrap();
    }
}

/// Where only the GPU sees them, too long is as long as can be, and the keys of no page are masked.
#[test]
fn lengths_and_pages_that_do_not_exist_read_as_masked_on_the_gpu() {
    let Some(engine) = common::gpu::engine("pages_masked") else { return };
    let call = paged(77).causal(Align::BottomRight);
    let problem = call.validate().unwrap();
    let options = DataOptions { lengths: Lengths::Full, ..DataOptions::default() };
    let mut data = CaseData::generate(&problem, 3, &options);
    data.page_table[1] = 20;
    data.page_table[9] = u32::MAX;
    data.page_table[14] = 1 << 31;
    let truth = heedful::verify::truth::Truth::measure(&problem, &data.inputs()).unwrap();
    for path in [Path::Split, Path::Fused] {
        let plan = engine.plan_with(&call, &Policy { path, ..Policy::default() }).unwrap();
        let found = with_tables_on_the_gpu(&engine, &plan, &data, &[4_000_000_000, 99]);
        for (operand, comparison) in truth.check(&problem, &found) {
            assert!(comparison.pass, "{path} {operand}: {}", comparison.message());
        }
    }
}

/// Partial results of one call over parts of its keys, joined: the call's, a part that saw nothing included.
#[test]
fn merged_states_are_those_of_all_keys() {
    let Some(engine) = common::gpu::engine("merged_states") else { return };
    for (dtype, dim) in [(DType::F32, 24), (DType::F16, 7), (DType::Bf16, 32)] {
        let shape = Shape { dim_v: dim, ..shape(2, 3, 90) };
        let whole = Attention::new(shape).dtype(dtype).with_lse();
        let data = CaseData::generate(&whole.validate().unwrap(), 9, &DataOptions::default());
        // Keys 0..40, 40..40 and 40..90, by masks.
        let (mut parts_o, mut parts_lse) = (Vec::new(), Vec::new());
        for keys in [0..40, 40..40, 40..90] {
            let call = whole.clone().mask([1, 1, 1, 90]);
            let mask = (0..90).map(|key| keys.contains(&key)).collect();
            let outputs =
                run(&engine, &call, &CaseData { mask, ..data.clone() }, &Policy::default());
            parts_o.extend(outputs.o);
            parts_lse.extend(outputs.lse);
        }
        let merge = MergeStates { parts: 3, rows: shape.rows() as u32, dim_v: dim, dtype };
        let [o_in, o] = [parts_o.len(), parts_o.len() / 3]
            .map(|n| upload(&engine, &dtype.encode(parts_o[..n].iter().copied())));
        let [lse_in, lse] = [parts_lse.len(), parts_lse.len() / 3]
            .map(|n| upload(&engine, &DType::F32.encode(parts_lse[..n].iter().copied())));
        let bound = engine
            .bind_merge(&merge, [(&o_in).into(), (&lse_in).into()], [(&o).into(), (&lse).into()])
            .unwrap();
        let mut encoder = engine.device().create_command_encoder(&Default::default());
        bound.encode(&mut encoder);
        let read = |buffer: &wgpu::Buffer, encoder: &mut wgpu::CommandEncoder| {
            Readback::record(engine.device(), encoder, buffer, 0, buffer.size()).unwrap()
        };
        let [o, lse] = [&o, &lse].map(|buffer| read(buffer, &mut encoder));
        engine.queue().submit([encoder.finish()]);
        let found = [
            dtype.decode(&o.read_blocking().unwrap()),
            DType::F32.decode(&lse.read_blocking().unwrap()),
        ];
        let (wanted_o, wanted_lse) = merge_states(&parts_o, &parts_lse, 3, dim as usize);
        let truth = whole.validate().unwrap().reference(&data.inputs()).unwrap();
        let unit = match dtype {
            DType::F32 => 2e-6,
            DType::F16 => 2e-3,
            DType::Bf16 => 2e-2,
        };
        for (found, wanted, truth) in
            [(&found[0], &wanted_o, &truth.o), (&found[1], &wanted_lse, &truth.lse)]
        {
            for ((x, y), z) in found.iter().zip(wanted).zip(truth) {
                assert!(
                    (x - y).abs() <= unit && (x - z).abs() <= 3.0 * unit,
                    "{dtype}: {x}, {y}, {z}"
                );
            }
        }
        let error = engine
            .bind_merge(
                &MergeStates { parts: 0, ..merge },
                [(&o_in).into(), (&lse_in).into()],
                [(&o_in).into(), (&lse_in).into()],
            )
            .unwrap_err();
        assert_eq!(error.argument(), Some("parts"));
    }
}
