#!/usr/bin/env bash
# Has Tint, the compiler of Chromium and Dawn, read every kernel variant: tests/tint.sh
#
# Needs node and npm, no GPU: the npm package `webgpu` is Dawn, whose null backend compiles and runs nothing. Exits 1 when a
# variant is refused, 3 when the package cannot be fetched.
set -euo pipefail
cd "$(dirname "$0")/.."

place=target/tint
mkdir -p "$place"
[ -d "$place/node_modules/webgpu" ] || npm install --silent --no-audit --no-fund --prefix "$place" webgpu@0.6.2 ||
  { echo "tint.sh: the npm package webgpu could not be fetched" >&2; exit 3; }
cargo test --quiet --all-features --test compose -- --ignored --nocapture write_variants
cp tests/tint.mjs "$place/check.mjs"
# A process for each core: Tint reads in one thread.
parts=$(nproc) running=() failed=0
for ((part = 0; part < parts; part++)); do
  node "$place/check.mjs" "$place/variants" "$part" "$parts" &
  running+=($!)
done
for process in "${running[@]}"; do wait "$process" || failed=1; done
exit "$failed"
