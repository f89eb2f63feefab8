// Keys in pages: key t of a sequence is in page aux[aux_page_table + batch * page_row + t / page_size], at place
// t % page_size. Keys of a page that does not exist are not visited.

fn page_of(batch: u32, key: u32) -> u32 {
  return aux_word(params.aux_page_table + batch * params.page_row + min(key / params.page_size, params.page_row - 1u));
}

// What is added to the address of a key in row `key` of k and v, so that it lies in its page.
fn page_offset(batch: u32, key: u32) -> vec2<u32> {
  let page = page_of(batch, key);
  let first = key / params.page_size * params.page_size;
  return vec2<u32>(page * params.k_stride_batch - first * params.k_stride_row,
    page * params.v_stride_batch - first * params.v_stride_row);
}

// The next keys at or after `start` that are in one page, as (first, first whole, end of whole, end).
fn pages_span(rows: Rows, start: u32, visible: vec2<u32>, whole: vec2<u32>) -> vec4<u32> {
  var key = start;
  while (key < visible.y) {
    let end = min((key / params.page_size + 1u) * params.page_size, visible.y);
    if (page_of(rows.batch, key) < params.page_count) {
      let whole_start = clamp(whole.x, key, end);
      return vec4<u32>(key, whole_start, clamp(whole.y, whole_start, end), end);
    }
    key = end;
  }
  return visible.yyyy;
}
