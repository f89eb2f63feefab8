// binary16, two to a word, the lower index in the lower half.
fn load_f16_packed_4(word: vec2<u32>) -> vec4<f32> {
  return vec4<f32>(unpack2x16float(word.x), unpack2x16float(word.y));
}

fn load_f16_packed_1(word: u32, i: u32) -> f32 {
  let pair = unpack2x16float(word);
  return select(pair.x, pair.y, (i & 1u) == 1u);
}
