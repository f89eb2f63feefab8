// Where the angles of a row begin in their tables.
fn angle_of(batch: u32, row: u32) -> u32 {
  if (!ROTARY || row < params.rotary_from) { return NOT_TURNED; }
  var position = row - params.rotary_from + rotary_first(batch);
  if (POSITION_IDS) {
    let id = min(row - params.rotary_from, params.positions_row - 1u);
    position = aux_word(position_ids(batch) + id);
  }
  return angle_at(position);
}
