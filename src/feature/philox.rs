//! Random words from a counter and a key (Salmon et al., 2011), as `shaders/common/philox.wgsl` makes them.

/// Philox4x32 with ten rounds.
pub(crate) fn philox(mut c: [u32; 4], seed: u64) -> [u32; 4] {
    let mut key = [seed as u32, (seed >> 32) as u32];
    let product = |a: u32, b: u32| u64::from(a) * u64::from(b);
    for _ in 0..10 {
        let (a, b) = (product(0xD251_1F53, c[0]), product(0xCD9E_8D57, c[2]));
        let high = |x: u64| (x >> 32) as u32;
        c = [high(b) ^ c[1] ^ key[0], b as u32, high(a) ^ c[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    c
}

#[cfg(test)]
mod tests {
    use super::philox;

    /// Known answers of the authors' Random123.
    #[test]
    fn philox_gives_the_published_words() {
        assert_eq!(philox([0; 4], 0), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        let seed = 0x299f_31d0_a409_3822;
        assert_eq!(philox(pi, seed), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }
}
