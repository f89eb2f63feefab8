// binary16 through native f16.
fn store_f16_4(v: vec4<f32>) -> vec4<f16> {
  return vec4<f16>(v);
}

fn store_f16_1(v: f32) -> f16 {
  return f16(v);
}
