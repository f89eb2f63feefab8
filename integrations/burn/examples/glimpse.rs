//! A model that reads digits through small glimpses learns where to look: recurrent attention by
//! hard choice, trained by policy gradient (Mnih et al. 2014, Ba et al. 2015).
//!
//! A digit stands somewhere on a noisy canvas, of which one glimpse shows a seventh. The model has
//! a blurred view of the whole, too coarse to read, which starts the layer that says where to look;
//! the layer that names the digit sees nothing but glimpses. A glimpse picks pixels, and a choice
//! has no derivative: no gradient says which way to move it. So places are drawn at random around
//! the one the model means, and those that led to the right name become more likely (REINFORCE).
//! The same model that looks anywhere shows what this is worth.
//!
//! `cargo run --release --example glimpse`

#[path = "shared/mod.rs"]
mod shared;

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::activation::{relu, sigmoid, tanh};
use burn::tensor::{Device, Int, Tensor, TensorData};
use heedful_burn::heedful::Normalizer;
use heedful_burn::{Attend, Result};
use shared::Numbers;

/// Pixels of the canvas, each way.
const CANVAS: usize = 16;
/// Pixels of a glimpse, each way.
const PATCH: usize = 6;
const GLIMPSES: usize = 3;
/// Pixels that the blurred view makes one of, each way.
const BLUR: usize = 4;
const BLURRED: usize = (CANVAS / BLUR) * (CANVAS / BLUR);
/// Places are from −1 to 1; so far in pixels the middle of a glimpse may go from the canvas's, none
/// of it leaving.
const REACH: f32 = (CANVAS - PATCH) as f32 / 2.0;
/// Standard deviation of a place around its mean, 2 pixels: as far as it takes to find a digit
/// beside the glimpse.
const DEVIATION: f32 = 0.4;
/// Channels of all layers.
const WIDTH: usize = 48;
const BATCH: usize = 128;
const STEPS: usize = 200;
const RATE: f64 = 0.01;
/// The value of a pixel of a digit; paper is 0.
const INK: f32 = 2.0;
/// What noise adds to a pixel, or takes from it, at most.
const NOISE: f32 = 0.2;
/// Fresh batches that a trained model is tried on.
const TESTS: usize = 8;

/// The digits 0 to 3, rows of three pixels.
const DIGITS: [[&str; 5]; 4] = [
    ["###", "# #", "# #", "# #", "###"],
    [" # ", "## ", " # ", " # ", "###"],
    ["###", "  #", "###", "#  ", "###"],
    ["###", "  #", "###", "  #", "###"],
];

fn main() {
    let Some(learned) = learn() else { return };
    println!("\n1, 2, 3: the middles of the glimpses, + more at the same place; ░ what they see");
    for path in &learned.paths {
        path.show();
    }
    let [first, last] = learned.losses;
    println!("\ncross-entropy from {first:.2} to {last:.2}, learning where to look");
    println!("{GLIMPSES} glimpses of {PATCH} x {PATCH} at {CANVAS} x {CANVAS} pixels, new images:");
    println!("  looking where it learned to {:5.1} % right", 100.0 * learned.learned);
    println!("  looking anywhere            {:5.1} % right", 100.0 * learned.random);
    println!("  guessing                    {:5.1} % right", 100.0 / DIGITS.len() as f32);
}

/// What came of training.
pub(crate) struct Learned {
    /// The part of fresh images that is named right by the model that learned where to look.
    pub(crate) learned: f32,
    /// The same of the model that looks anywhere.
    pub(crate) random: f32,
    /// Cross-entropy of the first and of the last step, of the model that learned where to look.
    pub(crate) losses: [f32; 2],
    /// Some images, and where the model looks.
    pub(crate) paths: Vec<Path>,
}

/// Trains both models; `None` where there is no adapter.
pub(crate) fn learn() -> Option<Learned> {
    let device = shared::device()?;
    Some(compare(&device).expect("tensors of one device that fit each other"))
}

fn compare(device: &Device) -> Result<Learned> {
    let eye = Eye::new(device);
    let shown = Images::draw(&mut Numbers::new(1), device);
    let untrained = Model::new(device);
    let before = untrained.run(&eye, &shown, &mut Policy::Mean)?;
    let (model, losses) = untrained.train(&eye, true, device)?;
    let after = model.run(&eye, &shown, &mut Policy::Mean)?;
    let [before, after] = [before, after].map(|seen| seen.places());
    let digits: Vec<i32> = shown.digits.into_data().iter::<i32>().collect();
    let paths = (0..2).map(|i| Path {
        digit: digits[i],
        pixels: shown.pixels[i * CANVAS * CANVAS..][..CANVAS * CANVAS].to_vec(),
        before: before[i],
        after: after[i],
    });
    let (anywhere, _) = Model::new(device).train(&eye, false, device)?;
    Ok(Learned {
        learned: model.accuracy(&eye, true, device)?,
        random: anywhere.accuracy(&eye, false, device)?,
        losses,
        paths: paths.collect(),
    })
}

/// A batch of images and what is to be said of them.
struct Images {
    /// `[batch, CANVAS, CANVAS]`.
    pixels: Vec<f32>,
    /// The same on the device, a value for each pixel: `[batch, 1, CANVAS * CANVAS, 1]`.
    values: Tensor<4>,
    /// Sums of squares of BLUR x BLUR pixels, of the size of a pixel: `[batch, BLURRED]`.
    blurred: Tensor<2>,
    /// `[batch, 1]`.
    digits: Tensor<2, Int>,
}

impl Images {
    fn draw(numbers: &mut Numbers, device: &Device) -> Self {
        let mut pixels: Vec<f32> = Vec::with_capacity(BATCH * CANVAS * CANVAS);
        let mut blurred = vec![0.0; BATCH * BLURRED];
        let mut digits = Vec::with_capacity(BATCH);
        for image in blurred.chunks_mut(BLURRED) {
            let digit = numbers.below(DIGITS.len());
            let (top, left) = (numbers.below(CANVAS - 4), numbers.below(CANVAS - 2));
            for place in 0..CANVAS * CANVAS {
                let (y, x) = (place / CANVAS, place % CANVAS);
                let row = y.checked_sub(top).and_then(|y| DIGITS[digit].get(y));
                let ink = x.checked_sub(left).and_then(|x| row?.as_bytes().get(x));
                let value = NOISE * numbers.next() + if ink == Some(&b'#') { INK } else { 0.0 };
                image[y / BLUR * (CANVAS / BLUR) + x / BLUR] += value / (2 * BLUR) as f32;
                pixels.push(value);
            }
            digits.push(digit as i32);
        }
        let values = TensorData::new(pixels.clone(), [BATCH, 1, CANVAS * CANVAS, 1]);
        Self {
            values: Tensor::from_data(values, device).inner(),
            blurred: Tensor::from_data(TensorData::new(blurred, [BATCH, BLURRED]), device),
            digits: Tensor::from_data(TensorData::new(digits, [BATCH, 1]), device).inner(),
            pixels,
        }
    }
}

/// What takes glimpses: hard attention of the cells of a patch to the pixels of an image.
///
/// A cell at (x, y) takes the pixel (x′, y′) that is nearest, whose −(x − x′)² − (y − y′)² is most.
/// As a dot product that is (2x, 2y, −1) · (x′, y′, x′² + y′²), but for x² + y², which is the same
/// for every pixel.
struct Eye {
    /// (x′, y′, x′² + y′²) of each pixel, `[batch, 1, CANVAS * CANVAS, 3]`.
    keys: Tensor<4>,
    /// (2x, 2y, −1) of the cells of a patch in the middle, `[1, 1, PATCH * PATCH, 3]`.
    cells: Tensor<4>,
    /// From a place to what it adds to these, `[2, 3]`.
    lift: Tensor<2>,
}

impl Eye {
    fn new(device: &Device) -> Self {
        let device = &device.clone().inner();
        let grid =
            |side: usize| (0..side * side).map(move |i| [(i % side) as f32, (i / side) as f32]);
        let keys: Vec<f32> = grid(CANVAS).flat_map(|[x, y]| [x, y, x * x + y * y]).collect();
        let cells: Vec<f32> = grid(PATCH).flat_map(|at| at.map(|x| 2.0 * (x + REACH))).collect();
        let cells: Vec<f32> = cells.chunks(2).flat_map(|at| [at[0], at[1], -1.0]).collect();
        let keys = TensorData::new(keys, [1, 1, CANVAS * CANVAS, 3]);
        Self {
            keys: Tensor::from_data(keys, device),
            cells: Tensor::from_data(TensorData::new(cells, [1, 1, PATCH * PATCH, 3]), device),
            lift: Tensor::from_data([[2.0 * REACH, 0.0, 0.0], [0.0, 2.0 * REACH, 0.0]], device),
        }
    }

    /// The patches around places `[batch, 2]`: `[batch, PATCH * PATCH]`. None of these tensors is
    /// tracked: the choice of a pixel has no derivative, and the engine would refuse to give one.
    fn look(&self, images: &Images, places: Tensor<2>) -> Result<Tensor<2>> {
        let moved = places.matmul(self.lift.clone()).reshape([BATCH, 1, 1, 3]);
        let call =
            Attend::new(moved + self.cells.clone(), self.keys.clone(), images.values.clone());
        let nearest = call.scale(1.0).with(|call| call.normalizer(Normalizer::Hard)).run()?.o;
        Ok(nearest.reshape([BATCH, PATCH * PATCH]))
    }
}

/// Where glimpses are taken.
enum Policy {
    /// Where the model means to.
    Mean,
    /// Normally distributed around that.
    Around(Numbers),
    /// Anywhere, whatever the model means.
    Anywhere(Numbers),
}

impl Policy {
    /// The next places for their means, `[batch, 2]` both.
    fn places(&mut self, means: Tensor<2>) -> Tensor<2> {
        let device = means.device();
        let drawn = |next: &mut dyn FnMut() -> f32| {
            let drawn: Vec<f32> = (0..2 * BATCH).map(|_| next()).collect();
            Tensor::from_data(TensorData::new(drawn, [BATCH, 2]), &device)
        };
        match self {
            Self::Mean => means,
            Self::Around(numbers) => means + drawn(&mut || DEVIATION * numbers.normal()),
            Self::Anywhere(numbers) => drawn(&mut || numbers.next()),
        }
    }
}

/// A recurrent layer: a gate says how much of the new state replaces the old.
#[derive(Module, Debug)]
struct Cell {
    /// Gate and new state as one product.
    both: Linear,
}

impl Cell {
    fn new(device: &Device) -> Self {
        Self { both: LinearConfig::new(2 * WIDTH, 2 * WIDTH).init(device) }
    }

    fn step(&self, input: Tensor<2>, state: Tensor<2>) -> Tensor<2> {
        let both = self.both.forward(Tensor::cat(vec![input, state.clone()], 1));
        let [gate, new] = [0, 1].map(|part| both.clone().narrow(1, part * WIDTH, WIDTH));
        state.clone() + sigmoid(gate) * (tanh(new) - state)
    }
}

/// The parts of the model, named as in Ba et al.
#[derive(Module, Debug)]
struct Model {
    /// The glimpse network: what is seen times where.
    what: Linear,
    place: Linear,
    /// The recurrent core: the first layer reads, the second looks.
    reads: Cell,
    looks: Cell,
    /// The context network: the second layer's first state from the blurred view.
    context: Linear,
    /// The emission network: the mean of the next place.
    emission: Linear,
    classifier: Linear,
    /// The reward that is to be expected anyway.
    baseline: Linear,
}

/// What a batch of images led to.
struct Seen {
    /// `[batch, digits]`.
    logits: Tensor<2>,
    /// The means of the places, `[batch, GLIMPSES, 2]`.
    means: Tensor<3>,
    /// The places, not tracked.
    places: Tensor<3>,
    /// The states that the means came from, `[batch, GLIMPSES, WIDTH]`.
    states: Tensor<3>,
}

impl Seen {
    /// The places at each image.
    fn places(&self) -> Vec<Places> {
        let flat: Vec<f32> = self.places.clone().into_data().iter::<f32>().collect();
        let path = |flat: &[f32]| std::array::from_fn(|i| [flat[2 * i], flat[2 * i + 1]]);
        flat.chunks(2 * GLIMPSES).map(path).collect()
    }

    /// 1 where the digit is named right, `[batch, 1]`.
    fn rewards(&self, images: &Images) -> Tensor<2> {
        self.logits.clone().inner().argmax(1).equal(images.digits.clone()).float()
    }
}

impl Model {
    fn new(device: &Device) -> Self {
        // The same weights at the start of both models.
        device.seed(2);
        let linear = |from: usize, to: usize| LinearConfig::new(from, to).init(device);
        Self {
            what: linear(PATCH * PATCH, WIDTH),
            place: linear(2, WIDTH),
            reads: Cell::new(device),
            looks: Cell::new(device),
            context: linear(BLURRED, WIDTH),
            emission: linear(WIDTH, 2),
            classifier: linear(WIDTH, DIGITS.len()),
            baseline: linear(WIDTH, 1),
        }
    }

    /// Looks at a batch of images.
    fn run(&self, eye: &Eye, images: &Images, policy: &mut Policy) -> Result<Seen> {
        let device = images.blurred.device();
        let mut reads = Tensor::zeros([BATCH, WIDTH], &device);
        let mut looks = tanh(self.context.forward(images.blurred.clone()));
        let (mut means, mut places, mut states) = (Vec::new(), Vec::new(), Vec::new());
        for glimpse in 0..GLIMPSES {
            if glimpse > 0 {
                looks = self.looks.step(reads.clone(), looks);
            }
            let mean = self.emission.forward(looks.clone());
            let place = policy.places(mean.clone().inner());
            // Beyond the edge there is nothing to see; what was drawn is kept, for the density is
            // that of the drawn.
            let inside = place.clone().clamp(-1.0, 1.0);
            let patch = eye.look(images, inside.clone())?;
            let what = relu(self.what.forward(patch.autodiff()));
            let seen = what * relu(self.place.forward(inside.autodiff()));
            reads = self.reads.step(seen, reads);
            means.push(mean);
            places.push(place);
            states.push(looks.clone());
        }
        Ok(Seen {
            logits: self.classifier.forward(reads),
            means: Tensor::stack(means, 1),
            places: Tensor::stack(places, 1),
            states: Tensor::stack(states, 1),
        })
    }

    /// The cross-entropy of the names, and with `learns_where` what REINFORCE adds to it.
    fn losses(&self, seen: &Seen, images: &Images, learns_where: bool) -> [Tensor<1>; 2] {
        let digits = images.digits.clone().reshape([BATCH]).autodiff();
        let device = images.blurred.device();
        let naming =
            CrossEntropyLossConfig::new().init(&device).forward(seen.logits.clone(), digits);
        if !learns_where {
            return [naming.clone(), naming];
        }
        // The reward comes after the last glimpse and is every glimpse's. What was to be expected
        // from where the model stood is taken off: that changes no mean of the gradient, as it does
        // not depend on the place drawn, and makes it far less noisy.
        let rewards = seen.rewards(images).reshape([BATCH, 1, 1]);
        let surprise = rewards.autodiff() - self.baseline.forward(seen.states.clone().detach());
        let advantage = surprise.clone().inner();
        let spread = (advantage.clone() * advantage.clone()).mean().sqrt().add_scalar(1e-3);
        let advantage = advantage / spread.reshape([1, 1, 1]);
        // −ln of the density of the places, but for a constant: its gradient is what moves the
        // means.
        let off = seen.places.clone() - seen.means.clone();
        let unlikely = (off.clone() * off).sum_dim(2).div_scalar(2.0 * DEVIATION * DEVIATION);
        let looking = (unlikely * advantage).mean();
        [naming.clone(), naming + looking + (surprise.clone() * surprise).mean()]
    }

    /// Trains by Adam, with new images in every step; also gives the first and the last
    /// cross-entropy.
    fn train(self, eye: &Eye, learns_where: bool, device: &Device) -> Result<(Self, [f32; 2])> {
        let name = if learns_where { "learning where to look" } else { "looking anywhere" };
        let bar = shared::bar(name, STEPS);
        let mut numbers = Numbers::new(3);
        let drawn = Numbers::new(4);
        let mut policy = match learns_where {
            true => Policy::Around(drawn),
            false => Policy::Anywhere(drawn),
        };
        let mut optimizer = AdamConfig::new().init();
        let (mut model, mut curve) = (self, Vec::new());
        for step in 0..STEPS {
            let images = Images::draw(&mut numbers, device);
            let seen = model.run(eye, &images, &mut policy)?;
            let [naming, all] = model.losses(&seen, &images, learns_where);
            let gradients = GradientsParams::from_grads(all.backward(), &model);
            // Halfway it begins to fall, to nothing: the last steps settle.
            let rate = RATE * (2.0 - 2.0 * step as f64 / STEPS as f64).min(1.0);
            model = optimizer.step(rate, model, gradients);
            // Reading a number waits for the device: not in every step.
            if step % 10 == 0 || step + 1 == STEPS {
                curve.push(naming.into_scalar::<f32>());
                bar.set_message(format!("loss {:.3}", curve[curve.len() - 1]));
            }
            bar.inc(1);
        }
        bar.finish();
        Ok((model, [curve[0], curve[curve.len() - 1]]))
    }

    /// The part of fresh images whose digit is named right.
    fn accuracy(&self, eye: &Eye, learned: bool, device: &Device) -> Result<f32> {
        let mut numbers = Numbers::new(5);
        let mut policy = if learned { Policy::Mean } else { Policy::Anywhere(Numbers::new(6)) };
        let mut right = 0.0;
        for _ in 0..TESTS {
            let images = Images::draw(&mut numbers, device);
            let seen = self.run(eye, &images, &mut policy)?;
            right += seen.rewards(&images).mean().into_scalar::<f32>();
        }
        Ok(right / TESTS as f32)
    }
}

/// Places, (x, y) from −1 to 1, of the glimpses at an image.
type Places = [[f32; 2]; GLIMPSES];

/// An image and where the model looks, before and after training.
pub(crate) struct Path {
    pub(crate) digit: i32,
    /// `[CANVAS, CANVAS]`.
    pub(crate) pixels: Vec<f32>,
    pub(crate) before: Places,
    pub(crate) after: Places,
}

impl Path {
    /// The image twice, with the glimpses before and after training.
    fn show(&self) {
        println!("\n{:1$}   after", format!("a {}, before", self.digit), 2 * CANVAS);
        for y in 0..CANVAS {
            let [before, after] = [&self.before, &self.after].map(|places| self.row(places, y));
            println!("{before}   {after}");
        }
    }

    /// A row of the image: two characters a pixel, which makes it about square.
    fn row(&self, places: &Places, y: usize) -> String {
        let middles = places
            .map(|place| place.map(|at| at.clamp(-1.0, 1.0) * REACH + (CANVAS - 1) as f32 / 2.0));
        let cell = |x: usize| {
            let off = middles.map(|at| [(at[0] - x as f32).abs(), (at[1] - y as f32).abs()]);
            let mut here =
                (0..GLIMPSES).filter(|&i| middles[i].map(f32::round) == [x as f32, y as f32]);
            let seen = off.iter().any(|off| off[0].max(off[1]) < PATCH as f32 / 2.0);
            let shade = match self.pixels[y * CANVAS + x] > INK / 2.0 {
                true => '█',
                false if seen => '░',
                false => '·',
            };
            match (here.next(), here.next()) {
                (None, _) => String::from_iter([shade; 2]),
                (Some(glimpse), None) => format!("{}{shade}", glimpse + 1),
                (Some(glimpse), Some(_)) => format!("{}+", glimpse + 1),
            }
        };
        (0..CANVAS).map(cell).collect()
    }
}
