// New rows of k or v into their places in a cache, turned and quantised on the way.
//
//   binding q: rows [sequences, heads, rows, dim] in any type and strides, aux: lengths, counts, page table
//   -> o: the cache in its storage, contiguous or in pages
//
// Workgroup (x, y) = (new row, (sequence, head) pair); invocations side by side along the row. Rows past a sequence's
// count, past the capacity and of pages that do not exist are not written. Bound by bandwidth.

var<workgroup> sh_most: array<f32, 32>;

// Larger magnitude, NaN if either is.
fn larger(a: f32, b: f32) -> f32 {
  return select(select(max(a, b), b, is_nan(b)), a, is_nan(a));
}

fn largest(v: vec4<f32>) -> f32 {
  let a = abs(v);
  return larger(larger(a.x, a.y), larger(a.z, a.w));
}

// Channels 4c..4c+3 of the row, zeros past its end.
fn channels(at: u32, c: u32, angle: u32) -> vec4<f32> {
  var v = vec4<f32>(0.0);
  for (var i = 0u; i < 4u; i += 1u) {
    if (4u * c + i < params.dim_source) { v[i] = turned(at, 4u * c + i, angle); }
  }
  return v;
}

// The integers nearest to v / scale, ties to even; 0 where there is no scale.
fn quantised(v: vec4<f32>, scale: f32, most: f32) -> vec4<u32> {
  let q = clamp(round(v / scale), vec4<f32>(-most), vec4<f32>(most));
  return bitcast<vec4<u32>>(vec4<i32>(select(vec4<f32>(0.0), q, scale > 0.0)));
}

@compute @workgroup_size(32, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let batch = workgroup.y / params.head_n;
  let head = workgroup.y % params.head_n;
  let place = aux_word(params.aux_kv_lengths + batch) + workgroup.x;
  var page = batch;
  if (PAGED) {
    let entry = min(place / params.page_size, params.page_row - 1u);
    page = aux_word(params.aux_page_table + batch * params.page_row + entry);
  }
  let count = aux_word(params.aux_q_lengths + batch);
  if (workgroup.x >= count || place >= params.seq_kv || page >= params.page_count) { return; }
  // The places of this dispatch: angles of many places do not fit one binding.
  if (place < params.key0 || place - params.key0 >= params.key_n) { return; }
  let at = params.q_base + batch * params.q_stride_batch + head * params.q_stride_head + workgroup.x * params.q_stride_row;
  let out = page * params.o_stride_batch + head * params.o_stride_head + place % params.page_size * params.o_stride_row;
  let angle = select(NOT_TURNED, angle_at(place), ROTARY);
  store_row(at, out, angle, lane);
}
