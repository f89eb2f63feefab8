//! Floating-point numbers of 4 and 8 bits: e4m3 and e5m2 (OFP8: Micikevicius et al., 2022), e2m1 (OCP MX 1.0).

/// Where a format's bits are, and what its last codes are.
#[derive(Debug, Clone, Copy)]
pub(super) struct SmallFloat {
    /// Bits of the significand behind the leading one.
    significand: u32,
    /// What is added to an exponent.
    bias: i32,
    /// The code of the largest finite number.
    largest: u8,
    /// The bit of the sign.
    sign: u8,
    /// The codes of ∞, where there is one, and of NaN.
    special: Option<[u8; 2]>,
}

/// Largest 448; NaN but no ∞.
pub(super) const E4M3: SmallFloat =
    SmallFloat { significand: 3, bias: 7, largest: 0x7e, sign: 0x80, special: Some([0x7f, 0x7f]) };
/// Largest 57344; the upper half of a binary16.
pub(super) const E5M2: SmallFloat =
    SmallFloat { significand: 2, bias: 15, largest: 0x7b, sign: 0x80, special: Some([0x7c, 0x7e]) };
/// 0, 0.5, 1, 1.5, 2, 3, 4 and 6, with signs.
pub(super) const E2M1: SmallFloat =
    SmallFloat { significand: 1, bias: 1, largest: 7, sign: 8, special: None };

impl SmallFloat {
    /// The magnitude of a finite code without its sign.
    fn magnitude(&self, code: u8) -> f64 {
        let exponent = i32::from(code >> self.significand);
        let significand = i32::from(code) & ((1 << self.significand) - 1);
        let (leading, exponent) = if exponent > 0 { (1, exponent) } else { (0, 1) };
        let units = (leading << self.significand) + significand;
        f64::from(units) * 2.0_f64.powi(exponent - self.bias - self.significand as i32)
    }

    /// Half of the last place of a significand, in the bits of a binary32.
    pub(super) fn half_place(&self) -> u32 {
        1 << (22 - self.significand)
    }

    /// The number of a code.
    pub(super) fn decode(&self, code: u8) -> f64 {
        let sign = if code & self.sign != 0 { -1.0 } else { 1.0 };
        let code = code & (self.sign - 1);
        match self.special {
            Some([infinity, nan]) if code == infinity && infinity != nan => sign * f64::INFINITY,
            Some([infinity, _]) if code >= infinity => f64::NAN,
            _ => sign * self.magnitude(code),
        }
    }

    /// The code nearest to x, ties to even; the largest of what is beyond it and finite.
    pub(super) fn encode(&self, x: f64) -> u8 {
        let sign = if x.is_sign_negative() { self.sign } else { 0 };
        if let (Some([infinity, nan]), false) = (self.special, x.is_finite()) {
            return sign | if x.is_nan() { nan } else { infinity };
        }
        let x = x.abs();
        let above = (0..=self.largest).find(|code| self.magnitude(*code) >= x);
        let Some(above) = above.filter(|code| *code > 0) else {
            return sign | above.unwrap_or(self.largest);
        };
        let [low, high] = [above - 1, above].map(|code| self.magnitude(code));
        let down = x - low < high - x || (x - low == high - x && above % 2 == 1);
        sign | if down { above - 1 } else { above }
    }
}

#[cfg(test)]
mod tests {
    use super::{E2M1, E4M3, E5M2};

    #[test]
    fn codes_are_those_of_the_formats() {
        let all: Vec<f64> = (0..16).map(|code| E2M1.decode(code)).collect();
        let wanted = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
        assert_eq!(all[..8], wanted);
        assert_eq!(all[8..], wanted.map(|x| -x));
        for (code, wanted) in [
            (0x00, 0.0),
            (0x01, 0.001953125),
            (0x07, 0.013671875),
            (0x08, 0.015625),
            (0x38, 1.0),
            (0x39, 1.125),
            (0x7e, 448.0),
            (0xfe, -448.0),
        ] {
            assert_eq!(E4M3.decode(code), wanted, "e4m3 {code:#x}");
        }
        assert!(E4M3.decode(0x7f).is_nan() && E4M3.decode(0xff).is_nan());
        // e5m2 is the upper half of a binary16.
        for code in 0..=255 {
            let half = half::f16::from_bits(u16::from(code) << 8).to_f64();
            let found = E5M2.decode(code);
            assert!(found == half || found.is_nan() && half.is_nan(), "e5m2 {code:#x}: {found}");
        }
    }

    #[test]
    fn every_code_is_its_own_and_what_lies_between_goes_to_the_nearest() {
        for (format, codes) in [(E4M3, 0x7e_u8), (E5M2, 0x7b), (E2M1, 7)] {
            for code in 0..=codes {
                let x = format.decode(code);
                assert_eq!([x, -x].map(|x| format.decode(format.encode(x))), [x, -x]);
                if code < codes {
                    let next = format.decode(code + 1);
                    let even = if code % 2 == 0 { code } else { code + 1 };
                    assert_eq!(format.encode((x + next) / 2.0), even);
                    assert_eq!(format.encode(x * 0.75 + next * 0.25), code);
                    assert_eq!(format.encode(x * 0.25 + next * 0.75), code + 1);
                }
            }
            assert_eq!(format.encode(1e9), codes);
        }
        assert!(E4M3.decode(E4M3.encode(f64::NAN)).is_nan());
        assert!(E4M3.decode(E4M3.encode(f64::INFINITY)).is_nan());
        assert_eq!(E5M2.decode(E5M2.encode(f64::NEG_INFINITY)), f64::NEG_INFINITY);
    }
}
