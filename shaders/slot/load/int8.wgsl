// 8-bit integers, four to a word, the lower index in the lower byte; the row's scale is applied by who calls.
fn load_int8_4(word: u32) -> vec4<f32> {
  let high = vec4<u32>(word << 24u, word << 16u, word << 8u, word);
  return vec4<f32>(bitcast<vec4<i32>>(high) >> vec4<u32>(24u));
}

// The scale of a row from the word behind its channels.
fn load_int8_scale(word: u32, i: u32) -> f32 {
  return bitcast<f32>(word);
}
