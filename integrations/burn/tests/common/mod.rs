//! The device of the tests, numbers, and attention by Burn's own operations.
#![allow(dead_code, reason = "each test takes what it needs")]

#[path = "../../examples/shared/mod.rs"]
pub(crate) mod shared;

use burn::tensor::activation::softmax;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

pub(crate) use shared::Numbers;

/// One device for all tests of a file, with gradients.
pub(crate) fn device() -> Device {
    shared::device().expect("a device")
}

/// Tensors of the test's device.
pub(crate) trait Draw {
    fn tensor<const D: usize>(&mut self, shape: [usize; D]) -> Tensor<D>;
    /// True about once in `one_in`.
    fn flags<const D: usize>(&mut self, shape: [usize; D], one_in: usize) -> Tensor<D, Bool>;
}

impl Draw for Numbers {
    fn tensor<const D: usize>(&mut self, shape: [usize; D]) -> Tensor<D> {
        self.tensor_on(shape, &device())
    }

    fn flags<const D: usize>(&mut self, shape: [usize; D], one_in: usize) -> Tensor<D, Bool> {
        let n: usize = shape.iter().product();
        let values: Vec<bool> = (0..n).map(|_| self.below(one_in) == 0).collect();
        Tensor::from_data(TensorData::new(values, shape), &device())
    }
}

/// softmax(mask(bias + scale · q kᵀ)) v by Burn's own operations; heads of k and v serve a group each.
pub(crate) fn burns(
    [q, k, v]: [Tensor<4>; 3],
    scale: f32,
    bias: Option<Tensor<4>>,
    blocked: Option<Tensor<4, Bool>>,
) -> Tensor<4> {
    let (heads, group) = (q.dims()[1], q.dims()[1] / k.dims()[1]);
    // Not by repeat_dim: once, Burn 0.22.1 has a wrong gradient of k (tests/upstream.rs).
    let each: Vec<i32> = (0..heads).map(|head| (head / group) as i32).collect();
    let each = Tensor::<1, Int>::from_data(each.as_slice(), &q.device());
    let [k, v] = [k, v].map(|x| x.select(1, each.clone()));
    let mut scores = q.matmul(k.swap_dims(2, 3)).mul_scalar(scale);
    if let Some(bias) = bias {
        scores = scores + bias;
    }
    if let Some(blocked) = blocked {
        let blocked = blocked.expand(scores.shape());
        scores = scores.mask_fill(blocked, -1e30);
    }
    softmax(scores, 3).matmul(v)
}

/// The largest difference, beside what the wanted are at most; of small sums, which may be of large terms, beside 0.1.
pub(crate) fn differ<const D: usize>(found: Tensor<D>, wanted: Tensor<D>) -> f32 {
    assert_eq!(found.dims(), wanted.dims());
    let floats = |x: Tensor<D>| -> Vec<f32> { x.into_data().iter::<f32>().collect() };
    let (found, wanted) = (floats(found), floats(wanted));
    let most = wanted.iter().fold(0.1_f32, |most, x| most.max(x.abs()));
    let pairs = found.iter().zip(&wanted);
    pairs.fold(
        0.0,
        |worst, (a, b)| if (a - b).is_nan() { f32::NAN } else { worst.max((a - b).abs()) },
    ) / most
}

/// Asserts that two tensors agree to f32 sums of a few hundred terms.
#[track_caller]
pub(crate) fn same<const D: usize>(name: &str, found: Tensor<D>, wanted: Tensor<D>) {
    let off = differ(found, wanted);
    assert!(off < 2e-5, "{name} is off by {off:e}");
}
