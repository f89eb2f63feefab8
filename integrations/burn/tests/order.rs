//! Burn's operations and attention follow each other on one queue, and nobody waits for that.

mod common;

use burn::tensor::Tensor;
use common::{Draw, Numbers, burns, same};
use heedful_burn::Attend;

/// x becomes attention of x, its double and its sum with another tensor: a thousand operations in all, and no look
/// between.
#[test]
fn a_thousand_operations_in_turn_are_in_order() {
    let mut numbers = Numbers::new(1);
    let start = numbers.tensor([1, 2, 16, 8]).inner();
    let others: Vec<_> = (0..8).map(|_| numbers.tensor([1, 2, 16, 8]).inner()).collect();
    let run = |attend: &dyn Fn([Tensor<4>; 3]) -> Tensor<4>| {
        let mut x = start.clone();
        for round in 0..200 {
            let other = &others[round % others.len()];
            // Tensors that die here: their memory is the next one's.
            let (k, v) = (x.clone().mul_scalar(2.0), x.clone() + other.clone());
            x = attend([x, k, v]);
            x = x.mul_scalar(0.75) - other.clone().mul_scalar(0.25);
        }
        x
    };
    let found = run(&|[q, k, v]| Attend::new(q, k, v).run().expect("a call").o);
    let wanted = run(&|qkv| burns(qkv, 8_f32.powf(-0.5), None, None));
    // Rounding of 200 layers.
    let off = common::differ(found, wanted);
    assert!(off < 1e-3, "off by {off:e}");
}

/// The same from several threads at once: each of Burn's threads has a stream of its own.
#[test]
fn threads_do_not_meet() {
    let tasks: Vec<_> = (0..4)
        .map(|seed| {
            std::thread::spawn(move || {
                let mut numbers = Numbers::new(seed);
                for _ in 0..25 {
                    let [q, k, v] = [0; 3].map(|_| numbers.tensor([1, 1, 9, 4]).inner());
                    let found =
                        Attend::new(q.clone(), k.clone(), v.clone()).run().expect("a call").o;
                    same("a thread's", found, burns([q, k, v], 0.5, None, None));
                }
            })
        })
        .collect();
    tasks.into_iter().for_each(|task| task.join().expect("a thread"));
}

/// A tensor that another thread made, and has not finished with.
#[test]
fn tensors_of_another_thread_are_read_after_it_wrote_them() {
    for seed in 0..10 {
        let made = std::thread::spawn(move || {
            let mut numbers = Numbers::new(100 + seed);
            let [q, k, v] = [0; 3].map(|_| numbers.tensor([1, 2, 40, 8]).inner());
            [q.mul_scalar(0.5), k.add_scalar(0.1), v.mul_scalar(3.0)]
        });
        let [q, k, v] = made.join().expect("a thread");
        let found = Attend::new(q.clone(), k.clone(), v.clone()).run().expect("a call").o;
        same("another thread's", found, burns([q, k, v], 8_f32.powf(-0.5), None, None));
    }
}
