//! Attention on Burn's tensors against Burn's own operations, forward and gradients, shapes at random.

mod common;

use burn::tensor::{Bool, DType, Tensor, TensorData};
use common::{Draw, Numbers, burns, device, same};
use heedful_burn::Attend;
use heedful_burn::heedful::{Align, Normalizer, Operand, Scalar};

/// The gradients that both sides have of the same tensors.
#[track_caller]
fn gradients<const N: usize>(
    name: &str,
    tensors: [(&str, Tensor<4>); N],
    found: Tensor<4>,
    wanted: Tensor<4>,
    d_o: &Tensor<4>,
) {
    same(&format!("{name}: o"), found.clone(), wanted.clone());
    let found = (found * d_o.clone()).sum().backward();
    let wanted = (wanted * d_o.clone()).sum().backward();
    for (of, tensor) in tensors {
        let [found, wanted] = [&found, &wanted].map(|all| tensor.grad(all).expect("a gradient"));
        same(&format!("{name}: gradient of {of}"), found, wanted);
    }
}

#[test]
fn random_shapes_masks_and_biases() {
    let mut numbers = Numbers::new(1);
    for round in 0..6 {
        let (batch, heads_kv, group) =
            (1 + numbers.below(3), 1 + numbers.below(3), 1 + numbers.below(3));
        let (rows, keys) = (1 + numbers.below(40), 1 + numbers.below(70));
        let (dim_qk, dim_v) = (1 + numbers.below(40), 1 + numbers.below(40));
        let heads = heads_kv * group;
        let q = numbers.tensor([batch, heads, rows, dim_qk]).require_grad();
        let k = numbers.tensor([batch, heads_kv, keys, dim_qk]).require_grad();
        let v = numbers.tensor([batch, heads_kv, keys, dim_v]).require_grad();
        let d_o = numbers.tensor([batch, heads, rows, dim_v]);
        let scale = 0.1 + numbers.below(10) as f32 / 10.0;
        let some = |numbers: &mut Numbers, n: usize| if numbers.below(2) == 0 { 1 } else { n };
        let shape = [
            some(&mut numbers, batch),
            some(&mut numbers, heads),
            some(&mut numbers, rows),
            some(&mut numbers, keys),
        ];
        let bias = numbers.tensor(shape).require_grad();
        // Key 0 is always seen: of rows that see nothing Burn's operations say something else.
        let first = Tensor::<4, Bool>::from_data(
            TensorData::new((0..keys).map(|key| key == 0).collect::<Vec<_>>(), [1, 1, 1, keys]),
            &device(),
        );
        let blocked = numbers.flags([shape[0], 1, shape[2], keys], 3);
        let blocked = blocked.clone().bool_and(first.expand(blocked.shape()).bool_not());

        let name = format!("{round}: {batch}x{heads}/{heads_kv}x{rows}x{keys}x{dim_qk}/{dim_v}");
        let qkv = || [q.clone(), k.clone(), v.clone()];
        let attend = || {
            let [q, k, v] = qkv();
            Attend::new(q, k, v).scale(scale)
        };
        let found = attend().bias(bias.clone()).blocked(blocked.clone()).run().expect(&name).o;
        let wanted = burns(qkv(), scale, Some(bias.clone()), Some(blocked));
        let tensors =
            [("q", q.clone()), ("k", k.clone()), ("v", v.clone()), ("bias", bias.clone())];
        gradients(&name, tensors, found, wanted, &d_o);

        let causal = Tensor::<2, Bool>::tril_mask([rows, keys], 0, &device());
        let found = attend().causal(Align::TopLeft).run().expect(&name).o;
        let wanted = burns(qkv(), scale, None, Some(causal.reshape([1, 1, rows, keys])));
        let tensors = [("q", q.clone()), ("k", k.clone()), ("v", v.clone())];
        gradients(&format!("{name}, causal"), tensors, found, wanted, &d_o);
    }
}

#[test]
fn heads_swapped_out_of_channels_are_read_and_written_in_place() {
    let mut numbers = Numbers::new(2);
    let x = numbers.tensor([2, 24, 3, 16]).require_grad();
    let y = numbers.tensor([2, 24, 3, 16]).require_grad();
    let d_o = numbers.tensor([2, 3, 24, 16]);
    let heads = |x: &Tensor<4>| x.clone().swap_dims(1, 2);
    let found = Attend::new(heads(&x), heads(&y), heads(&y)).run().expect("a call").o;
    // o lies as q was read: copied, both would be without gaps in the order of their dimensions.
    let lies = found.clone().inner().try_into_primitive::<burn::backend::Cube>();
    assert_eq!(lies.expect("a tensor of the GPU").meta.strides().to_vec(), [1152, 16, 48, 1]);
    let wanted = burns([heads(&x), heads(&y), heads(&y)], 0.25, None, None);
    gradients("swapped", [("x", x), ("y", y)], found, wanted, &d_o);
}

#[test]
fn transposed_and_expanded_tensors_are_copied_first() {
    let mut numbers = Numbers::new(3);
    let q = numbers.tensor([1, 2, 8, 20]).require_grad();
    let k = numbers.tensor([1, 1, 30, 8]).require_grad();
    let d_o = numbers.tensor([1, 2, 20, 8]);
    let turned = || q.clone().swap_dims(2, 3);
    let wide = || k.clone().expand([1, 2, 30, 8]);
    let found = Attend::new(turned(), wide(), wide()).run().expect("a call").o;
    let wanted = burns([turned(), wide(), wide()], 8_f32.powf(-0.5), None, None);
    gradients("transposed", [("q", q), ("k", k)], found, wanted, &d_o);
}

#[test]
fn slices_of_one_projection_are_told_apart() {
    let mut numbers = Numbers::new(4);
    // [batch, seq, 3, heads, dim], as one matrix gives q, k and v.
    let packed = numbers.tensor([2, 3 * 4 * 8, 17, 1]).require_grad();
    let part = |i: usize| {
        let rows = packed.clone().reshape([2, 96, 17]).swap_dims(1, 2);
        let part = rows.slice([0..2, 0..17, 32 * i..32 * (i + 1)]);
        part.reshape([2, 17, 4, 8]).swap_dims(1, 2)
    };
    let d_o = numbers.tensor([2, 4, 17, 8]);
    let found = Attend::new(part(0), part(1), part(2)).run().expect("a call").o;
    let wanted = burns([part(0), part(1), part(2)], 8_f32.powf(-0.5), None, None);
    gradients("slices", [("packed", packed)], found, wanted, &d_o);
}

#[test]
fn sinks_and_slopes_have_gradients() {
    let mut numbers = Numbers::new(5);
    let [q, k, v] = [0; 3].map(|_| numbers.tensor([1, 3, 9, 8]));
    let sinks = numbers.tensor([3]).require_grad();
    let slopes = numbers.tensor([3]).require_grad();
    let d_o = numbers.tensor([1, 3, 9, 8]);
    let call = Attend::new(q.clone(), k.clone(), v.clone());
    let call = call.sinks(sinks.clone()).alibi(slopes.clone(), Align::TopLeft);
    let found = (call.run().expect("a call").o * d_o.clone()).sum().backward();

    // A sink is a key whose value is 0; a slope is a bias by distance.
    let distance: Vec<f32> = (0..81).map(|i| -((i / 9) as f32 - (i % 9) as f32).abs()).collect();
    let distance = Tensor::<4>::from_data(TensorData::new(distance, [1, 1, 9, 9]), &device());
    let bias = distance * slopes.clone().reshape([1, 3, 1, 1]);
    let scores = q.matmul(k.swap_dims(2, 3)).mul_scalar(8_f32.powf(-0.5)) + bias;
    let column = sinks.clone().reshape([1, 3, 1, 1]).expand([1, 3, 9, 1]);
    let weights = burn::tensor::activation::softmax(Tensor::cat(vec![scores, column], 3), 3);
    let wanted = weights.slice([0..1, 0..3, 0..9, 0..9]).matmul(v);
    let wanted = (wanted * d_o).sum().backward();
    for (name, tensor) in [("sinks", sinks), ("slopes", slopes)] {
        let [found, wanted] = [&found, &wanted].map(|all| tensor.grad(all).expect("a gradient"));
        same(name, found, wanted);
    }
}

#[test]
fn packed_sequences_are_each_its_own() {
    let mut numbers = Numbers::new(6);
    let starts = [0_u32, 5, 5, 18, 31];
    let [q, k, v] = [0; 3].map(|_| numbers.tensor([31, 2, 8]).require_grad());
    let d_o = numbers.tensor([31, 2, 8]);
    let found = Attend::packed(q.clone(), k.clone(), v.clone(), &starts, &starts);
    let found = found.causal(Align::TopLeft).run().expect("a call").o;
    let parts = starts.windows(2).filter(|ends| ends[0] < ends[1]).map(|ends| {
        let (from, to) = (ends[0] as usize, ends[1] as usize);
        let part =
            |x: &Tensor<3>| x.clone().narrow(0, from, to - from).swap_dims(0, 1).unsqueeze::<4>();
        let n = to - from;
        let causal = Tensor::<2, Bool>::tril_mask([n, n], 0, &device()).reshape([1, 1, n, n]);
        let o = burns([part(&q), part(&k), part(&v)], 8_f32.powf(-0.5), None, Some(causal));
        o.reshape([2, n, 8]).swap_dims(0, 1)
    });
    let wanted = Tensor::cat(parts.collect(), 0);
    same("packed o", found.clone(), wanted.clone());
    let found = (found * d_o.clone()).sum().backward();
    let wanted = (wanted * d_o).sum().backward();
    for (name, tensor) in [("q", q), ("k", k), ("v", v)] {
        let [found, wanted] = [&found, &wanted].map(|all| tensor.grad(all).expect("a gradient"));
        same(&format!("packed, gradient of {name}"), found, wanted);
    }
}

#[test]
fn dropout_leaves_out_the_same_in_both_passes() {
    let mut numbers = Numbers::new(7);
    let [q, k] = [0; 2].map(|_| numbers.tensor([1, 2, 12, 8]).require_grad());
    let v = numbers.tensor([1, 2, 12, 8]).require_grad();
    let call = |seed| {
        let call = Attend::new(q.clone(), k.clone(), v.clone()).dropout(0.5, seed);
        call.with_weights().run().expect("a call")
    };
    let [first, again, other] = [call(1), call(1), call(2)];
    same("the same seed", again.o, first.o.clone());
    assert!(common::differ(other.o, first.o.clone()) > 0.01, "another seed leaves out others");
    // o is linear in v: its gradient is the weights that stayed, transposed.
    let weights = first.weights.expect("weights").inner();
    let gradient = v.grad(&first.o.sum().backward()).expect("a gradient");
    let wanted = weights.sum_dim(2).swap_dims(2, 3).expand([1, 2, 12, 8]);
    same("gradient of v", gradient, wanted);
}

#[test]
fn half_precision_is_stored_as_it_comes() {
    let device = device();
    if !device.supports_dtype(DType::F16) {
        eprintln!("UNSUPPORTED f16: not on this device");
        return;
    }
    let mut numbers = Numbers::new(8);
    let [q, k, v] = [0; 3].map(|_| numbers.tensor([1, 2, 33, 16]).cast(DType::F16));
    let wide = [&q, &k, &v].map(|x| x.clone().cast(DType::F32).detach());
    let [q, k, v] = [q, k, v].map(|x| x.detach().require_grad());
    let o = Attend::new(q.clone(), k, v).causal(Align::TopLeft).run().expect("a call").o;
    assert_eq!(o.dtype(), DType::F16);
    let causal = Tensor::<2, Bool>::tril_mask([33, 33], 0, &device).reshape([1, 1, 33, 33]);
    let wide = wide.map(Tensor::require_grad);
    let wanted = burns(wide.clone(), 0.25, None, Some(causal));
    assert!(common::differ(o.clone().cast(DType::F32), wanted.clone()) < 2e-3);
    let d_q = q.grad(&o.sum().backward()).expect("a gradient").cast(DType::F32);
    let wanted = wide[0].grad(&wanted.sum().backward()).expect("a gradient");
    assert!(common::differ(d_q, wanted) < 5e-3);
}

#[test]
fn whatever_the_engine_knows_can_be_asked() {
    let mut numbers = Numbers::new(9);
    let [q, k, v] = [0; 3].map(|_| numbers.tensor([1, 1, 6, 4]));
    let ids = Tensor::<2, burn::tensor::Int>::from_data([[0, 0, 1, 1, 1, 2]], &device());
    let call = Attend::new(q.clone(), k.clone(), v.clone()).with(|call| call.segments());
    let call = call.operand(Operand::SegmentsQ, ids.clone()).operand(Operand::SegmentsKv, ids);
    let found = call.run().expect("a call").o;
    let apart: Vec<bool> =
        (0..36).map(|i| [0, 0, 1, 1, 1, 2][i / 6] != [0, 0, 1, 1, 1, 2][i % 6]).collect();
    let apart = Tensor::<4, Bool>::from_data(TensorData::new(apart, [1, 1, 6, 6]), &device());
    same("segments", found, burns([q.clone(), k.clone(), v.clone()], 0.5, None, Some(apart)));

    let sparse = Attend::new(q, k, v).with(|call| call.normalizer(Normalizer::Sparsemax));
    let weights = sparse.with_weights().run().expect("a call").weights.expect("weights");
    let sums = weights.sum_dim(3);
    same("sparsemax sums to 1", sums.clone(), Tensor::ones(sums.shape(), &device()));
}

#[test]
fn every_tensor_may_be_plain() {
    let mut numbers = Numbers::new(10);
    let [q, k, v] = [0; 3].map(|_| numbers.tensor([1, 2, 5, 4]));
    let call = Attend::new(q.clone().inner(), k.clone().inner(), v.clone().inner()).with_lse();
    let found = call.run().expect("a call");
    same("o", found.o, burns([q.inner(), k.inner(), v.inner()], 0.5, None, None));
    assert_eq!(found.lse.expect("lse").dims(), [1, 2, 5]);
}

#[test]
fn other_normalisers_have_gradients() {
    let mut numbers = Numbers::new(11);
    let [q, k] = [0; 2].map(|_| numbers.tensor([1, 2, 7, 4]).require_grad());
    let v = numbers.tensor([1, 2, 7, 4]).require_grad();
    let d_o = numbers.tensor([1, 2, 7, 4]);
    let call = Attend::new(q.clone(), k.clone(), v.clone());
    let relu = Normalizer::Relu { power: 1, divisor: Scalar(7.0) };
    let found = call.with(|call| call.normalizer(relu)).run().expect("a call").o;
    let scores = q.clone().matmul(k.clone().swap_dims(2, 3)).mul_scalar(0.5);
    let weights = burn::tensor::activation::relu(scores).div_scalar(7.0);
    gradients("relu", [("q", q), ("k", k), ("v", v.clone())], found, weights.matmul(v), &d_o);
}

#[test]
fn other_scores_have_gradients() {
    let mut numbers = Numbers::new(12);
    let [q, k] = [0; 2].map(|_| numbers.tensor([2, 2, 5, 4]).require_grad());
    let v = numbers.tensor([2, 2, 5, 4]).require_grad();
    let d_o = numbers.tensor([2, 2, 5, 4]);
    let vector = numbers.tensor([4]).require_grad();
    let softmax = burn::tensor::activation::softmax;
    let call = || Attend::new(q.clone(), k.clone(), v.clone());
    let check = |name: &str, found: Tensor<4>, wanted: Tensor<4>, learned: &Tensor<2>| {
        same(&format!("{name}: o"), found.clone(), wanted.clone());
        let found = (found * d_o.clone()).sum().backward();
        let wanted = (wanted * d_o.clone()).sum().backward();
        for tensor in [&q, &k, &v] {
            let [found, wanted] =
                [&found, &wanted].map(|all| tensor.grad(all).expect("a gradient"));
            same(name, found, wanted);
        }
        let [found, wanted] = [&found, &wanted].map(|all| learned.grad(all).expect("a gradient"));
        same(&format!("{name}: what is learned"), found, wanted);
    };

    let matrix = numbers.tensor([4, 4]).require_grad();
    let found = call().with(|call| call.general(4).scale(1.0));
    let found = found.operand(Operand::ScoreMatrix, matrix.clone()).run().expect("a call").o;
    let turned = q.clone().matmul(matrix.clone().unsqueeze());
    let wanted = softmax(turned.matmul(k.clone().swap_dims(2, 3)), 3).matmul(v.clone());
    check("general", found, wanted, &matrix);

    let row = vector.reshape([1, 4]).detach().require_grad();
    let found = call().with(|call| call.additive(1.0));
    let found = found.operand(Operand::ScoreV, row.clone()).run().expect("a call").o;
    let pairs = q.clone().unsqueeze_dim::<5>(3) + k.clone().unsqueeze_dim::<5>(2);
    let scores = (pairs.tanh() * row.clone().unsqueeze::<5>()).sum_dim(4).squeeze_dim::<4>(4);
    let wanted = softmax(scores, 3).matmul(v.clone());
    check("additive", found, wanted, &row);

    let centers = (numbers.tensor([2, 5]) + 2.0).detach().require_grad();
    let found = call().with(|call| call.local_gaussian(8.0));
    let found = found.operand(Operand::Centers, centers.clone()).run().expect("a call").o;
    let places = Tensor::<4>::from_data([[[[0.0, 1.0, 2.0, 3.0, 4.0]]]], &device());
    let off = places - centers.clone().unsqueeze_dim::<3>(1).unsqueeze_dim::<4>(3);
    let near = (off.clone() * off).div_scalar(-32.0).exp();
    let scores = q.clone().matmul(k.clone().swap_dims(2, 3)).mul_scalar(0.5);
    check("local", found, (softmax(scores, 3) * near).matmul(v.clone()), &centers);
}

#[test]
fn weights_are_returned_beside_gradients() {
    let mut numbers = Numbers::new(14);
    let [q, k] = [0; 2].map(|_| numbers.tensor([1, 2, 6, 4]).require_grad());
    let v = numbers.tensor([1, 2, 6, 4]).require_grad();
    let d_o = numbers.tensor([1, 2, 6, 4]);
    let found = Attend::new(q.clone(), k.clone(), v.clone()).with_weights().with_lse().run();
    let found = found.expect("a call");
    let wanted = burns([q.clone(), k.clone(), v.clone()], 0.5, None, None);
    let weights = found.weights.expect("weights").inner();
    same("weights times v", weights.matmul(v.clone().inner()), wanted.clone().inner());
    assert_eq!(found.lse.expect("lse").dims(), [1, 2, 6]);
    gradients("weights", [("q", q), ("k", k), ("v", v)], found.o, wanted, &d_o);
}

#[test]
fn one_query_serves_a_batch() {
    let mut numbers = Numbers::new(13);
    let q = numbers.tensor([1, 2, 1, 4]).require_grad();
    let k = numbers.tensor([3, 2, 7, 4]).require_grad();
    let v = numbers.tensor([3, 2, 7, 4]).require_grad();
    let d_o = numbers.tensor([3, 2, 1, 4]);
    let found = Attend::new(q.clone(), k.clone(), v.clone()).run().expect("a call").o;
    let wide = q.clone().expand([3, 2, 1, 4]);
    let wanted = burns([wide, k.clone(), v.clone()], 0.5, None, None);
    gradients(
        "one query",
        [("q", q.clone()), ("k", k.clone()), ("v", v.clone())],
        found,
        wanted,
        &d_o,
    );
    let plain = Attend::new(q.inner(), k.clone().inner(), v.clone().inner()).run();
    assert_eq!(plain.expect("a call").o.dims(), [3, 2, 1, 4]);
}
