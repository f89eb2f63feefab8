faults! {
    // Tails.
    fused_takes_in_a_key_past_the_end: FUSED, Fused,
        ["3x2/1x12/70x32 f32 kv-lengths lse poison", "2x2/1x129x40 f32"], CLASSES, Refuses,
        |text| swaps(text, &[
            ("select(0, i32(rows.kv_len), ", "select(0, i32(rows.kv_len) + 1, "),
            ("p.key < p.kv_len", "p.key <= p.kv_len"),
        ]);
    fused_leaves_out_the_last_key: FUSED, Fused,
        ["2x2/1x129x40 f32", "1x2x65/257x64 f32 lse"], NUMBERS, Refuses,
        |text| swap(text, "select(0, i32(rows.kv_len), ", "select(0, i32(rows.kv_len) - 1, ");
    split_takes_in_a_key_past_the_end: SPLIT, Split,
        ["2x6/2x3/150x64 f32 kv(f32) lse poison"], NUMBERS, Refuses,
        |text| swaps(text, &[
            ("key0 + i < share.y", "key0 + i <= share.y"),
            ("min(KEYS, share.y - key0)", "min(KEYS, share.y + 1u - key0)"),
        ]);
    staged_takes_in_a_key_past_the_end: SCORE, Staged,
        ["2x2/1x129x40 f32"], NUMBERS, Refuses,
        |text| swaps(text, &[
            ("p.key >= params.seq_kv", "p.key > params.seq_kv"),
            ("p.key < p.kv_len", "p.key <= p.kv_len"),
        ]);
    fused_leaves_out_the_last_row: FUSED, Fused,
        ["2x2/1x129x40 f32"], CLASSES, Refuses,
        |text| swap(text, " < row_end) {", " + 1u < row_end) {");

    // What is not written, and what is written outside.
    fused_does_not_store_a_row: FUSED, Fused,
        ["2x2/1x129x40 f32"], CLASSES, Refuses,
        |text| swap(text, "if (row0 < row_end) {", "if (row0 < row_end && row0 != 5u) {");
    staged_does_not_compute_the_last_tile: SCORE, Staged,
        ["2x2/1x129x40 f32"], CLASSES, Refuses,
        |text| swap(text, "key0 >= visible.y ||", "key0 + TILE > visible.y ||");
    fused_writes_a_row_past_the_end: FUSED, Fused,
        ["2x4x33x64 f32 causal(top-left) strides(9792,2448,68)"], OUTSIDE,
        Either("the row that is hit is another workgroup's, whichever comes last"),
        |text| swap(text, " < row_end) {", " <= row_end) {");
    staged_writes_a_row_past_the_end: VALUE, Staged,
        ["2x4x33x64 f32 causal(top-left) strides(9792,2448,68)"], OUTSIDE,
        Either("the row that is hit is another workgroup's, whichever comes last"),
        |text| swap(text, "local_row < row_end &&", "local_row <= row_end &&");
    prepared_rows_add_to_what_was_there: PREPARE, Fused,
        ["2x4/2x35/70x24/16 f32 general(64) mask[2, 1, 1, 70] lse"], DIFFER,
        Serves("it runs once, on memory that is zero"),
        |text| swap(text, "o[i >> 2u] = ", "o[i >> 2u] += ");

    packed_rows_are_prepared_from_the_first_sequence: PREPARE, Fused,
        ["3x6/2x40/90x24/16 f32 rotary(24x100,halves) causal(bottom-right) packed(90,140) lse bshd"], NUMBERS, Refuses,
        |text| swap(text, "let at = params.q_base + q_origin(batch)", "let at = params.q_base + q_origin(0u)");
    packed_rows_are_turned_by_their_place_among_all: PREPARE, Fused,
        ["3x6/2x40/90x24/16 f32 rotary(24x100,halves) causal(bottom-right) packed(90,140) lse bshd"], NUMBERS, Refuses,
        |text| swap(text, "angle_of(batch, row);", "angle_of(batch, row + q_origin(batch) / params.q_stride_row);");
    rows_that_a_packed_sequence_lacks_have_weights: NORMALIZE, Staged,
        ["3x6/2x70/90x24/16 f32 causal(bottom-right) packed(120,140) lse probabilities bshd"], WEIGHTS, Refuses,
        |text| swap(text, "let inside = held && i >= part.begin", "let inside = i >= part.begin");
    scores_past_a_packed_sequence_are_shown: SCORE, Staged,
        ["3x6/2x70/90x24/16 f16 packed(120,140) raw-scores bshd"], WEIGHTS, Refuses,
        |text| swap(text, "let held = pair_held(rows, row, p.key) && ", "let held = ");

    // Barriers: before values of others are read, and before they are overwritten.
    staged_score_lacks_the_barrier_before_reading: SCORE, Staged,
        ["2x2/1x129x40 f32"], WRONG, Refuses,
        |text| swap(text, "    workgroupBarrier();\n    inner_tile(", "    inner_tile(");
    staged_score_lacks_the_barrier_before_writing: SCORE, Staged,
        ["2x2/1x129x40 f32"], WRONG, Refuses,
        |text| cut(text, "    inner_tile(&acc, head, c, x, y);", "    workgroupBarrier();");
    staged_normalize_lacks_a_barrier: NORMALIZE, Staged,
        ["2x2/1x129x40 f32"], WRONG, Refuses,
        |text| cut(text, "  sh_l[lane] = state.l;", "  workgroupBarrier();");
    staged_value_lacks_a_barrier: VALUE, Staged,
        ["2x2/1x129x40 f32"], WRONG, Refuses,
        |text| cut(text, "fn tile_turn(acc: ptr<function, array<vec4<f32>, 16>>, x: u32, y: u32) {", "  workgroupBarrier();");
    split_lacks_a_barrier: SPLIT, Split,
        ["2x6/2x3/150x64 f32 kv(f32) lse poison"], WRONG, Refuses,
        |text| cut(text, "    m = peak;", "    workgroupBarrier();");

    tile_lacks_the_barrier_before_its_products: TILE, FusedTile,
        ["2x2/1x129x40 f32"], WRONG, Refuses,
        |text| text.replacen("workgroupBarrier();\nfor (var d = 0u", "for (var d = 0u", 1);
    tile_lacks_the_barrier_after_its_peaks: TILE, FusedTile,
        ["2x2/1x129x40 f32"], EITHER, 
        Either("weights relative to a number near the peak are as good"),
        |text| swap(text, "  tile_put_peaks(place);\n  workgroupBarrier();\n", "  tile_put_peaks(place);\n");

    // Heads, lanes.
    fused_reads_the_keys_of_another_group: FUSED, Fused,
        ["2x4/2x19/65x32 f32 lse"], NUMBERS, Refuses,
        |text| swap(text, "= head / params.group;", "= head % (params.heads_q / params.group);");
    staged_reads_the_keys_of_another_group: SCORE, Staged,
        ["2x4/2x19/65x32 f32 lse"], NUMBERS, Refuses,
        |text| swap(text, "(head / params.group)", "(head % (params.heads_q / params.group))");
    split_numbers_the_heads_of_a_group_wrongly: SPLIT, Split,
        ["2x6/2x3/150x64 f32 kv(f32) lse poison"], CLASSES, Refuses,
        |text| swap(text, " % params.group;", " / params.row_n % params.group;");
    fused_takes_subgroups_for_32: SUBGROUP, Fused,
        ["1x2x65/257x64 f32 lse"], NUMBERS, Refuses,
        subgroups_of_32;

    // Scores and masks.
    fused_masks_before_the_softcap: FUSED, Fused,
        ["2x4/2x35/70x24/16 f32 relative(34,69,0) causal(35) softcap(9.0) lse"], NUMBERS,
        Refuses, mask_first;
    staged_masks_before_the_softcap: SCORE, Staged,
        ["2x4/2x35/70x24/16 f32 relative(34,69,0) causal(35) softcap(9.0) lse"], NUMBERS,
        Refuses, mask_first;
    fused_shows_one_key_too_few: FUSED, Fused,
        ["2x2/1x65/130x16 f32 causal(top-left) lse", "2x2/1x130/65x16 f32 causal(-9) lse"],
        NUMBERS, Refuses,
        |text| swaps(text, &[
            ("<= p.diagonal", "< p.diagonal"), ("rows.diagonal + 1", "rows.diagonal"),
        ]);
    fused_shows_one_key_too_many: FUSED, Fused,
        ["2x2/1x65/130x16 f32 causal(top-left) lse"], NUMBERS, Refuses,
        |text| swaps(text, &[
            ("<= p.diagonal", "<= p.diagonal + 1"), ("rows.diagonal + 1", "rows.diagonal + 2"),
        ]);
    staged_shows_one_key_too_many: SCORE, Staged,
        ["2x2/1x65/130x16 f32 causal(top-left) lse"], NUMBERS, Refuses,
        |text| swap(text, "<= p.diagonal", "<= p.diagonal + 1");
    bottom_right_is_taken_for_top_left: FUSED, Fused,
        ["2x2/1x65/130x16 f32 causal(bottom-right) lse", "2x2/1x130/65x16 f32 causal(bottom-right) lse"],
        NUMBERS, Refuses,
        |text| swap(text, "return i32(kv_len) - i32(q_len);", "return 0;");
    top_left_is_taken_for_bottom_right: FUSED, Fused,
        ["2x2/1x65/130x16 f32 causal(top-left) lse", "2x2/1x130/65x16 f32 causal(top-left) lse"],
        NUMBERS, Refuses,
        |text| swaps(text, &[(
            "given: i32) -> i32 {\n  return 0;", "given: i32) -> i32 {\n  return i32(kv_len) - i32(q_len);",
        )]);
    segment_ids_are_compared_as_floats: FUSED, Fused,
        ["3x2/1x9/70x8 f32 segments lse high-bits seen(wgpu-5318)"], NUMBERS,
        Serves("its ids are small"),
        |text| swap(text, "return q == kv;", "return f32(q) == f32(kv);");
    a_masked_score_is_a_finite_sentinel: SCORE, Staged,
        ["2x2/1x130/65x16 f32 causal(-9) lse"], NUMBERS, Refuses,
        |text| swap(text, "return bitcast<f32>(params.minus_infinity);", "return -1e9;");

    // The normaliser.
    fused_forgets_to_rescale: FUSED, Fused,
        ["1x2x65/257x64 f32 lse"], NUMBERS, Refuses,
        |text| swap(text, "let old = normalize_rescale(m, peak);", "let old = RowVec(1.0);");
    tile_forgets_to_rescale: TILE, FusedTile,
        ["1x2x65/257x64 f32 lse"], NUMBERS, Refuses,
        |text| swap(text, "  tile_rescale(place);\n", "");
    tile_keeps_a_stale_peak: TILE, FusedTile,
        ["1x2x65/257x64 f32 lse"], CLASSES, Refuses,
        |text| swap(text, "  return peak;\n}\n\n// Scores", "  return m;\n}\n\n// Scores");
    tile_multiplies_the_first_weights_twice: TILE, FusedTile,
        ["1x2x65/257x64 f32 lse"], NUMBERS, Refuses,
        |text| swap(text, "s0_0 = s4_0;", "");
    split_forgets_to_rescale: SPLIT, Split,
        ["2x6/2x3/150x64 f32 kv(f32) lse poison"], NUMBERS,
        Refuses,
        |text| swap(text, "split_rescale(old);", "");
    merge_counts_the_sink_twice: MERGE, Split,
        ["2x6/2x3/150x64 f32 kv(f32) sinks kv-lengths bshd poison", "1x2/1x1/1025x64 f32 sinks lse sinks=1e1 poison seen(ck_tile-12227)"],
        NUMBERS, Refuses,
        |text| swap(text, "normalize_merge(seen, ",
            "normalize_merge(normalize_merge(seen, normalize_start(rows.head)), ");
    merge_does_not_rescale_shares: MERGE, Split,
        ["1x2/1x1/1025x64 f32 lse logits=8e0 seen(pegainfer-21)"], NUMBERS, Refuses,
        |text| swap(text, "vec4<f32>(normalize_rescale(state.x, m))", "vec4<f32>(1.0)");
    split_tile_takes_the_first_share: SPLIT_TILE, Split,
        ["1x2x65/257x64 f32 lse"], NUMBERS, Refuses,
        |text| swap(text, "share_of(visible, split)", "share_of(visible, 0u)");
    split_tile_writes_over_a_share: SPLIT_TILE, Split,
        ["1x2x65/257x64 f32 lse"], WRONG, Refuses,
        |text| swap(text, "partial_index(batch, head, 0u, workgroup.z)", "partial_index(batch, head, 0u, 0u)");
    split_group_reads_q_of_the_first_head: SPLIT_GROUP, Split,
        ["2x4/2x19/65x32 f32 lse"], NUMBERS, Refuses,
        |text| swap(text, "return row % params.group * params.q_stride_head", "return 0u * row");
    split_group_writes_rows_by_head: SPLIT_GROUP, Split,
        ["2x4/2x19/65x32 f32 lse"], NUMBERS, Refuses,
        |text| swap(text, "return (row % params.group * params.seq_q + row / params.group)",
            "return (row)");
    split_group_masks_the_first_row: SPLIT_GROUP, Split,
        ["2x4/2x70/90x16/24 f32 causal(bottom-right) bias[1, 1, 70, 90] lse special faint \
          finite-bias seen(heedful-faint)"],
        WRONG, Refuses,
        |text| swap(text, "params.row0 + at / params.group, key", "params.row0, key");
    split_group_ends_with_one_heads_rows: SPLIT_GROUP, Split,
        ["2x4/2x19/65x32 f32 lse"], WRONG, Refuses,
        |text| swap(text, "row0, stored * params.group, ", "row0, stored, ");
    fused_begins_with_minus_infinity: FUSED, Fused,
        ["2x4/2x13/67x16 f32 mask[2, 4, 13, 67] lse poison"], CLASSES, Refuses,
        |text| swap(text, "Normalizer(LOWEST, 0.0)", "Normalizer(masked(), 0.0)");
    fused_begins_with_a_finite_sentinel: FUSED, Fused,
        ["2x4/2x9/1x64 f32 causal(top-left) lse logits=2.45e5 seen(flashinfer-4267)"], NUMBERS,
        Serves("its scores are of magnitude 1"),
        |text| swap(text, "Normalizer(LOWEST, 0.0)", "Normalizer(-5e4, 0.0)");
    lse_is_in_base_two: FUSED, Fused,
        ["2x4/2x19/65x32 f32 lse"], LSE, Refuses,
        |text| swap(text, "n.m + log(n.l)", "(n.m + log(n.l)) * LOG2_E");
    empty_rows_are_divided_by_zero: FUSED, Fused,
        ["2x2/1x130/65x16 f32 causal(-9) lse"], CLASSES, Refuses,
        |text| swaps(text, &[
            ("return select(scale, 0.0, total.l == 0.0);", "return scale;"),
            (" || seen.l == 0.0;", ";"),
        ]);

    // Precision.
    fused_sums_in_binary16: FUSED, Fused,
        ["1x2x65/257x64 f32 lse"], NUMBERS, Serves("its sums are short"), halves_in;
    fused_sums_binary16_in_binary16: FUSED, Fused,
        ["2x2/1x257x40 f16"], NUMBERS, Serves("its sums are short"), halves_in;
    split_sums_binary16_in_binary16: SPLIT, Split,
        ["2x8/1x3/300x64 f16 sinks lse logits=0e0 values=6e4 seen(llama.cpp-15274)"],
        CLASSES, Serves("its sums are short"), halves_in;
    fused_counts_weights_in_binary16: FUSED, Fused,
        ["1x2/1x1/51000x8 f16 lse seen(llama.cpp-28124)"], NUMBERS, Serves("its sums are short"),
        |text| swap(text, "l = fma(l, old, normalize_share(p));",
            "l = unpack2x16float(pack2x16float(vec2<f32>(fma(l, old, normalize_share(p)), 0.0))).x;");
    fused_scores_are_binary16: FUSED, Fused,
        ["2x2/1x33/70x64 f16 causal(top-left) lse logits=1e5"], CLASSES,
        Serves("its scores are of magnitude 1"),
        |text| swap(text, "score_scaled(product, p)",
            "unpack2x16float(pack2x16float(vec2<f32>(score_scaled(product, p), 0.0))).x");

    // What is hidden.
    fused_multiplies_what_is_hidden_by_zero: FUSED, Fused,
        ["2x4/2x37/70x16/24 f32 mask[2, 1, 37, 70] lse special seen(lattice-790)", "2x2/1x65x64 f32 causal(-5) lse special seen(lattice-790)"],
        CLASSES, Serves("its tensors hold no NaN"),
        |text| (0..32).fold(text.to_owned(), |text, d| {
            (0..4).fold(text, |text, r| {
                let text = swap(&text, &format!("select(x{d}, vec4<f32>(0.0), hidden[{r}u])"), &format!("x{d}"));
                swap(&text, &format!("select(x{d}, vec4<f32>(0.0), hidden)"), &format!("x{d}"))
            })
        });
    tile_multiplies_what_is_hidden_by_zero: TILE, FusedTile,
        ["2x4/2x37/70x16/24 f32 mask[2, 1, 37, 70] lse special seen(lattice-790)",
            "2x2/1x65x64 f32 causal(-5) lse special seen(lattice-790)"],
        CLASSES, Serves("its tensors hold no NaN"),
        |text| swap(text, "if (tested && any_special(shown))", "if (false)");
    tile_reads_the_values_of_the_first_part_twice: TILE, FusedTile,
        ["2x2/1x129x40 f32"], NUMBERS, Refuses,
        |text| swap(text, "key0 + part * 32u", "key0 + part * 0u");
    split_multiplies_what_is_hidden_by_zero: SPLIT, Split,
        ["2x4/2x5/70x16/24 f32 mask[2, 4, 5, 70] lse special seen(lattice-790)"], CLASSES,
        Serves("its tensors hold no NaN"),
        |text| (0..8).fold(text.to_owned(), |text, u| {
            (0..4).fold(text, |text, r| {
                let hidden = format!("select(x{u}_0, vec4<f32>(0.0), (hidden{u} & {}u) != 0u)", 1 << r);
                swap(&text, &hidden, &format!("x{u}_0"))
            })
        });
    staged_multiplies_what_is_hidden_by_zero: VALUE, Staged,
        ["2x4/2x13/67x16 f32 mask[2, 1, 1, 67] lse poison"], CLASSES,
        Serves("its tensors hold no NaN"),
        |text| swap(text, "if (any_special(v4))", "if (false)");

    // Storage.
    fused_reads_the_pages_of_the_first_sequence: FUSED, Fused,
        ["3x4/2x4/35x40/24 f32 kv(f32) causal(bottom-right) kv-lengths paged(14x16,4) lse bhsd/bshd/bshd/bhsd poison"],
        WRONG, Refuses,
        |text| {
            let row = "aux_word(params.aux_page_table + batch * params.page_row +";
            swap(text, row, "aux_word(params.aux_page_table +")
        };
    split_reads_the_page_of_the_next_key: SPLIT, Split,
        ["3x4/2x4/35x40/24 f32 kv(f32) causal(bottom-right) kv-lengths paged(14x16,4) lse bhsd/bshd/bshd/bhsd poison"],
        CLASSES, Refuses,
        |text| swap(text, "min(key / params.page_size,", "min((key + 1u) / params.page_size,");
    fused_scales_keys_by_the_next_row: FUSED, Fused,
        ["2x6/2x3/150x64 f32 kv(int8) lse poison"], NUMBERS, Refuses,
        |text| swap(text, "k_scale(at, 0u)", "k_scale(at + params.k_stride_row, 0u)");
    split_scales_values_by_the_next_row: SPLIT, Split,
        ["2x6/2x3/150x64 f32 kv(int8) lse poison"], NUMBERS, Refuses,
        |text| (0..8).fold(text.to_owned(), |text, u| {
            swap(&text, &format!("v_scale(at{u}, 0u)"), &format!("v_scale(at{u} + params.v_stride_row, 0u)"))
        });

    // Few bits.
    e4m3_is_read_with_the_bias_of_fnuz: FUSED, Fused,
        ["2x6/2x67/70x40/24 f32 kv(e4m3) kv-scales(head) causal(bottom-right) softcap(3.0) lse poison"],
        NUMBERS, Refuses,
        |text| swap(text, "+ vec4<u32>(0x3c000000u)", "+ vec4<u32>(0x3b800000u)");
    e5m2_is_read_from_the_highest_byte_on: SPLIT, Split,
        ["2x6/2x3/150x64 f32 kv(e5m2) lse poison"], NUMBERS, Refuses,
        |text| swap(text, "vec4<u32>(word, word >> 8u, word >> 16u, word >> 24u)",
            "vec4<u32>(word >> 24u, word >> 16u, word >> 8u, word)");
    mxfp4_has_no_subnormal: FUSED, Fused,
        ["2x6/2x3/150x64 f32 kv(mxfp4) lse poison"], NUMBERS, Refuses,
        |text| swap(text, "magnitude < vec4<u32>(2u)", "magnitude < vec4<u32>(1u)");
    mxfp4_is_scaled_as_the_first_block: SPLIT, Split,
        ["2x6/2x3/150x64 f32 kv(mxfp4) lse poison"], NUMBERS, Refuses,
        |text| swap(text, "(word >> ((i & 3u) * 8u))", "word");
    bytes_are_scaled_by_the_next_row: FUSED, Fused,
        ["3x4/2x2/70x40/24 f32 kv(e4m3-row) causal(bottom-right) kv-lengths paged(20x16,6) lse bhsd/bshd/bshd/bhsd poison"],
        WRONG, Refuses,
        |text| swap(text, "k_scale(at, 0u)", "k_scale(at + params.k_stride_row, 0u)");
    keys_are_scaled_as_those_of_another_head: FUSED, Fused,
        ["2x6/2x67/70x40/24 f32 kv(e4m3) kv-scales(head) causal(bottom-right) softcap(3.0) lse poison"],
        NUMBERS, Refuses,
        |text| swap(text, "p.head / params.group * params.kv_scale_stride", "p.head % params.group % 2u");
    keys_are_scaled_behind_the_softcap: FUSED, Fused,
        ["2x6/2x67/70x40/24 f32 kv(e4m3) kv-scales(head) causal(bottom-right) softcap(3.0) lse poison"],
        NUMBERS, Refuses,
        |text| swaps(text, &[
            (" x = score_key_scale(x, p);", ""),
            (" x = score_softcap(x, p);", " x = score_softcap(x, p); x = score_key_scale(x, p);"),
        ]);
    values_are_scaled_as_the_first_head: MERGE, Split,
        ["2x6/2x3/150x40/24 f32 kv(e4m3) kv-scales(head) sinks kv-lengths paged(24x16,11) lse bhsd/bshd/bshd/bhsd poison"],
        NUMBERS, Refuses,
        |text| swap(text, "head / params.group * params.kv_scale_stride", "0u");
    bits_of_a_mask_are_read_from_the_highest_on: FUSED, Fused,
        ["2x4/2x13/67x16 f32 bits[1, 1, 1, 67] bias(f16)[1, 1, 1, 67] lse"], NUMBERS, Refuses,
        |text| swap(text, "(i & 31u)) & 1u", "(31u - (i & 31u))) & 1u");
    halves_of_a_bias_are_swapped: FUSED, Fused,
        ["2x4/2x13/67x16 f32 bits[1, 1, 1, 67] bias(f16)[1, 1, 1, 67] lse"], NUMBERS, Refuses,
        |text| swap(text, "((i & 1u) * 16u)", "((~i & 1u) * 16u)");
    halves_of_a_bf16_bias_are_swapped: FUSED, Fused,
        ["2x4/2x19/70x24/16 f32 bits[1, 4, 19, 1] bias(bf16)[2, 1, 1, 70] lse"], NUMBERS, Refuses,
        |text| swap(text, "(i & 1u) == 1u", "(i & 1u) == 0u");

    // Graphs, and normalisers that look at a row twice.
    a_row_of_a_graph_leaves_out_its_last_edge: GRAPH, Fused,
        ["2x4/2x70/130x16/24 f32 edges(333,bias) lse poison"], NUMBERS, Refuses,
        |text| swap(text, "edge < edges.y;", "edge + 1u < edges.y;");
    edges_have_the_bias_of_the_next: GRAPH, Fused,
        ["2x4/2x70/130x16/24 f32 edges(4000,bias) lse poison"], NUMBERS, Refuses,
        |text| swap(text, "current_edge = edge;", "current_edge = min(edge + 1u, edges.y - 1u);");
    a_threshold_ends_too_early: THRESHOLD, Staged,
        ["2x4/2x67/90x24/40 f32 sparsemax window(11,3,top-left) softcap(20.0) logits=3e1"], NUMBERS, Refuses,
        |text| swap(text, "const MAX_ROUNDS: u32 = 100u;", "const MAX_ROUNDS: u32 = 2u;");
    a_threshold_takes_the_slope_of_what_is_hidden: THRESHOLD, Staged,
        ["2x4/2x67/90x24/40 f32 sparsemax causal(9) mask[2, 1, 67, 90] probabilities poison"], WRONG, Refuses,
        |text| swap(text, "- tau, vec4<f32>(-1.0), masked4(s))", "- tau, vec4<f32>(1.0), masked4(s))");
    monotonic_rows_forget_the_place_before: MONOTONIC, Staged,
        ["2x4/2x67/90x24/40 f32 monotonic causal(30) kv-lengths q-lengths poison"], NUMBERS, Refuses,
        |text| swap(text, "if (found != NONE) { place = found; }", "");
    monotonic_rows_look_at_64_keys_only: MONOTONIC, Staged,
        ["2x4/2x67/200x24/40 f32 monotonic alibi(bottom-right)"], NUMBERS,
        Serves("its rows find a key among the first 64"),
        |text| swap(text, "start < end; start += 64u", "start < min(end, max(place, begin) + 1u); start += 64u");
}
