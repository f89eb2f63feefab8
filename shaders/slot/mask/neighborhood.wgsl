// Positions are the points of a grid of up to three axes, the last running fastest; key j is visible to row i iff on every axis
// it lies in the window of i, which moves in steps, shifts at the borders so that it always holds as many keys, and takes
// every `dilation`-th position (NATTEN: Hassani et al., 2023).

// First and past-last position of the window of i on an axis of n positions, all counted within i's residue class.
fn near_window(i: i32, n: i32, size: i32, stride: i32, causal: bool) -> vec2<i32> {
  if (causal) {
    let leader = min(i / stride * stride + stride - 1, n - 1);
    return vec2<i32>(max(leader - size + 1, 0), i + 1);
  }
  let leader = min(i / stride * stride + stride / 2, n - 1);
  let left = size / 2;
  let right = size / 2 + size % 2 - 1;
  var start = max(leader - left, 0);
  if (leader + right >= n) { start += n - right - leader - 1; }
  return vec2<i32>(start, start + size);
}

fn near_axis(i: i32, j: i32, n: i32, size: i32, stride: i32, dilation: i32, causal: bool) -> bool {
  let class_n = (n - i % dilation + dilation - 1) / dilation;
  let window = near_window(i / dilation, class_n, size, stride, causal);
  return i % dilation == j % dilation && j / dilation >= window.x && j / dilation < window.y;
}

fn mask_neighborhood(p: Position) -> bool {
  let i = i32(p.row);
  let j = i32(p.key);
  let plane = params.near_n1 * params.near_n2;
  let causal = params.near_causal;
  return near_axis(i / plane, j / plane, params.near_n0, params.near_size0, params.near_stride0, params.near_dilation0, (causal & 1u) != 0u)
    && near_axis(i / params.near_n2 % params.near_n1, j / params.near_n2 % params.near_n1, params.near_n1, params.near_size1,
      params.near_stride1, params.near_dilation1, (causal & 2u) != 0u)
    && near_axis(i % params.near_n2, j % params.near_n2, params.near_n2, params.near_size2, params.near_stride2, params.near_dilation2,
      (causal & 4u) != 0u);
}

// The reach along the slowest axis that has more than one position bounds the keys of a block of rows.
fn mask_neighborhood_range(rows: Rows, keys: vec2<i32>) -> vec2<i32> {
  var step = params.near_n1 * params.near_n2;
  var reach = params.near_size0 * params.near_dilation0 + params.near_stride0;
  if (params.near_n0 == 1) {
    step = params.near_n2;
    reach = params.near_size1 * params.near_dilation1 + params.near_stride1;
  }
  if (params.near_n0 == 1 && params.near_n1 == 1) {
    step = 1;
    reach = params.near_size2 * params.near_dilation2 + params.near_stride2;
  }
  // A window that shifts at a border reaches twice as far from its row at most.
  let first = (i32(rows.first) / step - reach) * step;
  let end = (i32(rows.last) / step + reach + 1) * step;
  return vec2<i32>(max(keys.x, first), min(keys.y, end));
}

fn mask_neighborhood_whole(rows: Rows, keys: vec2<i32>) -> vec2<i32> {
  return vec2<i32>(0);
}
