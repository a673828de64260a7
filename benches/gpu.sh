#!/usr/bin/env bash
# Measures this machine's GPU: makes random-weight models of the real shapes, runs atelico bench on them
# and prints a table beside llama.cpp's figures on an H200.
#
#   benches/gpu.sh [MODEL ...]
#
# MODEL is a shape of random_gguf.py and a type, e.g. llama-3.2-1b:bf16; without one, all of the table
# run. Build first: cargo build --release --features vulkan,cuda.
#
# ATELICO names our program (default: target/release/atelico), MODELS the folder that keeps the files
# (default: target/bench-models; a file is made once), DEVICES what to run on (default: "cuda vulkan"),
# REPETITIONS how often (default: 5), RAW a file that all reports are added to, as JSON lines.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
atelico=${ATELICO:-$target/release/atelico}
models=${MODELS:-$target/bench-models}
devices=${DEVICES:-cuda vulkan}
repetitions=${REPETITIONS:-5}
raw=${RAW:-$(mktemp)}
errors=$(mktemp)
trap 'rm -f "$errors"' EXIT

# Shape, type, and llama.cpp's pp512 and tg128 on one H200, 2026-11.
peers="\
llama-3.2-1b:bf16 96500 788
llama-3.2-1b:q4_k_m 41400 904
qwen3-0.6b:bf16 87800 678
qwen3-0.6b:q4_k_m 43300 755
qwen3.5-0.8b:bf16 49200 521
qwen3.5-0.8b:q4_k_m 28800 594
nemotron3-elastic-12b:q4_k_m 13800 445
qwen3.6-35b-a3b:q4_k_m 5470 247"

if [ ! -x "$atelico" ]; then
  echo "error: $atelico is missing; build it: cargo build --release --features vulkan,cuda" >&2
  exit 1
fi
mkdir -p "$models"
[ $# -gt 0 ] || mapfile -t all < <(cut -d' ' -f1 <<<"$peers")
[ $# -gt 0 ] || set -- "${all[@]}"

echo "| model | device | test | tokens/s | llama.cpp | ratio | share of a copy's bandwidth | load ms | first token ms |"
echo "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
for model in "$@"; do
  shape=${model%%:*}
  type=${model##*:}
  file=$models/$shape-$type.gguf
  if [ ! -f "$file" ]; then
    echo "making $file" >&2
    python3 benches/random_gguf.py --type "$type" "$shape" "$file.part" >&2
    mv "$file.part" "$file"
  fi
  read -r _ pp tg <<<"$(grep "^$model " <<<"$peers" || true)"
  for device in $devices; do
    if ! report=$("$atelico" bench "$file" --device "$device" -r "$repetitions" --format json 2>"$errors"); then
      echo "| $model | $device | $(tail -1 "$errors") | | | | | | |"
      continue
    fi
    python3 - "$model" "$device" "${pp:-}" "${tg:-}" "$raw" "$report" <<'PYTHON'
import json, sys

model, device, pp, tg, raw, report = sys.argv[1:]
report = json.loads(report)
with open(raw, "a") as out:
    print(json.dumps({"file": model, **report}), file=out)
peers = {"pp512": pp, "tg128": tg}
for result in report["results"]:
    rate, peer = result["tokens_per_second"], peers.get(result["test"])
    share = result["bandwidth_share"]
    cells = [
        model, device, result["test"], f"{rate:,.0f}",
        f"{int(peer):,}" if peer else "",
        f"{rate / int(peer):.2f}" if peer else "",
        f"{share:.0%}" if share else "",
        f"{report['load_ms']:.0f}", f"{report['first_token_ms']:.0f}",
    ]
    print("|", " | ".join(cells), "|", flush=True)
PYTHON
  done
done
