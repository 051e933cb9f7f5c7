#!/usr/bin/env bash
# One run on a machine with an NVIDIA GPU (nvcc, cmake, g++; no Node needed but for the build's log): builds, records what single matrix and copy instructions do
# (primitives-<device>.json: npm run test:simt and test:ptxi hold the host machines against it), proves every kernel against the cpu backend in f64, runs
# every seventh case under compute-sanitizer, measures kernels and whole training steps against ceilings and against PyTorch
# where Python has it. Writes bench/results/<device>.json and .md. Ten minutes are enough on 16 cores.
#   native/gpu-check.sh [output folder, bench/results by default] [folder of step files from `npm run export-step`, build/steps by default]
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(mkdir -p "${1:-bench/results}" && cd "${1:-bench/results}" && pwd)
steps=${2:-build/steps}
build=build/gpu
work=$build/results
mkdir -p "$work"

say() { printf '\n== %s (%ss)\n' "$*" "$SECONDS"; }
have() { command -v "$1" > /dev/null 2>&1; }

say "build"
arch=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)
[ "$arch" = 90 ] && arch=90a
generator=(); have ninja && generator=(-G Ninja)
cmake -S . -B "$build" "${generator[@]}" -DATTUNE_CUDA=ON "-DCMAKE_CUDA_ARCHITECTURES=$arch-real" > "$work/configure.log"
cmake --build "$build" --parallel "$(nproc)" --target attune_cuda device_test device replay report primitives > "$work/build.log" 2>&1 || { tail -40 "$work/build.log"; exit 1; }
object=$build/Release/attune_cuda.so

failed=0
run() { # name, command...: output kept, failures counted, never the end of the run
  say "$1"
  if ! "${@:2}" > "$work/$1.log" 2>&1; then failed=$((failed + 1)); echo "FAILED"; fi
  tail -${lines:-4} "$work/$1.log"
}

name=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -1 | tr ' /' '--' | tr '[:upper:]' '[:lower:]')
run primitives "$build/native-benches/primitives" "$object" --record "$out/primitives-$name.json"
run kernels "$build/device_test" "$object"
run kernels-large "$build/device_test" "$object" --large
if have compute-sanitizer; then
  for tool in memcheck racecheck synccheck initcheck; do
    run "sanitizer-$tool" timeout 120 compute-sanitizer --tool "$tool" --error-exitcode 1 "$build/device_test" "$object" --every 7
  done
else
  say "compute-sanitizer is not installed: skipped"
fi

if have python3 && python3 -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2> /dev/null; then
  run torch bash -c "python3 bench/peers/torch_cuda.py > '$work/torch.json'"
else
  say "PyTorch with CUDA is not installed: no comparison"
fi
lines=60 run bench "$build/native-benches/device" --json "$work/bench.json"

: > "$work/steps.jsonl"
for step in "$steps"/*.json; do
  [ -e "$step" ] || { say "no step files in $steps: npm run export-step makes them"; break; }
  run "step-$(basename "$step" .json)" bash -c "'$build/native-benches/replay' '$step' --backend cuda --steps 20 --json | tee -a '$work/steps.jsonl' && '$build/native-benches/replay' '$step' --backend cuda --steps 2 --trace"
done

{
  printf '{"date": "%s", "failed": %d,\n"kernels": ' "$(date -u +%F)" "$failed"
  cat "$work/bench.json"
  printf ', "steps": ['
  paste -sd, "$work/steps.jsonl"
  printf '], "torch": '
  if [ -s "$work/torch.json" ]; then cat "$work/torch.json"; else printf 'null'; fi
  printf '}\n'
} > "$out/$name.json"
against=(); [ -s "$work/torch.json" ] && against=(--peers "$work/torch.json")
"$build/native-benches/report" --bench "$work/bench.json" "${against[@]}" --steps "$work/steps.jsonl" > "$out/$name.md" || failed=$((failed + 1))
cp -r "$work" "$out/$name-logs" 2> /dev/null || true
say "$failed failed; $out/$name.json"
exit "$((failed > 0))"
