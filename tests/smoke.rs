//! x
use heedful::reference::Inputs;
use heedful::*;
#[test]
fn smoke() {
    let e = Engine::new_blocking().unwrap();
    println!("{:?}", e.capabilities());
    for (b, h, s, d, dt) in [
        (1, 8, 512, 64, DType::F32),
        (2, 3, 70, 65, DType::F32),
        (1, 2, 130, 7, DType::F16),
        (1, 1, 33, 33, DType::Bf16),
    ] {
        let att = Attention::new(Shape::self_attention(b, h, s, d))
            .dtype(dt)
            .causal(Align::TopLeft)
            .with_lse();
        let plan = e.plan(&att).unwrap();
        println!("{plan}");
        let n = (b * h * s * d) as usize;
        let mut x = 12345u32;
        let mut r = || {
            x = x.wrapping_mul(1664525).wrapping_add(1013904223);
            dt.round(((x >> 8) as f64) / (1 << 24) as f64 - 0.5)
        };
        let q: Vec<f64> = (0..n).map(|_| r()).collect();
        let k: Vec<f64> = (0..n).map(|_| r()).collect();
        let v: Vec<f64> = (0..n).map(|_| r()).collect();
        let out = e
            .run_host(&plan, &Inputs { q: &q, k: &k, v: &v, operands: Default::default() })
            .unwrap();
        let t = std::time::Instant::now();
        for _ in 0..3 {
            e.run_host(&plan, &Inputs { q: &q, k: &k, v: &v, operands: Default::default() })
                .unwrap();
        }
        println!("{:?}", t.elapsed() / 3);
        let mut worst = 0f64;
        let mut wl = 0f64;
        let (s, d) = (s as usize, d as usize);
        for bh in 0..(b * h) as usize {
            for i in 0..s {
                let qi = &q[(bh * s + i) * d..][..d];
                let sc: Vec<f64> = (0..=i)
                    .map(|j| {
                        qi.iter().zip(&k[(bh * s + j) * d..][..d]).map(|(a, b)| a * b).sum::<f64>()
                            / (d as f64).sqrt()
                    })
                    .collect();
                let m = sc.iter().cloned().fold(f64::MIN, f64::max);
                let l: f64 = sc.iter().map(|x| (x - m).exp()).sum();
                wl = wl.max((m + l.ln() - out.lse[bh * s + i]).abs());
                for c in 0..d {
                    let e: f64 = sc
                        .iter()
                        .enumerate()
                        .map(|(j, x)| (x - m).exp() / l * v[(bh * s + j) * d + c])
                        .sum();
                    worst = worst.max((e - out.o[(bh * s + i) * d + c]).abs());
                }
            }
        }
        println!("{worst:e} {wl:e}");
    }
}
