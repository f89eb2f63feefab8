// What rows leave of a share of their keys: (m, l) and O as they are. `first` is where those of row 0 lie, and
// `tile_part`, which is generated, how much further those of a row do.

fn store_share(place: Place, row_end: u32, row0: u32, first: u32, m: vec4<f32>) {
  gather_l(place);
  if (place.lane < OWNED / 4u) {
    let l = tile_l(place);
    for (var c = 0u; c < 4u; c += 1u) {
      let row = row0 + place.lane * 4u + c;
      if (row < row_end) { states[first + tile_part(row)] = vec2<f32>(m[c], l[c]); }
    }
  }
  tile_store_parts(place, row_end, first);
}
