// Rows of a workgroup on a tile of keys: what `fused_forward_tile` does, and `split_forward_tile` and
// `split_forward_group` do with a share of the keys. The first says how; `tile_*` is generated.

// Rows past the block repeat its last, and keys past the visible ones the last of those, so that no table is
// read outside.
fn shown(rows: Rows, end: u32, row: u32, key: u32) -> Position {
  return tile_position(rows, row, min(key, end - 1u));
}

fn shown_score(rows: Rows, end: u32, product: f32, row: u32, key: u32) -> f32 {
  let p = shown(rows, end, row, key);
  let s = modify(product, p);
  return select(s, masked(), key >= end || !keep(p));
}

// Scores of four rows that all see the key.
fn whole_scores(rows: Rows, end: u32, s: vec4<f32>, row: u32, key: u32) -> vec4<f32> {
  return vec4<f32>(modify(s.x, shown(rows, end, row, key)), modify(s.y, shown(rows, end, row + 1u, key)),
    modify(s.z, shown(rows, end, row + 2u, key)), modify(s.w, shown(rows, end, row + 3u, key)));
}

fn shown_scores(rows: Rows, end: u32, s: vec4<f32>, row: u32, key: u32) -> vec4<f32> {
  return vec4<f32>(shown_score(rows, end, s.x, row, key), shown_score(rows, end, s.y, row + 1u, key),
    shown_score(rows, end, s.z, row + 2u, key), shown_score(rows, end, s.w, row + 3u, key));
}

fn factors(rows: Rows, end: u32, row: u32, key: u32) -> vec4<f32> {
  return vec4<f32>(weight_factor(shown(rows, end, row, key)), weight_factor(shown(rows, end, row + 1u, key)),
    weight_factor(shown(rows, end, row + 2u, key)), weight_factor(shown(rows, end, row + 3u, key)));
}

// How a tile starts: the rows' peaks of all tiles so far, four rows to each of the first OWNED / 4
// invocations, and what o and l are to be multiplied with.
fn raise(place: Place, m: vec4<f32>) -> vec4<f32> {
  tile_put_peaks(place);
  workgroupBarrier();
  var peak = m;
  if (place.lane < OWNED / 4u) {
    peak = tile_peak(place, m);
    sh[0][0][place.lane] = peak;
    sh[0][1][place.lane] = normalize_rescale(m, peak);
  }
  workgroupBarrier();
  tile_rescale(place);
  return peak;
}

// Scores, weights and sums of the keys of `range` that some row may look at. Returns the peaks of four rows, to the
// first OWNED / 4 invocations.
fn attend(rows: Rows, range: vec2<u32>, whole: vec2<u32>, origins: Origins, place: Place, row0: u32) -> vec4<f32> {
  var m = vec4<f32>(normalize_empty().m);
  for (var key0 = next_tile(rows, range.x / KEYS * KEYS, range); key0 < range.y;
      key0 = next_tile(rows, key0 + KEYS, range)) {
    let span = vec2<u32>(key0, min(key0 + KEYS, range.y));
    let tested = key0 < whole.x || key0 + KEYS > whole.y || !tile_whole(rows, span);
    tile_products(rows, range.y, origins, place, row0, key0);
    if (tested) {
      tile_show(rows, range.y, place, key0);
    } else {
      tile_modify(rows, range.y, place, key0);
    }
    if (RELATIVE) { m = raise(place, m); }
    if (tested) {
      tile_weigh_shown(rows, range.y, place, key0);
    } else {
      tile_weigh(place);
    }
    tile_sums(rows, range, origins, place, key0, tested);
  }
  return m;
}
