// Builds a block table from masks given as data: for each block, whether any pair is kept and whether all are.
//
//   mask, bias, segment ids -> aux[aux_blocks..], two bits per block (common/blocks.wgsl)
//
// Workgroup (x, y, z) = (16 key blocks, row block, (batch, head) pair of the table): one word, by 64 invocations, four
// to a block, each with every fourth key. Reads every element of the masks once; `block_scan` rows of a block are
// looked at, 1 where the masks are the same for all rows. Lengths, causality and windows are not looked at: kernels
// know them.

var<workgroup> sh_some: atomic<u32>;
var<workgroup> sh_hidden: atomic<u32>;

@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  if (lane == 0u) {
    atomicStore(&sh_some, 0u);
    atomicStore(&sh_hidden, 0u);
  }
  workgroupBarrier();
  let batch = params.batch0 + workgroup.z / params.head_n;
  let head = params.head0 + workgroup.z % params.head_n;
  let block_row = params.row0 / params.block_rows + workgroup.y;
  let row0 = block_row * params.block_rows;
  let row_end = min(row0 + params.block_scan, params.row0 + params.row_n);
  let bit = (lane >> 2u) * 2u;
  let key0 = (workgroup.x * 16u + (lane >> 2u)) * params.block_keys;
  let key_end = min(key0 + params.block_keys, params.seq_kv);
  var some = false;
  var hidden = false;
  for (var row = row0; row < row_end; row += 1u) {
    for (var key = key0 + (lane & 3u); key < key_end; key += 4u) {
      let kept = keep_data(Position(batch, head, row, key, params.seq_q, params.seq_kv, 0, 0));
      some = some || kept;
      hidden = hidden || !kept;
    }
  }
  if (some) { atomicOr(&sh_some, 1u << bit); }
  if (hidden) { atomicOr(&sh_hidden, 2u << bit); }
  workgroupBarrier();
  if (lane == 0u) {
    let visited = atomicLoad(&sh_some);
    // Whole: visited, and nothing hidden.
    let whole = (visited << 1u) & ~atomicLoad(&sh_hidden);
    aux[params.aux_blocks + batch * params.blocks_stride_batch + head * params.blocks_stride_head
      + block_row * params.blocks_stride_row + workgroup.x] = visited | whole;
  }
}
