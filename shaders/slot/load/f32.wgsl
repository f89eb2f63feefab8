// binary32, as it is.
fn load_f32_4(word: vec4<f32>) -> vec4<f32> {
  return word;
}

fn load_f32_1(word: f32, i: u32) -> f32 {
  return word;
}
