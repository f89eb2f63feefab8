// How kernels of gradients on tiles that own rows go over their keys.

// A workgroup's rows, of one head: all invocations have the same.
struct OwnRows {
  batch: u32,
  head: u32,
  row0: u32,
  // Behind the last that is stored.
  row_end: u32,
  rows: Rows,
}

fn own_rows(workgroup: vec3<u32>) -> OwnRows {
  let batch = workgroup.y / params.heads_q;
  let head = workgroup.y % params.heads_q;
  // The last rows first: under a causal mask they have most to do, and what ends last should be little.
  let row0 = ((params.seq_q + OWNED - 1u) / OWNED - 1u - workgroup.x) * OWNED;
  let row_end = stored_end(rows_of(batch, head, row0, row0), params.seq_q);
  let rows = rows_of(batch, head, row0, max(min(row0 + OWNED, row_end), row0 + 1u) - 1u);
  return OwnRows(batch, head, row0, row_end, rows);
}

// Where the gradients of the head's rows start.
fn d_q_origin(own: OwnRows) -> u32 {
  return params.o_base + q_origin(own.batch) + own.head * params.q_stride_head;
}

// Sums of all pairs with keys that some row may look at.
fn over_keys(own: OwnRows, place: Place) {
  let rows = own.rows;
  let visible = key_range(rows);
  let whole = whole_range(rows, visible);
  let origins = origins_of(own.batch, own.head);
  tile_begin(rows, place);
  for (var key0 = next_tile(rows, visible.x / KEYS * KEYS, visible); key0 < visible.y;
      key0 = next_tile(rows, key0 + KEYS, visible)) {
    let span = vec2<u32>(key0, min(key0 + KEYS, visible.y));
    let tested = key0 < whole.x || key0 + KEYS > whole.y || !tile_whole(rows, span);
    tile_products(rows, visible.y, origins, place, own.row0, key0);
    tile_incoming(rows, visible.y, origins, place, own.row0, key0);
    if (tested) {
      tile_pairs_shown(rows, visible.y, place, key0);
    } else {
      tile_pairs(rows, visible.y, place, key0);
    }
    tile_add(rows, visible, origins, place, key0, tested);
    tile_weigh(rows, visible, origins, place, key0, tested);
  }
}
