#!/usr/bin/env bash
# The page's module for verification without a browser: tests/dawn.sh [swiftshader]
#
# Runs a case for every slot file through Dawn, Chromium's implementation of WebGPU, in Node: a second compiler and a
# second runtime, with f16, which Chromium's own software adapter lacks. On a current Mesa, or on SwiftShader;
# HEEDFUL_GRID=quick runs the quick grid, HEEDFUL_DAWN=defaults leaves Dawn as it is (see tests/browser.mjs). The report
# lies in target/dawn, as JSON and as a page.
#
# Needs node, npm and apt-get (scripts/software-adapters). Exits 1 when a case is wrong, 3 when what it needs cannot be
# had.
set -euo pipefail
cd "$(dirname "$0")/.."
adapter=${1:-mesa}
place=${CARGO_TARGET_DIR:-$PWD/target}/dawn
mkdir -p "$place"
rm -f "$place"/report.*

missing() { echo "dawn.sh: $*" >&2; exit 3; }

command -v node >/dev/null && command -v npm >/dev/null || missing "no node and npm"
rustup target add wasm32-unknown-unknown >/dev/null 2>&1 || missing "no target wasm32-unknown-unknown"
[ -d "$place/node_modules/webgpu" ] || npm install --silent --no-audit --no-fund --prefix "$place" webgpu@0.6.2 ||
  missing "the npm package webgpu could not be fetched"
prepare=(--prepare)
if [ "$adapter" = mesa ]; then prepare+=(mesa); fi
scripts/software-adapters "${prepare[@]}" || missing "no driver could be fetched"

cargo run --quiet -p heedful-web-bundle
web=${CARGO_TARGET_DIR:-$PWD/target}/web
# Node takes a module by its name.
cp "$web/heedful_check.js" "$place/heedful_check.mjs"
cp "$web/heedful_check_bg.wasm" tests/dawn.mjs "$place"
export GALLIVM_PERF="${GALLIVM_PERF-nopt}"
status=0
"target/adapters/$adapter.sh" "$(command -v node)" "$place/dawn.mjs" "${HEEDFUL_GRID:-slots}" "$place/report.json" ||
  status=1
[ ! -e "$place/report.json" ] ||
  cargo run --quiet -p heedful-cli -- report "$place/report.json" --html "$place/report.html" || status=1
exit $status
