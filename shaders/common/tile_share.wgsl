// Rows of a workgroup on its share of the keys, and what they leave of it: (m, l) and O as they are. `first` is where
// those of row 0 lie, and `tile_part`, which is generated, how much further those of a row do.

fn over_share(rows: Rows, lane: u32, row0: u32, row_end: u32, split: u32, first: u32) {
  let visible = key_range(rows);
  let whole = whole_range(rows, visible);
  let place = place_of(lane, row0);
  tile_begin(place);
  let m = attend(rows, share_of(visible, split), whole, origins_of(rows.batch, rows.head), place, row0);

  gather_l(place);
  if (lane < OWNED / 4u) {
    let l = tile_l(place);
    for (var c = 0u; c < 4u; c += 1u) {
      let row = row0 + lane * 4u + c;
      if (row < row_end) { states[first + tile_part(row)] = vec2<f32>(m[c], l[c]); }
    }
  }
  tile_store_parts(place, row_end, first);
}
