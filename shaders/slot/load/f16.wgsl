// binary16 through native f16.
fn load_f16_4(word: vec4<f16>) -> vec4<f32> {
  return vec4<f32>(word);
}

fn load_f16_1(word: f16, i: u32) -> f32 {
  return f32(word);
}
