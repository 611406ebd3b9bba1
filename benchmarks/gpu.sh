#!/usr/bin/env bash
# Everything that is to be measured on a GPU, each part under ten minutes. Needs a Python with torch
# (CUDA) and the packages of groundup[train,dev]:
#
#     PYTHON=python3 RESULTS=benchmarks/results/gpu benchmarks/gpu.sh [part …]
#
# Parts: tests (what the CPU cannot show), cost (of residual warmup), demo (the quickstart on the GPU),
# resume (killed and gone on with, to the bit, train.deterministic).
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
RESULTS=${RESULTS:-benchmarks/results/gpu}
export PYTHONPATH=src${PYTHONPATH:+:$PYTHONPATH}
mkdir -p "$RESULTS"
failed=""

part_tests() { "$PYTHON" -m pytest tests/residual tests/model tests/schedules; }

part_cost() {
    "$PYTHON" benchmarks/cost_of_warmup.py --preset 130M --vocab-size 32000 --batch 32 --length 1024 \
        --rounds 10 --steps 5 --out "$RESULTS/cost_of_warmup_130M.json"
}

part_demo() {
    "$PYTHON" -m groundup compare quickstart --train.precision bf16 --train.compile True \
        --out runs/gpu-quickstart | tee "$RESULTS/quickstart.txt"
}

part_resume() {
    local run="$PYTHON -m groundup train quickstart --steps 60 --train.checkpoint-every 7"
    local flags="--train.deterministic True --train.precision bf16 --train.compile True"
    rm -rf runs/gpu-resume-*
    $run $flags --out runs/gpu-resume-whole || return 1
    $run $flags --out runs/gpu-resume-killed & local pid=$!
    until [ "$(wc -l <runs/gpu-resume-killed/metrics.jsonl 2>/dev/null || echo 0)" -ge 25 ]; do
        sleep 0.1
    done
    kill -KILL $pid; wait $pid
    $run $flags --out runs/gpu-resume-killed || return 1
    cmp runs/gpu-resume-{whole,killed}/metrics.jsonl
}

[ $# -gt 0 ] || set -- tests cost demo resume
for part in "$@"; do
    echo "== $part"
    "part_$part" || failed="$failed $part"
done
[ -z "$failed" ] || { echo "failed:$failed"; exit 1; }
