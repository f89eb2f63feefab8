//! Rows of 8-bit and 4-bit integers and of MXFP4, to bytes and back; [`Storage`](crate::Storage) says how they lie.

use half::bf16;

use crate::tensor::small_float::E2M1;

/// Channels that share a scale where those of 4 bits do.
pub(crate) const BLOCK: usize = 32;

/// Largest magnitude, NaN if any is NaN.
pub(super) fn magnitude(values: &[f64]) -> f32 {
    values.iter().fold(0.0, |most: f32, x| {
        let x = (*x as f32).abs();
        if x.is_nan() || x > most { x } else { most }
    })
}

/// The power of two whose exponent is by so much below that of x, and normal; of x as it is when the bits of its
/// significand from `half` on are rounded away.
pub(super) fn power_below(x: f32, exponents: u32, half: u32) -> f32 {
    f32::from_bits((((x.to_bits() + half) >> 23).max(exponents + 1) - exponents) << 23)
}

/// The integer nearest to x / scale, ties to even.
fn quantum(x: f64, scale: f32, most: f32) -> i8 {
    let q = (x as f32 / scale).round_ties_even().clamp(-most, most);
    if scale > 0.0 { q as i8 } else { 0 }
}

pub(super) fn encode_int8(row: &[f64]) -> Vec<u8> {
    let most = magnitude(row);
    let scale = if most.is_finite() { most / 127.0 } else { f32::NAN };
    let mut bytes: Vec<u8> = row.iter().map(|x| quantum(*x, scale, 127.0) as u8).collect();
    bytes.resize(row.len().next_multiple_of(4), 0);
    bytes.extend(scale.to_le_bytes());
    bytes
}

pub(super) fn decode_int8(bytes: &[u8], dim: usize) -> Vec<f64> {
    let at = dim.next_multiple_of(4);
    let scale = f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    bytes[..dim].iter().map(|byte| f64::from(f32::from(*byte as i8) * scale)).collect()
}

/// The least bf16 that is not below x / 7.
fn scale_int4(most: f32) -> bf16 {
    if !most.is_finite() {
        return bf16::NAN;
    }
    bf16::from_bits(((most / 7.0).to_bits().wrapping_add(0xffff) >> 16) as u16)
}

pub(super) fn encode_int4(row: &[f64]) -> Vec<u8> {
    let mut nibbles = Vec::with_capacity(row.len().next_multiple_of(8));
    let mut scales = Vec::new();
    for block in row.chunks(BLOCK) {
        let scale = scale_int4(magnitude(block));
        nibbles.extend(block.iter().map(|x| quantum(*x, scale.to_f32(), 7.0) as u8 & 15));
        scales.push(scale);
    }
    nibbles.resize(row.len().next_multiple_of(8), 0);
    scales.resize(scales.len().next_multiple_of(2), bf16::ZERO);
    let mut bytes: Vec<u8> = nibbles.chunks_exact(2).map(|pair| pair[0] | pair[1] << 4).collect();
    bytes.extend(scales.into_iter().flat_map(bf16::to_le_bytes));
    bytes
}

pub(super) fn decode_int4(bytes: &[u8], dim: usize) -> Vec<f64> {
    let at = dim.next_multiple_of(8) / 2;
    let channel = |c: usize| {
        let nibble = bytes[c / 2] >> (c % 2 * 4);
        let scale = at + c / BLOCK * 2;
        let scale = bf16::from_le_bytes([bytes[scale], bytes[scale + 1]]).to_f32();
        f64::from(f32::from((nibble << 4) as i8 >> 4) * scale)
    };
    (0..dim).map(channel).collect()
}

/// The number of an e8m0 code: 2^(code - 127), NaN for the last.
fn power(code: u8) -> f32 {
    match code {
        0 => f32::from_bits(0x0040_0000),
        0xff => f32::NAN,
        code => f32::from_bits(u32::from(code) << 23),
    }
}

pub(super) fn encode_mxfp4(row: &[f64]) -> Vec<u8> {
    let mut nibbles = Vec::with_capacity(row.len().next_multiple_of(8));
    let mut scales = Vec::new();
    for block in row.chunks(BLOCK) {
        let most = magnitude(block);
        let scale = power_below(most, 2, 0);
        nibbles.extend(block.iter().map(|x| E2M1.encode(f64::from(*x as f32 / scale))));
        scales.push(if most.is_finite() { (scale.to_bits() >> 23) as u8 } else { 0xff });
    }
    nibbles.resize(row.len().next_multiple_of(8), 0);
    scales.resize(scales.len().next_multiple_of(4), 0);
    let pairs = nibbles.chunks_exact(2).map(|pair| pair[0] | pair[1] << 4);
    pairs.chain(scales).collect()
}

pub(super) fn decode_mxfp4(bytes: &[u8], dim: usize) -> Vec<f64> {
    let at = dim.next_multiple_of(8) / 2;
    let channel = |c: usize| {
        let nibble = bytes[c / 2] >> (c % 2 * 4) & 15;
        f64::from(E2M1.decode(nibble) as f32 * power(bytes[at + c / BLOCK]))
    };
    (0..dim).map(channel).collect()
}
