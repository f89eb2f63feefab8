//! Rows of 8-bit and 4-bit floating-point numbers, against codes that were computed apart with `ml_dtypes` (e4m3fn, e5m2,
//! e2m1) and OCP MX 1.0's rule for the scales of blocks.

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
