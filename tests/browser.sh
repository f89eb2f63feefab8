#!/usr/bin/env bash
# Does in a real browser what a visitor does: tests/browser.sh
#
# Builds the page, opens it in headless Chromium on its software adapter, changes the map, plants a fault in a kernel,
# hides WebGPU, verifies a case for every slot file, downloads the report and has `heedful report` read it.
# Screenshots and reports lie in target/browser. HEEDFUL_GRID=quick verifies the quick grid instead.
#
# Needs node, npm and Chromium, which is installed where apt-get and the right to are there (HEEDFUL_NO_INSTALL=1: not).
# Exits 1 when something is wrong, 3 when what it needs cannot be had.
set -euo pipefail
cd "$(dirname "$0")/.."
place=${CARGO_TARGET_DIR:-$PWD/target}/browser
mkdir -p "$place"

missing() { echo "browser.sh: $*" >&2; exit 3; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

browser() { command -v "${HEEDFUL_CHROMIUM:-chromium}" || command -v google-chrome || command -v chromium-browser; }

if ! browser >/dev/null && [ "${HEEDFUL_NO_INSTALL:-0}" != 1 ] && command -v apt-get >/dev/null; then
  as_root apt-get update -qq && as_root apt-get install -y -qq --no-install-recommends chromium || true
fi
chromium=$(browser) || missing "no Chromium found, and none could be installed"
command -v node >/dev/null && command -v npm >/dev/null || missing "no node and npm"
rustup target add wasm32-unknown-unknown >/dev/null 2>&1 || missing "no target wasm32-unknown-unknown"
[ -d "$place/node_modules/playwright-core" ] ||
  npm install --silent --no-audit --no-fund --prefix "$place" playwright-core@1.65.1 ||
  missing "the npm package playwright-core could not be fetched"

cargo run --quiet -p heedful-web-bundle
cp tests/browser.mjs "$place/browser.mjs"
node "$place/browser.mjs" "${CARGO_TARGET_DIR:-$PWD/target}/web" "$place" "$chromium" "${HEEDFUL_GRID:-slots}"

# What was downloaded is what `heedful report` merges: right, and with the planted fault wrong.
heedful() { cargo run --quiet -p heedful-cli -- "$@"; }
heedful report "$place/report.json" tests/reports/*.json --html "$place/merged.html"
status=0
heedful report "$place/planted.json" --markdown "$place/planted.md" 2>"$place/planted.txt" || status=$?
[ "$status" = 1 ] || { echo "browser.sh: a report with a planted fault gave status $status, wanted 1" >&2; exit 1; }
