// Rotation by position: pairs of channels of a row of q are turned by the angles of its position.

const NOT_TURNED: u32 = 0xffffffffu;

// Where a position's angles begin in their tables; positions past the tables are read as the last.
fn angle_at(position: u32) -> u32 {
  return min(position, params.rotary_rows - 1u) * (params.rotary_dim >> 1u);
}

// Element c of a source row after rotation by the angles at `angle`.
fn turned(at: u32, c: u32, angle: u32) -> f32 {
  let x = q_load4(at + c, 1u).x;
  if (!ROTARY || angle == NOT_TURNED || c >= params.rotary_dim) { return x; }
  let half = params.rotary_dim >> 1u;
  var first = c < half;
  var m = select(c - half, c, first);
  var partner = select(c - half, c + half, first);
  if (INTERLEAVED) {
    first = (c & 1u) == 0u;
    m = c >> 1u;
    partner = c ^ 1u;
  }
  let y = q_load4(at + partner, 1u).x;
  let cosine = rotary_word(params.aux_rotary_cos + angle + m);
  let sine = rotary_word(params.aux_rotary_sin + angle + m);
  return fma(x, cosine, select(y, -y, first) * sine);
}
