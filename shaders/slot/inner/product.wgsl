// sum_c q[i, c] k[j, c].
fn inner_product_4(q: vec4<f32>, k: vec4<f32>, sum: vec4<f32>) -> vec4<f32> {
  return fma(q, k, sum);
}
