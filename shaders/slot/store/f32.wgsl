// binary32, as it is.
fn store_f32_4(v: vec4<f32>) -> vec4<f32> {
  return v;
}

fn store_f32_1(v: f32) -> f32 {
  return v;
}
