//! Generated functions that read and write elements: loads of any width and storage, stores, whole rows of a cache.

use std::fmt::Write;

use super::function;
use crate::kernel::bindings::Binding;
use crate::kernel::element::{Element, Width};
use crate::kernel::spec::KernelSpec;
use crate::tensor::{Scales, Storage};

/// `{name}_load4(i, n)`: elements i..i+n (n ≤ 4) as f32, zeros after them.
pub(in crate::kernel) fn load_glue(
    out: &mut String,
    spec: &KernelSpec,
    binding: Binding,
    element: Element,
) {
    let (name, load) = (binding.name(), element.load());
    let slot = load.slot.function();
    let signature = format!("{name}_load4(i: u32, n: u32) -> vec4<f32>");
    if element.storage.scales() != Scales::None {
        // Behind the channels: one scale, or one per 32 channels, two or four to a word.
        // Products of tiles that fit any dimension have it from the parameters.
        let side = usize::from(binding == Binding::V);
        let padded = |to: u32| match spec.dims()[side] {
            0 => format!("((params.{} + {}u) & ~{}u)", ["dim_qk", "dim_v"][side], to - 1, to - 1),
            dim => format!("{}u", dim.next_multiple_of(to)),
        };
        let words = |log2: u32| format!("((at + {}) >> 3u) + (block >> {log2}u)", padded(8));
        let word = match element.storage {
            Storage::Int4 => words(1),
            Storage::Mxfp4 => words(2),
            _ => format!("(at + {}) >> 2u", padded(4)),
        };
        let body = format!("return {slot}_scale({name}[{word}], block);");
        function(out, &format!("{name}_scale(at: u32, block: u32) -> f32"), &body);
    }
    if element.storage.unit_bits() == 4 {
        // Half a word holds four; what lies past the channels is 0.
        let body = format!("return {slot}_4({name}[i >> 3u] >> ((i & 4u) * 4u));");
        return function(out, &signature, &body);
    }
    if element.width == Width::Vec4 {
        let body =
            format!("if (n == 0u) {{ return vec4<f32>(0.0); }} return {slot}_4({name}[i >> 2u]);");
        return function(out, &signature, &body);
    }
    let one = format!("return {slot}_1({name}[i >> {}u], i);", load.word1_log2);
    function(out, &format!("{name}_load1(i: u32) -> f32"), &one);
    let mut body = "var v = vec4<f32>(0.0);".to_owned();
    for c in 0..4 {
        body += &format!(" if (n > {c}u) {{ v[{c}u] = {name}_load1(i + {c}u); }}");
    }
    function(out, &signature, &format!("{body} return v;"));
}

/// `{name}_read4(at, c, n)`: channels c..c+n (n ≤ 4) of the row that starts at `at`, times their scale, zeros after
/// them.
pub(in crate::kernel) fn row_glue(out: &mut String, spec: &KernelSpec, binding: Binding) {
    let name = binding.name();
    let load = format!("{name}_load4(at + c, n)");
    let scaled = |block: &str| {
        format!(
            "if (n == 0u) {{ return vec4<f32>(0.0); }} return {load} * {name}_scale(at, {block});"
        )
    };
    let body = match spec.scales(binding) {
        Scales::None => format!("return {load};"),
        Scales::Row => scaled("0u"),
        Scales::Blocks => scaled("c >> 5u"),
    };
    function(out, &format!("{name}_read4(at: u32, c: u32, n: u32) -> vec4<f32>"), &body);
}

/// `{name}_store4(i, n, v)`: the first n of v to elements i..i+n, or added to these.
pub(in crate::kernel) fn store_glue(
    out: &mut String,
    spec: &KernelSpec,
    binding: Binding,
    element: Element,
) {
    let (name, store) = (binding.name(), element.store());
    let slot = store.slot.function();
    let signature = format!("{name}_store4(i: u32, n: u32, v: vec4<f32>)");
    // Only f32 is added to, which is stored as it is.
    let adds = spec.adds_to.contains(&binding);
    if element.width == Width::Vec4 {
        let sum = if adds { format!("{name}[i >> 2u] + v") } else { "v".into() };
        return function(out, &signature, &format!("{name}[i >> 2u] = {slot}_4({sum});"));
    }
    let one = if store.halves {
        // Each invocation changes only its own half of the word, so no order is needed.
        format!(
            "let shift = (i & 1u) * 16u; atomicAnd(&{name}[i >> 1u], ~(0xffffu << shift)); \
             atomicOr(&{name}[i >> 1u], {slot}_1(v) << shift);"
        )
    } else {
        let sum = if adds { format!("{name}[i] + v") } else { "v".into() };
        format!("{name}[i] = {slot}_1({sum});")
    };
    function(out, &format!("{name}_store1(i: u32, v: f32)"), &one);
    let body: Vec<String> =
        (0..4).map(|c| format!("if (n > {c}u) {{ {name}_store1(i + {c}u, v[{c}u]); }}")).collect();
    function(out, &signature, &body.join(" "));
}

/// A row of int8 by 32 invocations, with its scale behind it.
const INT8_ROW: &str = "var most = 0.0;
  let words = (params.dim_source + 3u) / 4u;
  for (var c = lane; c < words; c += 32u) { most = larger(most, largest(channels(at, c, angle))); }
  sh_most[lane] = most;
  workgroupBarrier();
  for (var i = 0u; i < 32u; i += 1u) { most = larger(most, sh_most[i]); }
  let scale = most / 127.0;
  for (var c = lane; c < words; c += 32u) {
    let q = quantised(channels(at, c, angle), scale, 127.0) & vec4<u32>(0xffu);
    o[(out >> 2u) + c] = q.x | (q.y << 8u) | (q.z << 16u) | (q.w << 24u);
  }
  if (lane == 0u) { o[(out >> 2u) + words] = select(0x7fc00000u, bitcast<u32>(scale), is_finite(most)); }";

/// A row of int4 with the scales of its blocks behind it. An invocation takes two blocks of 32, whose scales share a
/// word.
const INT4_ROW: &str = "let words = (params.dim_source + 7u) / 8u;
  for (var pair = lane; pair * 64u < params.dim_source; pair += 32u) {
    var scales = 0u;
    for (var half = 0u; half < 2u; half += 1u) {
      let first = pair * 16u + half * 8u;
      var most = 0.0;
      for (var c = first; c < first + 8u; c += 1u) { most = larger(most, largest(channels(at, c, angle))); }
      // The least bfloat16 that is not below most / 7.
      var bits = (bitcast<u32>(most / 7.0) + 0xffffu) >> 16u;
      if (!is_finite(most)) { bits = 0x7fc0u; }
      scales |= bits << (16u * half);
      let scale = bitcast<f32>(bits << 16u);
      for (var c = first; c < first + 8u && c / 2u < words; c += 2u) {
        let low = quantised(channels(at, c, angle), scale, 7.0) & vec4<u32>(15u);
        let high = quantised(channels(at, c + 1u, angle), scale, 7.0) & vec4<u32>(15u);
        o[(out >> 3u) + c / 2u] = low.x | (low.y << 4u) | (low.z << 8u) | (low.w << 12u)
          | (high.x << 16u) | (high.y << 20u) | (high.z << 24u) | (high.w << 28u);
      }
    }
    o[(out >> 3u) + words + pair] = scales;
  }";

/// `store_row(at, out, angle, lane)`: a new row into the cache at unit `out`, in its storage.
pub(in crate::kernel) fn store_row_glue(out: &mut String, element: Element) {
    let body = match element.storage {
        Storage::Int8 => INT8_ROW.to_owned(),
        Storage::Int4 => INT4_ROW.to_owned(),
        Storage::E4m3Row | Storage::E5m2Row => row_of_bytes(element.storage),
        Storage::E4m3 | Storage::E5m2 => {
            let code = codes(element.storage);
            format!(
                "let words = (params.dim_source + 3u) / 4u;
  for (var c = lane; c < words; c += 32u) {{
    let q = {code}(channels(at, c, angle));
    o[(out >> 2u) + c] = q.x | (q.y << 8u) | (q.z << 16u) | (q.w << 24u);
  }}"
            )
        }
        Storage::Mxfp4 => blocks_of_mxfp4(),
        _ => "for (var c = lane; 4u * c < params.dim_source; c += 32u) {
    o_store4(out + 4u * c, min(params.dim_source - 4u * c, 4u), channels(at, c, angle));
  }"
        .to_owned(),
    };
    let signature = "store_row(at: u32, out: u32, angle: u32, lane: u32)";
    let _ = writeln!(out, "fn {signature} {{\n  {body}\n}}");
}

/// The function of `common/small_float.wgsl` that makes codes of numbers.
fn codes(storage: Storage) -> &'static str {
    match storage {
        Storage::E5m2 | Storage::E5m2Row => "codes_e5m2",
        _ => "codes_e4m3",
    }
}

/// A row of 8-bit floating-point numbers: its scale is a power of two, with which none is too large.
fn row_of_bytes(storage: Storage) -> String {
    let (code, below, half) = (codes(storage), storage.exponents_below(), storage.half_place());
    format!(
        "var most = 0.0;
  let words = (params.dim_source + 3u) / 4u;
  for (var c = lane; c < words; c += 32u) {{ most = larger(most, largest(channels(at, c, angle))); }}
  sh_most[lane] = most;
  workgroupBarrier();
  for (var i = 0u; i < 32u; i += 1u) {{ most = larger(most, sh_most[i]); }}
  let bits = (max((bitcast<u32>(most) + {half}u) >> 23u, {}u) - {below}u) << 23u;
  // Devices may divide inexactly.
  let inverse = bitcast<f32>((254u << 23u) - bits);
  for (var c = lane; c < words; c += 32u) {{
    let q = {code}(channels(at, c, angle) * inverse);
    o[(out >> 2u) + c] = q.x | (q.y << 8u) | (q.z << 16u) | (q.w << 24u);
  }}
  if (lane == 0u) {{ o[(out >> 2u) + words] = select(0x7fc00000u, bits, is_finite(most)); }}",
        below + 1
    )
}

/// Blocks of 32 channels with a power of two each; an invocation takes four blocks, whose scales share a word.
fn blocks_of_mxfp4() -> String {
    "let words = (params.dim_source + 7u) / 8u;
  for (var four = lane; four * 128u < params.dim_source; four += 32u) {
    var scales = 0u;
    for (var quarter = 0u; quarter < 4u; quarter += 1u) {
      let first = four * 32u + quarter * 8u;
      if (4u * first >= params.dim_source) { break; }
      var most = 0.0;
      for (var c = first; c < first + 8u; c += 1u) { most = larger(most, largest(channels(at, c, angle))); }
      let exponent = max(bitcast<u32>(most) >> 23u, 3u) - 2u;
      scales |= select(0xffu, exponent, is_finite(most)) << (8u * quarter);
      let inverse = bitcast<f32>((254u - exponent) << 23u);
      for (var c = first; c < first + 8u && c / 2u < words; c += 2u) {
        let low = codes_e2m1(channels(at, c, angle) * inverse);
        let high = codes_e2m1(channels(at, c + 1u, angle) * inverse);
        o[(out >> 3u) + c / 2u] = low.x | (low.y << 4u) | (low.z << 8u) | (low.w << 12u)
          | (high.x << 16u) | (high.y << 20u) | (high.z << 24u) | (high.w << 28u);
      }
    }
    o[(out >> 3u) + words + four] = scales;
  }"
    .to_owned()
}
