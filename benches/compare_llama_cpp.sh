#!/usr/bin/env bash
# Runs atelico bench and llama.cpp's llama-bench on one GGUF file in turn, on the CPU, and prints the
# medians, their spread and their ratio.
#
#   benches/compare_llama_cpp.sh MODEL.gguf [ROUNDS] [THREADS]
#
# ATELICO names our program (default: target/release/atelico). LLAMA_BENCH names llama-bench; without
# it, it is built from the sources that llama-cpp-python ships on PyPI (needs pip, cmake and a C++
# compiler; some minutes; what gcc 12 builds crashes on processors with AMX, CXX=clang++ CC=clang helps).
# It runs in its fastest mode here: weights in memory of its own on huge pages
# instead of a mapped file.
set -euo pipefail

fail() {
  echo "error: $*" >&2
  exit 1
}

[ $# -ge 1 ] && [ $# -le 3 ] || fail "usage: $0 MODEL.gguf [ROUNDS] [THREADS]"
[ -f "$1" ] || fail "$1 is no file"
model=$(realpath "$1")
rounds=${2:-5}
threads=${3:-$(nproc)}
cd "$(dirname "$0")/.."
version=0.3.36
target=${CARGO_TARGET_DIR:-target}
atelico=${ATELICO:-$target/release/atelico}
bench=${LLAMA_BENCH:-$target/llama.cpp-$version/bin/llama-bench}
[ -x "$atelico" ] || fail "$atelico is missing; build it: cargo build --release"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ ! -x "$bench" ]; then
  [ -z "${LLAMA_BENCH:-}" ] || fail "$bench is no program"
  echo "building llama-bench of llama-cpp-python $version" >&2
  pip download -q --no-deps --no-binary llama-cpp-python "llama-cpp-python==$version" -d "$work"
  tar xf "$work"/*.tar.gz -C "$work"
  build=$target/llama.cpp-$version
  {
    cmake -S "$work/llama_cpp_python-$version/vendor/llama.cpp" -B "$build" \
      -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF
    cmake --build "$build" --target llama-bench -j "$(nproc)"
  } >"$work/build.log" 2>&1 || { tail -20 "$work/build.log" >&2; fail "llama-bench did not build"; }
fi
libraries=$(dirname "$(realpath "$bench")")
export LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"

export RAYON_NUM_THREADS=$threads
ours() {
  "$atelico" bench "$model" --device cpu -r 1 --format json >>"$work/ours"
}
theirs() {
  GLIBC_TUNABLES=glibc.malloc.hugetlb=1 "$bench" -m "$model" -t "$threads" -lm none -r 1 -o jsonl \
    >>"$work/theirs" 2>"$work/theirs.log" || { tail -5 "$work/theirs.log" >&2; fail "llama-bench failed"; }
}
for round in $(seq "$rounds"); do
  echo "round $round of $rounds" >&2
  # Whoever comes second finds the machine warmer: take turns at it.
  if [ $((round % 2)) -eq 1 ]; then ours && theirs; else theirs && ours; fi
done

python3 - "$work/ours" "$work/theirs" "$model" "$threads" <<'PYTHON'
import json, os, statistics, sys

def objects(path):
    text, decoder = open(path).read(), json.JSONDecoder()
    while text := text.lstrip():
        value, end = decoder.raw_decode(text)
        text = text[end:]
        yield value

ours, theirs = {}, {}
for run in objects(sys.argv[1]):
    for result in run["results"]:
        ours.setdefault(result["test"], []).append(result["tokens_per_second"])
for run in objects(sys.argv[2]):
    test = f"pp{run['n_prompt']}" if run["n_prompt"] else f"tg{run['n_gen']}"
    theirs.setdefault(test, []).append(run["avg_ts"])

def figure(samples):
    return f"{statistics.median(samples):.1f} ({min(samples):.1f} to {max(samples):.1f})"

rounds = len(next(iter(ours.values())))
print(f"{os.path.basename(sys.argv[3])}, {sys.argv[4]} threads: tokens/s, medians of {rounds} alternating runs (least to most)")
for test in sorted(ours.keys() & theirs.keys()):
    ratio = statistics.median(ours[test]) / statistics.median(theirs[test])
    print(f"  {test}: atelico {figure(ours[test])}  llama.cpp {figure(theirs[test])}  ratio {ratio:.2f}")
PYTHON
