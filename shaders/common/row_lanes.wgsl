// Sums and maxima over a row of which 16 invocations have a part each, four rows to a workgroup.

var<workgroup> sh_m: array<f32, 64>;
var<workgroup> sh_l: array<f32, 64>;

const LANES: u32 = 16u;
const ROWS: u32 = 4u;

// Sums a pair over the 16 lanes of a row; every lane of the row gets it.
fn row_sum(lane: u32, slice: u32, pair: vec2<f32>) -> vec2<f32> {
  workgroupBarrier();
  sh_m[lane] = pair.x;
  sh_l[lane] = pair.y;
  workgroupBarrier();
  for (var step = LANES / 2u; step > 0u; step >>= 1u) {
    if (slice < step) {
      sh_m[lane] += sh_m[lane + step];
      sh_l[lane] += sh_l[lane + step];
    }
    workgroupBarrier();
  }
  return vec2<f32>(sh_m[lane - slice], sh_l[lane - slice]);
}

// The largest over the 16 lanes of a row.
fn row_max(lane: u32, slice: u32, value: f32) -> f32 {
  sh_m[lane] = value;
  workgroupBarrier();
  for (var step = LANES / 2u; step > 0u; step >>= 1u) {
    if (slice < step) { sh_m[lane] = max(sh_m[lane], sh_m[lane + step]); }
    workgroupBarrier();
  }
  return sh_m[lane - slice];
}
