// Rows of scratch of which 16 invocations have a part each, four rows to a workgroup: which part, and
// sums and maxima over the row.

var<workgroup> sh_m: array<f32, 64>;
var<workgroup> sh_l: array<f32, 64>;

const LANES: u32 = 16u;
const ROWS: u32 = 4u;

// The part of a row that an invocation takes: vec4s first_own, first_own + LANES, … below `end`.
struct RowPart {
  rows: Rows,
  row: u32,
  // Among the rows of the block.
  scratch_row: u32,
  slice: u32,
  alive: bool,
  // The vec4s that the products look at, and where the row starts in scratch.
  begin: u32,
  end: u32,
  first_own: u32,
  base: u32,
}

fn row_part(workgroup: vec3<u32>, lane: u32) -> RowPart {
  let batch = params.batch0 + workgroup.y / params.head_n;
  let head = params.head0 + workgroup.y % params.head_n;
  let slice = lane & (LANES - 1u);
  let local_row = workgroup.x * ROWS + lane / LANES;
  let alive = local_row < params.row_n;
  // The visible keys of the 64-row tile this row belongs to: what the products work on.
  let first = params.row0 + ((workgroup.x * ROWS) & ~63u);
  let rows = rows_of(batch, head, first, min(first + 64u, params.row0 + params.row_n) - 1u);
  let visible = key_range(rows);
  // They read whole steps of 16 keys.
  let begin = (visible.x & ~15u) >> 2u;
  let last = min((visible.y + 15u) & ~15u, params.score_stride) >> 2u;
  let end = select(0u, last, alive && visible.y > visible.x);
  let scratch_row = workgroup.y * params.row_n + local_row;
  return RowPart(rows, params.row0 + local_row, scratch_row, slice, alive, begin, end,
    begin + ((slice - begin) & (LANES - 1u)), scratch_row * (params.score_stride >> 2u));
}

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
