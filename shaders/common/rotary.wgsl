// Rotation by position: pairs of channels of a row of q are turned by the angles of its position.

const NOT_TURNED: u32 = 0xffffffffu;

// Where a position's angles begin in their tables; positions past the tables are read as the last.
fn angle_at(position: u32) -> u32 {
  return min(position, params.rotary_rows - 1u) * (params.rotary_dim >> 1u);
}

// What a channel is turned with: its partner, their pair, and whether it is the first of the two.
struct Turn {
  partner: u32,
  pair: u32,
  first: bool,
}

fn turn_of(c: u32) -> Turn {
  if (INTERLEAVED) { return Turn(c ^ 1u, c >> 1u, (c & 1u) == 0u); }
  let half = params.rotary_dim >> 1u;
  let first = c < half;
  let other = select(c - half, c + half, first);
  return Turn(other, min(c, other), first);
}

// Element c of a source row after rotation by the angles at `angle`.
fn turned(at: u32, c: u32, angle: u32) -> f32 {
  let x = q_load4(at + c, 1u).x;
  if (!ROTARY || angle == NOT_TURNED || c >= params.rotary_dim) { return x; }
  let turn = turn_of(c);
  let y = q_load4(at + turn.partner, 1u).x;
  let cosine = rotary_word(params.aux_rotary_cos + angle + turn.pair);
  let sine = rotary_word(params.aux_rotary_sin + angle + turn.pair);
  return fma(x, cosine, select(y, -y, turn.first) * sine);
}
