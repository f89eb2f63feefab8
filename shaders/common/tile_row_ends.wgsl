// How rows end where weights are relative to lse. With L = l and what the row's sink has of it, and m = <d_o, o>:
// sum(w y) = e - (d_lse - m) l, and what m lacks of sum(w y) / L is (e - d_lse l - m (L - l)) / L. Of a row that sees
// nothing all is 0.
fn ends_of(rows: Rows, row: u32, end: u32, l: vec4<f32>, e: vec4<f32>) -> RowEnds {
  var ends = RowEnds(vec4<f32>(0.0), vec4<f32>(0.0));
  for (var c = 0u; c < 4u; c += 1u) {
    let at = 2u * ((rows.batch * params.heads_q + rows.head) * params.seq_q + min(row + c, rows.last));
    let state = states[at];
    let d_lse = states[at + 1u].y;
    let sink = sink_share(rows.head, state.x);
    if (l[c] == 0.0) { continue; }
    ends.scale[c] = 1.0 / (l[c] + sink);
    ends.left[c] = (e[c] - d_lse * l[c] - (d_lse - state.y) * sink) * ends.scale[c];
    if (row + c < end) {
      states[at].y = state.y - ends.left[c];
      states[at + 1u].x = ends.scale[c];
    }
  }
  return ends;
}
