// Positions are the points of a grid of up to three axes, the last running fastest; key j is visible to row i iff on
// every axis it lies in the window of i, which moves in steps, shifts at the borders so that it always holds as many
// keys, and takes every `dilation`-th position (NATTEN: Hassani et al., 2023).

// a / b rounded down, by a float division: exact for 0 <= a < 2^20, the most points a grid may have, and far cheaper
// than an integer division where those are done lane by lane.
fn near_div(a: i32, b: i32) -> i32 {
  return i32((f32(a) + 0.5) * (1.0 / f32(b)));
}

// First and past-last position of the window of i on an axis of n positions, all counted within i's residue class.
fn near_window(i: i32, n: i32, size: i32, stride: i32, causal: bool) -> vec2<i32> {
  let leader = min(near_div(i, stride) * stride + select(stride / 2, stride - 1, causal), n - 1);
  let left = select(size / 2, size - 1, causal);
  var start = max(leader - left, 0);
  let right = size - 1 - left;
  if (!causal && leader + right >= n) { start += n - right - leader - 1; }
  return vec2<i32>(start, select(start + size, i + 1, causal));
}

fn near_axis(i: i32, j: i32, n: i32, size: i32, stride: i32, dilation: i32, causal: bool) -> bool {
  let i_class = near_div(i, dilation);
  let j_class = near_div(j, dilation);
  let residue = i - i_class * dilation;
  let window = near_window(i_class, near_div(n - residue + dilation - 1, dilation), size, stride, causal);
  return residue == j - j_class * dilation && j_class >= window.x && j_class < window.y;
}

fn mask_neighborhood(p: Position) -> bool {
  let causal = params.near_causal;
  let i_line = near_div(i32(p.row), params.near_n2);
  let j_line = near_div(i32(p.key), params.near_n2);
  let i_plane = near_div(i_line, params.near_n1);
  let j_plane = near_div(j_line, params.near_n1);
  var near = near_axis(i32(p.row) - i_line * params.near_n2, i32(p.key) - j_line * params.near_n2, params.near_n2, params.near_size2,
    params.near_stride2, params.near_dilation2, (causal & 4u) != 0u);
  if (params.near_n1 > 1) {
    near = near && near_axis(i_line - i_plane * params.near_n1, j_line - j_plane * params.near_n1, params.near_n1, params.near_size1,
      params.near_stride1, params.near_dilation1, (causal & 2u) != 0u);
  }
  if (params.near_n0 > 1) {
    near = near && near_axis(i_plane, j_plane, params.near_n0, params.near_size0, params.near_stride0, params.near_dilation0,
      (causal & 1u) != 0u);
  }
  return near;
}

// The lines of the slowest axis that has more than one position bound the keys of a block of rows: windows move forward
// with their rows, so those of the first and last line bound all; with dilation, by their reach on either side.
fn near_lines(first: i32, last: i32, n: i32, size: i32, stride: i32, dilation: i32, causal: bool) -> vec2<i32> {
  if (dilation == 1) {
    return vec2<i32>(near_window(first, n, size, stride, causal).x, near_window(last, n, size, stride, causal).y);
  }
  let reach = size * dilation + stride * dilation;
  return vec2<i32>(first - reach, last + reach + 1);
}

fn mask_neighborhood_range(rows: Rows, keys: vec2<i32>) -> vec2<i32> {
  var step = params.near_n1 * params.near_n2;
  let first = i32(rows.first);
  // The last row may lie past the grid in the last block.
  let last = min(i32(rows.last), params.near_n0 * step - 1);
  let causal = params.near_causal;
  var lines = near_lines(first / step, last / step, params.near_n0, params.near_size0, params.near_stride0, params.near_dilation0,
    (causal & 1u) != 0u);
  if (params.near_n0 == 1) {
    step = params.near_n2;
    lines = near_lines(first / step, last / step, params.near_n1, params.near_size1, params.near_stride1, params.near_dilation1,
      (causal & 2u) != 0u);
  }
  if (params.near_n0 == 1 && params.near_n1 == 1) {
    step = 1;
    lines = near_lines(first, last, params.near_n2, params.near_size2, params.near_stride2, params.near_dilation2, (causal & 4u) != 0u);
  }
  return vec2<i32>(max(keys.x, lines.x * step), min(keys.y, lines.y * step));
}

fn mask_neighborhood_whole(rows: Rows, keys: vec2<i32>) -> vec2<i32> {
  return vec2<i32>(0);
}
