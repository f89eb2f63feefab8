//! The picture, and what its pixels are compared by.

/// Pixels across.
pub const WIDTH: u32 = 128;
/// Pixels down.
pub const HEIGHT: u32 = 96;
/// All of them: the keys of a call.
pub const PIXELS: u32 = WIDTH * HEIGHT;
/// Channels of a pixel's features.
pub const CHANNELS: u32 = 8;

/// Red, green and blue from 0 to 1, and 1: `[HEIGHT, WIDTH, 4]`. An evening: sky and sun, two hills, a lake, trees.
pub fn picture() -> Vec<f32> {
    let pixel = |i: u32| {
        let (x, y) = ((i % WIDTH) as f32 / WIDTH as f32, (i / WIDTH) as f32 / HEIGHT as f32);
        let [r, g, b] = color(x, y);
        // Grain, so that no two pixels are one.
        let grain = ((i.wrapping_mul(0x9e37_79b9) >> 20) as f32 / 4096.0 - 0.5) * 0.04;
        [r + grain, g + grain, b + grain, 1.0]
    };
    (0..PIXELS).flat_map(pixel).collect()
}

fn color(x: f32, y: f32) -> [f32; 3] {
    let far = 0.45 + 0.08 * (x * 9.0).sin();
    let near = 0.62 + 0.06 * (x * 5.0 + 2.0).sin();
    // Five trees on the near hill.
    let slot = (x * 5.0).fract() - 0.5;
    let foot = 0.62 + 0.06 * (((x * 5.0).floor() + 0.5) + 2.0).sin() + 0.02;
    let tree = (foot - y) / 0.2;
    if (0.0..1.0).contains(&tree) && slot.abs() < 0.22 * (1.0 - tree) {
        return [0.10, 0.32, 0.16];
    }
    let sun = ((x - 0.72).powi(2) + ((y - 0.2) * 0.75).powi(2)).sqrt();
    if y > 0.8 {
        [0.16, 0.34, 0.55 - 0.5 * (y - 0.8)]
    } else if y > near {
        [0.36, 0.5, 0.2]
    } else if y > far {
        [0.42, 0.38, 0.5]
    } else if sun < 0.09 {
        [1.0, 0.86, 0.45]
    } else {
        [0.95 - 0.4 * y, 0.55 + 0.3 * y, 0.5 + 0.5 * y]
    }
}

/// What pixels are compared by, `[PIXELS, CHANNELS]`, of length 1: their colour, that of their surroundings, and a
/// little of where they are.
pub fn features(picture: &[f32]) -> Vec<f32> {
    let at = |x: i64, y: i64| {
        let (x, y) = (x.clamp(0, i64::from(WIDTH) - 1), y.clamp(0, i64::from(HEIGHT) - 1));
        let i = 4 * (y * i64::from(WIDTH) + x) as usize;
        [picture[i] - 0.5, picture[i + 1] - 0.5, picture[i + 2] - 0.5]
    };
    let pixel = |i: u32| {
        let (x, y) = (i64::from(i % WIDTH), i64::from(i / WIDTH));
        let around = (-2..=2).flat_map(|dy| (-2..=2).map(move |dx| (dx, dy)));
        let mut mean = [0.0; 3];
        for color in around.map(|(dx, dy)| at(x + dx, y + dy)) {
            (0..3).for_each(|channel| mean[channel] += color[channel] / 25.0);
        }
        let [r, g, b] = at(x, y);
        let place = [x as f32 / WIDTH as f32 - 0.5, y as f32 / HEIGHT as f32 - 0.5];
        let all = [r, g, b, mean[0], mean[1], mean[2], 0.3 * place[0], 0.3 * place[1]];
        let length = all.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-6);
        all.map(|x| x / length)
    };
    (0..PIXELS).flat_map(pixel).collect()
}
