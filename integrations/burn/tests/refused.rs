//! What does not fit is an error with a name, and nothing is recorded.

mod common;

use burn::tensor::{Int, Tensor};
use common::{Draw, Numbers, device};
use heedful_burn::heedful::{Normalizer, Operand};
use heedful_burn::{Attend, Error};

#[track_caller]
fn refused<const D: usize>(call: Attend<D>, words: &[&str]) {
    let message = call.run().expect_err("an error").to_string();
    for word in words {
        assert!(message.contains(word), "{word:?} is not in {message:?}");
    }
}

fn qkv() -> [Tensor<4>; 3] {
    let mut numbers = Numbers::new(1);
    [0; 3].map(|_| numbers.tensor([2, 4, 6, 8]))
}

#[test]
fn shapes_that_do_not_fit() {
    let mut numbers = Numbers::new(2);
    let [q, k, v] = qkv();
    refused(
        Attend::new(q.clone(), numbers.tensor([3, 4, 6, 8]), v.clone()),
        &["q", "[2, 4, 6, 8]", "[3, 4, 6, 8]"],
    );
    refused(
        Attend::new(q.clone(), k.clone(), numbers.tensor([2, 4, 5, 8])),
        &["v", "[2, 4, 6, 8]"],
    );
    refused(Attend::new(numbers.tensor([2, 4, 6, 7]), k.clone(), v.clone()), &["q: dim", "8"]);
    let three = [numbers.tensor([2, 3, 6, 8]), numbers.tensor([2, 3, 6, 8])];
    let [k3, v3] = three;
    refused(Attend::new(q.clone(), k3, v3), &["heads"]);
    let call = || Attend::new(q.clone(), k.clone(), v.clone());
    refused(call().bias(numbers.tensor([2, 4, 6, 5])), &["bias", "[2, 4, 6, 6]"]);
    refused(call().blocked(numbers.flags([2, 4, 5, 6], 2)), &["blocked", "[2, 4, 6, 6]"]);
    refused(call().sinks(numbers.tensor([3])), &["sinks", "3", "4"]);
    let lengths = Tensor::<1, Int>::from_data([3], &device());
    refused(call().lengths(lengths), &["kv_lengths", "1", "2"]);
}

#[test]
fn tables_that_do_not_fit_packed_rows() {
    let mut numbers = Numbers::new(3);
    let x = numbers.tensor([10, 2, 4]);
    let call = |starts: &[u32]| Attend::packed(x.clone(), x.clone(), x.clone(), starts, starts);
    refused(call(&[0, 4, 9]), &["starts_q", "10"]);
    refused(call(&[0, 6, 4, 10]), &["starts_q"]);
    refused(call(&[]), &["starts_q"]);
    refused(Attend::packed(x.clone(), x.clone(), x.clone(), &[0, 10], &[0, 4, 10]), &["starts_kv"]);
}

#[test]
fn storage_that_does_not_fit() {
    let [q, k, v] = qkv();
    let half = k.clone().cast(burn::tensor::DType::F16);
    refused(Attend::new(q.clone(), half, v.clone()), &["k dtype", "f32"]);
    let wide = Tensor::<1, Int>::from_data([3_i64, 3], (&device(), burn::tensor::DType::I64));
    refused(Attend::new(q, k, v).lengths(wide), &["kv_lengths", "I64"]);
}

#[test]
fn what_is_announced_but_not_given() {
    let [q, k, v] = qkv();
    refused(Attend::new(q, k, v).with(|call| call.segments()), &["segments_q", "no tensor"]);
}

#[test]
fn gradients_that_there_are_not() {
    let [q, k, v] = qkv();
    let call = || {
        let call = Attend::new(q.clone().require_grad(), k.clone(), v.clone());
        call.with(|call| call.normalizer(Normalizer::Hard))
    };
    refused(call(), &["gradients", "normalizer"]);
    // Without gradients it is served.
    let plain = Attend::new(q.clone().inner(), k.clone().inner(), v.clone().inner());
    plain.with(|call| call.normalizer(Normalizer::Hard)).run().expect("a call");
}

#[test]
fn a_device_that_was_not_opened_here() {
    drop(device());
    // Another runtime of the same adapter, by Burn's own words.
    let options = burn::tensor::Device::wgpu_options().device_kind(burn::tensor::DeviceKind::Cpu);
    let Ok((other, setup)) = options.init_with_setup() else {
        eprintln!("UNSUPPORTED second device: this machine has no processor's adapter");
        return;
    };
    let x = Tensor::<4>::ones([1, 1, 4, 4], &other);
    let call = || Attend::new(x.clone(), x.clone(), x.clone());
    let error = call().run().expect_err("an error");
    assert!(
        matches!(error, Error::Invalid { .. }) && error.to_string().contains("heedful_burn::open")
    );

    let k = Tensor::<4>::ones([1, 1, 4, 4], &device().inner());
    heedful_burn::share(&other, &setup).expect("a device");
    refused(Attend::new(x.clone(), k, x.clone()), &["k device", "where q is"]);
    call().run().expect("a call");
    assert!(
        heedful_burn::engine(&other).expect("an engine").capabilities().max_workgroup_bytes > 0
    );
}

#[test]
fn too_many_tables_for_a_step() {
    let [q, k, v] = qkv();
    let mut call = Attend::new(q.require_grad(), k, v);
    use Operand::{AlibiSlopes, HeadScale, Relative, ScoreMatrix, ScoreV, Sinks};
    for operand in [AlibiSlopes, HeadScale, Relative, ScoreMatrix, ScoreV, Sinks] {
        call = call.operand(operand, Tensor::<1>::ones([4], &device()));
    }
    refused(call, &["float tensors", "at most 8"]);
}

#[test]
fn what_is_given_twice_or_is_no_table() {
    let mut numbers = Numbers::new(4);
    let [q, k, v] = qkv();
    let call = || Attend::new(q.clone(), k.clone(), v.clone());
    let mut mask = || numbers.flags([2, 1, 1, 6], 2);
    refused(call().blocked(mask()).blocked(mask()), &["mask", "two tensors"]);
    refused(
        call().sinks(Tensor::ones([4], &device())).operand(Operand::Q, v.clone()),
        &["operand", "q"],
    );
    refused(call().with(|call| call.paged(4, 2, 3)), &["k", "pages"]);
}
