// How kernels on tiles of rows and keys lay their work over invocations: ACROSS by DOWN of them, each with strips of
// four rows, 4 DOWN apart, and every ACROSS-th four of keys. Where keys are what is owned, rows and keys change places.

// Where an invocation stands: its first row and its coordinates.
struct Place {
  lane: u32,
  x: u32,
  y: u32,
  row: u32,
}

// Where the tensors of a head start; d_o in kernels of gradients.
struct Origins {
  q: u32,
  k: u32,
  v: u32,
  d_o: u32,
}

fn origins_of(batch: u32, head: u32) -> Origins {
  let head_kv = head / params.group;
  return Origins(params.q_base + q_origin(batch) + head * params.q_stride_head,
    params.k_base + k_origin(batch) + head_kv * params.k_stride_head,
    params.v_base + v_origin(batch) + head_kv * params.v_stride_head, d_o_origin(batch, head));
}

fn place_of(lane: u32, row0: u32) -> Place {
  return Place(lane, lane / DOWN, lane % DOWN, row0 + lane % DOWN * 4u);
}

fn key_of(place: Place, key0: u32, i: u32) -> u32 {
  return key0 + (i >> 2u) * 4u * ACROSS + place.x * 4u + (i & 3u);
}

// The first tile from `start` on that some row may look at.
fn next_tile(rows: Rows, start: u32, visible: vec2<u32>) -> u32 {
  var key = start;
  while (key < visible.y && !tile_visited(rows, vec2<u32>(key, min(key + KEYS, visible.y)))) { key += KEYS; }
  return key;
}
