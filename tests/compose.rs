//! x
use heedful::kernel::*;
use heedful::*;
#[test]
fn composes() {
    let p = Attention::new(Shape::self_attention(1, 2, 3, 4))
        .causal(Align::BottomRight)
        .softcap(3.0)
        .bias([1, 1, 1, 1])
        .mask([1, 1, 1, 3])
        .sinks()
        .with_lse()
        .with_weights(WeightsAt::Probabilities)
        .validate()
        .unwrap();
    let e = Element::F32X4;
    let s = Element { dtype: DType::F16, native_f16: false, width: Width::Single };
    for spec in [
        KernelSpec::staged_score(&p, e, s),
        KernelSpec::staged_normalize(&p),
        KernelSpec::staged_value(&p, e, s, true),
        KernelSpec::matmul(e, e, e),
    ] {
        let c = compose(&spec);
        match naga::front::wgsl::parse_str(&c.text) {
            Err(err) => {
                let l = err.location(&c.text).unwrap();
                panic!("{:?} {}", c.lines.locate(l.line_number), err.emit_to_string(&c.text));
            }
            Ok(m) => {
                naga::valid::Validator::new(
                    naga::valid::ValidationFlags::all(),
                    naga::valid::Capabilities::all(),
                )
                .validate(&m)
                .map_err(|e| e.emit_to_string(&c.text))
                .unwrap();
            }
        }
    }
}
