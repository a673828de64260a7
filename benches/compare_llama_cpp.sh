#!/usr/bin/env bash
# Runs atelico bench and llama.cpp's llama-bench on one GGUF file in turn, on the CPU, and prints the
# medians and their ratio.
#
#   benches/compare_llama_cpp.sh MODEL.gguf [ROUNDS] [THREADS]
#
# llama-bench is taken from $LLAMA_BENCH, or built from the sources that llama-cpp-python ships on
# PyPI (needs cmake and a C++ compiler; some minutes). It runs in its fastest mode here: weights in
# memory of its own on huge pages instead of a mapped file.
set -euo pipefail
cd "$(dirname "$0")/.."
model=$1
rounds=${2:-5}
threads=${3:-$(nproc)}
version=0.3.36
atelico=${ATELICO:-target/release/atelico}
bench=${LLAMA_BENCH:-target/llama.cpp-$version/bin/llama-bench}

if [ ! -x "$bench" ]; then
  work=$(mktemp -d)
  pip download -q --no-deps --no-binary llama-cpp-python "llama-cpp-python==$version" -d "$work"
  tar xf "$work"/*.tar.gz -C "$work"
  cmake -S "$work/llama_cpp_python-$version/vendor/llama.cpp" -B "target/llama.cpp-$version" \
    -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF >/dev/null
  cmake --build "target/llama.cpp-$version" --target llama-bench -j "$(nproc)" >/dev/null
fi

export RAYON_NUM_THREADS=$threads
ours=$(mktemp) theirs=$(mktemp)
for _ in $(seq "$rounds"); do
  "$atelico" bench "$model" --device cpu -r 1 --format json >>"$ours"
  GLIBC_TUNABLES=glibc.malloc.hugetlb=1 "$bench" -m "$model" -t "$threads" -lm none -r 1 -o jsonl >>"$theirs"
done
python3 - "$ours" "$theirs" "$model" <<'PYTHON'
import json, statistics, sys

def objects(path):
    text, decoder = open(path).read(), json.JSONDecoder()
    while text := text.lstrip():
        value, end = decoder.raw_decode(text)
        text = text[end:]
        yield value

ours = {}
for run in objects(sys.argv[1]):
    for result in run["results"]:
        ours.setdefault(result["test"], []).append(result["tokens_per_second"])
theirs = {}
for run in objects(sys.argv[2]):
    test = f"pp{run['n_prompt']}" if run["n_prompt"] else f"tg{run['n_gen']}"
    theirs.setdefault(test, []).append(run["avg_ts"])
print(f"{sys.argv[3]}: medians of {len(ours['tg128'])} alternating runs, tokens/s")
for test in ("pp512", "tg128"):
    a, b = statistics.median(ours[test]), statistics.median(theirs[test])
    print(f"  {test}: atelico {a:.1f}  llama.cpp {b:.1f}  ratio {a / b:.2f}")
PYTHON
