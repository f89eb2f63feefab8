//! Rows of 8-bit and 4-bit floating-point numbers, against codes that were computed apart with `ml_dtypes` (e4m3fn,
//! e5m2, e2m1) and OCP MX 1.0's rule for the scales of blocks.

use heedful::Storage;

const NUMBERS: [f64; 25] = [
    0.0,
    -0.0,
    0.001,
    -0.0009765625,
    0.0029296875,
    0.0137,
    0.0146484375,
    0.0156,
    0.1,
    -0.3,
    0.75,
    1.0,
    1.0625,
    -1.1875,
    2.3,
    3.2,
    5.0,
    -7.2,
    17.0,
    100.0,
    -239.0,
    240.0,
    432.0,
    447.9,
    448.0,
];

#[test]
fn bytes_are_those_of_other_implementations() {
    let e4m3 = [
        0, 128, 1, 128, 2, 7, 8, 8, 29, 170, 52, 56, 56, 186, 65, 69, 74, 206, 88, 108, 247, 119,
        126, 126, 126, 0, 0, 0,
    ];
    let e5m2 = [
        0, 128, 20, 148, 26, 35, 36, 36, 46, 181, 58, 60, 60, 189, 65, 66, 69, 199, 76, 86, 219,
        92, 95, 95, 95, 0, 0, 0,
    ];
    assert_eq!(Storage::E4m3.encode(&NUMBERS), e4m3);
    assert_eq!(Storage::E5m2.encode(&NUMBERS), e5m2);
    let wide = [448.0, 1000.0, 57344.0, -40000.0, 3e-5, 1.5e-5, 7.6e-6, -4.6e-5, 6.2e-5];
    let codes = [95, 100, 123, 249, 2, 1, 0, 131, 4, 0, 0, 0];
    assert_eq!(Storage::E5m2.encode(&wide), codes);
    // 448 is the largest of e4m3: brought to 128 and more by a scale of 2, its row has half the codes.
    let row = Storage::E4m3Row.encode(&NUMBERS);
    assert_eq!(row[28..], 2.0_f32.to_le_bytes());
    assert_eq!(row[11], Storage::E4m3.encode(&[0.5])[0]);
}

#[test]
fn blocks_of_mxfp4_are_those_of_ocp() {
    let numbers: Vec<f64> = (0..40).map(|i| f64::from(i * 37 % 61 - 30) * 0.173).collect();
    let codes = [
        15, 2, 13, 5, 9, 14, 3, 13, 6, 9, 14, 4, 12, 6, 0, 14, 4, 12, 6, 1, 14, 5, 11, 6, 1, 13, 5,
        10, 7, 2, 13, 5, 10, 15, 3, 13, 6, 9, 14, 3,
    ];
    let mut wanted: Vec<u8> = codes.chunks(2).map(|pair| pair[0] | pair[1] << 4).collect();
    // 2^0 for both blocks, padded to a word.
    wanted.extend([127, 127, 0, 0]);
    assert_eq!(Storage::Mxfp4.encode(&numbers), wanted);
    let back = Storage::Mxfp4.round(&numbers);
    assert_eq!(back[..8], [-6.0, 1.0, -3.0, 3.0, -0.5, -4.0, 1.5, -3.0]);
    // A power of two for each block.
    let mixed: Vec<f64> = (0..64).map(|i| if i < 32 { 1.5 } else { 96.0 }).collect();
    let bytes = Storage::Mxfp4.encode(&mixed);
    assert_eq!(bytes[32..], [125, 131, 0, 0]);
    assert_eq!(Storage::Mxfp4.round(&mixed), mixed);
}

/// Every code of e4m3 from 0 to the largest, in units of 2^-9.
#[rustfmt::skip]
const E4M3: [u32; 127] = [
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 20, 22, 24, 26, 28, 30, 32, 36,
    40, 44, 48, 52, 56, 60, 64, 72, 80, 88, 96, 104, 112, 120, 128, 144, 160, 176, 192, 208, 224,
    240, 256, 288, 320, 352, 384, 416, 448, 480, 512, 576, 640, 704, 768, 832, 896, 960, 1024,
    1152, 1280, 1408, 1536, 1664, 1792, 1920, 2048, 2304, 2560, 2816, 3072, 3328, 3584, 3840, 4096,
    4608, 5120, 5632, 6144, 6656, 7168, 7680, 8192, 9216, 10240, 11264, 12288, 13312, 14336, 15360,
    16384, 18432, 20480, 22528, 24576, 26624, 28672, 30720, 32768, 36864, 40960, 45056, 49152,
    53248, 57344, 61440, 65536, 73728, 81920, 90112, 98304, 106496, 114688, 122880, 131072, 147456,
    163840, 180224, 196608, 212992, 229376,
];

#[test]
fn every_code_of_e4m3_is_that_of_ml_dtypes_and_what_is_beyond_the_largest_is_the_largest() {
    let read = |code: u8| Storage::E4m3.decode(&[code, code | 0x80, 0, 0], 2);
    for (code, units) in E4M3.iter().enumerate() {
        let x = f64::from(*units) / 512.0;
        assert_eq!(read(code as u8), [x, -x], "{code:#x}");
    }
    assert!(read(0x7f).iter().all(|x| x.is_nan()));
    // 464 is the last that rounds to 448: ml_dtypes makes NaN of what is larger, and of e5m2's from 61440 on infinity.
    let large = [464.0, 464.1, -480.0, 1e9, f64::INFINITY, f64::NEG_INFINITY, 0.0, 0.0];
    assert_eq!(Storage::E4m3.encode(&large), [0x7e, 0x7e, 0xfe, 0x7e, 0x7f, 0xff, 0, 0]);
    let large = [61439.0, 61440.0, -1e9, f64::INFINITY];
    assert_eq!(Storage::E5m2.encode(&large), [0x7b, 0x7b, 0xfb, 0x7c]);
}

#[test]
fn scales_of_blocks_are_powers_of_two_or_nan() {
    // 1.5, -6 in blocks of one scale each, of rows that fill no block.
    let two = 2.0_f64;
    for (code, power) in [(0, -127), (1, -126), (127, 0), (250, 123)] {
        let factor = two.powi(power);
        let bytes = [0xf3, 0, 0, 0, code, 0, 0, 0];
        assert_eq!(Storage::Mxfp4.decode(&bytes, 2), [1.5 * factor, -6.0 * factor], "{code}");
    }
    assert!(Storage::Mxfp4.decode(&[0xf3, 0, 0, 0, 0xff, 0, 0, 0], 2).iter().all(|x| x.is_nan()));
    for dim in [1, 7, 31, 33, 63, 65, 127, 129] {
        let row: Vec<f64> = (0..dim).map(|c| if c / 32 % 2 == 0 { 3.0 } else { -0.375 }).collect();
        assert_eq!(Storage::Mxfp4.round(&row), row, "{dim}");
    }
    // NaN stays in its block.
    let mut row = vec![1.0; 40];
    row[35] = f64::NAN;
    let back = Storage::Mxfp4.round(&row);
    assert!(back[..32] == row[..32] && back[32..].iter().all(|x| x.is_nan()), "{back:?}");
}
