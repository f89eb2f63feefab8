//! What README says of Burn's own operations: a test that fails here means that Burn has mended it.

mod common;

use burn::tensor::{Int, Tensor};
use common::{Draw, Numbers};

/// How far the gradient of k is off where `repeat_dim` repeats its heads, against heads that are selected; `turned`
/// has it come back transposed.
fn off(times: usize, turned: bool) -> f32 {
    let (batch, heads) = (3, 2);
    let mut numbers = Numbers::new(1);
    let [q, d] = [22, 18].map(|n| numbers.tensor([batch, heads * times, 8, n]));
    let k = numbers.tensor([batch, heads, 18, 22]).require_grad();
    let gradient = |repeated: Tensor<4>| {
        let scores = match turned {
            true => q.clone().matmul(repeated.swap_dims(2, 3)) * d.clone(),
            false => d.clone().matmul(repeated) * q.clone(),
        };
        k.grad(&scores.sum().backward()).expect("a gradient")
    };
    let repeated = k.clone().unsqueeze_dim::<5>(2).repeat_dim(2, times);
    let each: Vec<i32> = (0..heads * times).map(|head| (head / times) as i32).collect();
    let each = Tensor::<1, Int>::from_data(each.as_slice(), &k.device());
    let found = gradient(repeated.reshape([batch, heads * times, 18, 22]));
    common::differ(found, gradient(k.clone().select(1, each)))
}

#[test]
fn a_gradient_that_comes_back_transposed_is_wrong_after_repeating_once() {
    assert!(off(1, true) > 0.1, "README and tests/common need not warn of it any more");
    for (times, turned) in [(1, false), (2, true), (2, false), (3, true)] {
        assert!(off(times, turned) < 1e-5, "{times} times, transposed {turned}");
    }
}
