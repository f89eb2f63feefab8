//! The modules: Burn's records load, the same numbers come out, and a transformer block learns as with Burn's own.

mod common;

use burn::module::{Module, ModuleDisplay};
use burn::nn::attention::{
    MhaInput as BurnInput, MultiHeadAttention as BurnAttention, MultiHeadAttentionConfig,
};
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Bool, Int, Tensor, activation};
use common::{Draw, Numbers, device, same};
use heedful_burn::heedful::Align;
use heedful_burn::{GroupedAttentionConfig, MhaInput, MultiHeadAttention};

fn config() -> MultiHeadAttentionConfig {
    MultiHeadAttentionConfig::new(24, 3).with_dropout(0.0)
}

#[test]
fn burns_records_are_ours() {
    let mut numbers = Numbers::new(1);
    for quiet in [false, true] {
        let burns = config().with_quiet_softmax(quiet).init(&device());
        let ours = MultiHeadAttention::from(config().with_quiet_softmax(quiet).init(&device()));
        let ours = ours.load_record(burns.clone().into_record());
        let (x, y) = (numbers.tensor([2, 9, 24]), numbers.tensor([2, 13, 24]));
        let pad = numbers.flags([2, 13], 4);
        let pairs = numbers.flags([2, 9, 13], 4);
        // Every row sees a key.
        let first = Tensor::<1, Bool>::from_data([true], &device());
        let pad = pad.slice_assign([0..2, 0..1], first.clone().bool_not().expand([2, 1]));
        let pairs = pairs.slice_assign([0..2, 0..9, 0..1], first.bool_not().expand([2, 9, 1]));
        let burns_input = BurnInput::new(x.clone(), y.clone(), y.clone());
        let wanted = burns.forward(burns_input.mask_pad(pad.clone()).mask_attn(pairs.clone()));
        let input = MhaInput::new(x, y.clone(), y).mask_pad(pad).mask_attn(pairs);
        let found = ours.forward(input.with_weights()).expect("a call");
        same("context", found.context, wanted.context);
        same("weights", found.weights.expect("weights"), wanted.weights);
    }
}

#[test]
fn lengths_are_padding_at_the_end() {
    let mut numbers = Numbers::new(4);
    let ours = MultiHeadAttention::from(config().init(&device()));
    let x = numbers.tensor([2, 5, 24]);
    let pad = [[false, false, false, true, true], [false, false, false, false, true]];
    let pad = Tensor::<2, Bool>::from_data(pad, &device());
    let lengths = Tensor::<1, Int>::from_data([3, 4], &device());
    let run = |input: MhaInput| ours.forward(input).expect("a call").context;
    let wanted = run(MhaInput::self_attn(x.clone()).mask_pad(pad));
    same("lengths", run(MhaInput::self_attn(x).lengths(lengths)), wanted);
}

/// Attention, norm, two linear layers, norm.
#[derive(Module, Debug)]
struct Block<A: Module> {
    attention: A,
    first: LayerNorm,
    wide: Linear,
    narrow: Linear,
    second: LayerNorm,
}

impl<A: Module> Block<A> {
    fn forward(&self, x: Tensor<3>, attend: impl FnOnce(&A, Tensor<3>) -> Tensor<3>) -> Tensor<3> {
        let x = self.first.forward(x.clone() + attend(&self.attention, x));
        let y = self.narrow.forward(activation::gelu(self.wide.forward(x.clone())));
        self.second.forward(x + y)
    }
}

/// The loss of each step of plain gradient descent towards fixed targets.
fn learn<A: Module + ModuleDisplay>(
    mut block: Block<A>,
    attend: impl Fn(&A, Tensor<3>) -> Tensor<3>,
) -> Vec<f32> {
    let mut numbers = Numbers::new(2);
    let (x, y) = (numbers.tensor([2, 10, 24]), numbers.tensor([2, 10, 24]));
    let mut optimizer = SgdConfig::new().init();
    let mut losses = Vec::new();
    for _ in 0..12 {
        let off = block.forward(x.clone(), &attend) - y.clone();
        let loss = (off.clone() * off).mean();
        losses.push(loss.clone().into_scalar::<f32>());
        let gradients = GradientsParams::from_grads(loss.backward(), &block);
        block = optimizer.step(1.0, block, gradients);
    }
    losses
}

#[test]
fn a_transformer_block_learns_the_same_curve() {
    let device = device();
    let burns: BurnAttention = config().init(&device);
    let rest = |attention: MultiHeadAttention| Block {
        attention,
        first: LayerNormConfig::new(24).init(&device),
        wide: LinearConfig::new(24, 48).init(&device),
        narrow: LinearConfig::new(48, 24).init(&device),
        second: LayerNormConfig::new(24).init(&device),
    };
    let ours = rest(MultiHeadAttention::from(burns.clone()));
    let theirs = Block {
        attention: burns,
        first: ours.first.clone(),
        wide: ours.wide.clone(),
        narrow: ours.narrow.clone(),
        second: ours.second.clone(),
    };
    let wanted = learn(theirs, |attention, x| {
        let [batch, seq, _] = x.dims();
        let later = Tensor::<2, Bool>::tril_mask([seq, seq], 0, &x.device());
        let later = later.unsqueeze::<3>().expand([batch, seq, seq]);
        attention.forward(BurnInput::self_attn(x).mask_attn(later)).context
    });
    let found = learn(ours, |attention, x| {
        let causal =
            attention.forward_with(MhaInput::self_attn(x), |call| call.causal(Align::TopLeft));
        causal.expect("a call").context
    });
    assert!(found[11] < 0.8 * found[0], "it learns: {found:?}");
    for (step, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
        assert!((found - wanted).abs() < 1e-4 * wanted, "step {step}: {found} and {wanted}");
    }
}

#[test]
fn a_grouped_module_learns_its_sinks() {
    let mut numbers = Numbers::new(3);
    let config = GroupedAttentionConfig::new(16, 4, 2).with_causal(true).with_window(Some(5));
    let module = config.with_sinks(true).with_softcap(Some(20.0)).with_dropout(0.2).init(&device());
    let x = numbers.tensor([2, 11, 16]);
    let out = module.forward(MhaInput::self_attn(x.clone())).expect("a call").context;
    assert_eq!(out.dims(), [2, 11, 16]);
    let gradients = (out.clone() * out).sum().backward();
    let sinks = module.sinks.as_ref().expect("sinks").val();
    let gradient = sinks.grad(&gradients).expect("a gradient").into_data();
    assert!(gradient.iter::<f32>().all(|d| d.is_finite() && d != 0.0), "{gradient}");
    let seeded = |seed: u64| {
        let input = MhaInput::self_attn(x.clone()).seed(seed);
        module.forward(input).expect("a call").context
    };
    same("one seed", seeded(5), seeded(5));
    assert!(common::differ(seeded(5), seeded(6)) > 1e-3, "another seed leaves out others");
    // Without training nothing is left out: two calls agree.
    let plain = module.valid();
    let run = || plain.forward(MhaInput::self_attn(x.clone().inner())).expect("a call").context;
    same("twice", run(), run());
}
