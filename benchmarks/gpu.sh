#!/usr/bin/env bash
# Everything that is to be measured on a GPU, each part under ten minutes. Needs a Python with torch
# (CUDA); what else a part needs and does not find, it says, and is left out.
#
#     PYTHON=python3 RESULTS=benchmarks/results/gpu benchmarks/gpu.sh [part …]
#
# Parts: tests     what the CPU cannot show (needs pytest, hypothesis)
#        overhead  cost of residual warmup at 130M, ours and the stock Llama (transformers), bf16
#        ways      other ways to scale a branch, at 130M and 1.3B
#        measuring  what [measure] costs, at 130M, eager and compiled
#        memory    planned memory (groundup plan) against measured, 71M to 350M
#        optimizers  an update of each of our optimizers, of torch's and of peers, at 130M
#        guard     an update made only if all is finite, against a plain one, at 130M
#        throughput  tokens a second, ours and peers', at 130M and 1.3B (tokenizers, tyro, tomli_w;
#                  peers that are not packages: PEERS=FOLDER with nanogpt, litgpt, torchtitan, prores)
#        scaling   step time, memory and compile time against depth, width, length and vocabulary
#        resting   what a step costs while layers wait and are skipped, at 130M
#        startup   from the command to the first update (the same, rich)
#        demo      the quickstart on the GPU (tyro, tomli_w, rich, tokenizers, matplotlib)
#        parallel  FSDP2 over NCCL on all GPUs here, with offload and recomputation, against one process
#        evaluate  evaluated while training and after, in bf16, float32 and on the CPU; exported and
#                  made to generate (the same; and transformers, safetensors)
#        resume    killed and gone on with, to the bit, train.deterministic (the same)
#        study:NAME  a study at its gpu scale, meant for half an hour: after ten minutes it is stopped and
#                  told as far as it is, and the same part goes on. Not among the parts that run unless
#                  named: study:placement study:schedules study:depth study:deep study:dynamics study:relatives
#                  study:need-for-warmup study:rate-and-residual study:resnet (DATA=FOLDER: CIFAR-10)
# Numbers go to $RESULTS as JSON, all that was printed to $RESULTS/log.txt.
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
RESULTS=${RESULTS:-benchmarks/results/gpu}
export PYTHONPATH=src${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
SKIPPED=77
mkdir -p "$RESULTS"

# The modules among the arguments that are not there.
missing() {
    "$PYTHON" -c 'import importlib.util as u, sys
print(*(name for name in sys.argv[1:] if not u.find_spec(name)))' "$@"
}

needs() {
    local absent
    absent=$(missing "$@")
    [ -z "$absent" ] || { echo "left out: not installed here: $absent"; return $SKIPPED; }
}

# No part may take more than ten minutes.
limited() { timeout --signal=INT --kill-after=10 580 "$@"; }

part_tests() {
    needs pytest hypothesis || return
    local residual=tests/residual
    [ -z "$(missing transformers accelerate peft)" ] || {
        echo "without the tests that need transformers"
        residual=$(ls tests/residual/test_*.py tests/residual/where/test_cuda.py | grep -v architectures)
    }
    # shellcheck disable=SC2086
    limited "$PYTHON" -m pytest -p no:cacheprovider $residual tests/optim tests/measure tests/model \
        tests/schedules tests/train/test_parallel.py tests/train/test_documents.py
}

part_overhead() {
    local models="ours hf"
    [ -z "$(missing transformers)" ] || { echo "without the stock Llama: no transformers"; models=ours; }
    # shellcheck disable=SC2086
    limited "$PYTHON" benchmarks/overhead.py --device cuda --model $models --size 130M:32x1024 \
        --layers 12 --precision 0.2 --seconds 75 --out "$RESULTS/overhead_130M.json"
}

part_ways() {
    limited "$PYTHON" benchmarks/overhead.py --ways --device cuda --size 130M:32x1024 1.3B:8x2048 \
        --precision 0.2 --seconds 60 --out "$RESULTS/ways.json"
}

part_measuring() {
    limited "$PYTHON" benchmarks/measuring.py --device cuda --size 130M:32x1024 --rounds 20 \
        --out "$RESULTS/measuring.json" &&
    limited "$PYTHON" benchmarks/measuring.py --device cuda --size 130M:32x1024 --rounds 20 --compile \
        --out "$RESULTS/measuring_compiled.json"
}

part_optimizers() {
    limited "$PYTHON" benchmarks/optimizers.py --device cuda --size 130M \
        --out "$RESULTS/optimizers.json"
}

part_guard() {
    limited "$PYTHON" benchmarks/guard.py --device cuda --size tiny:8x128 130M:32x1024 --compile \
        --precision 0.2 --seconds 45 --out "$RESULTS/guard.json"
}

part_memory() {
    limited "$PYTHON" benchmarks/memory.py --device cuda --out "$RESULTS/memory.json"
}

part_throughput() {
    needs tokenizers tyro tomli_w || return
    local name peers=() code="benchmarks/throughput.py --device cuda --dtype bf16"
    for name in nanogpt litgpt torchtitan prores; do
        [ -d "${PEERS:-none}/$name" ] && peers+=("$name=$PEERS/$name")
    done
    [ ${#peers[@]} -eq 0 ] || peers=(--peer "${peers[@]}")
    # shellcheck disable=SC2086
    timeout --signal=INT 270 "$PYTHON" $code --size 130M:32x1024 "${peers[@]}" --seconds 40 \
        --arms ours+compiled ours+compiled+again ours+compiled+warmup hf+compiled litgpt+compiled \
        nanogpt+compiled --profile ours+compiled --out "$RESULTS/throughput_130M.json" &&
    timeout --signal=INT 310 "$PYTHON" $code --size 1.3B:8x2048 "${peers[@]}" --seconds 60 \
        --updates 4 --arms ours+compiled ours+compiled+warmup hf+compiled torchtitan+compiled \
        --out "$RESULTS/throughput_1.3B.json"
}

part_scaling() {
    limited "$PYTHON" benchmarks/scaling.py --device cuda --out "$RESULTS/scaling.json"
}

part_resting() {
    limited "$PYTHON" benchmarks/resting.py --device cuda --size 130M:32x1024 --compile \
        --vocab-size 32000 --precision 0.3 --seconds 60 --out "$RESULTS/resting_130M.json"
}

part_startup() {
    needs tokenizers tyro tomli_w rich || return
    limited "$PYTHON" benchmarks/startup.py --device cuda --times 1 --out "$RESULTS/startup.json"
}

part_demo() {
    needs tyro tomli_w rich tokenizers matplotlib || return
    rm -rf runs/gpu-quickstart
    limited "$PYTHON" -m groundup compare quickstart --train.precision bf16 --train.compile True \
        --out runs/gpu-quickstart
}

part_resume() {
    needs tyro tomli_w rich tokenizers matplotlib || return
    local run="$PYTHON -m groundup train quickstart --steps 60 --train.checkpoint-every 7"
    local flags="--train.deterministic True --train.precision bf16 --train.compile True"
    rm -rf runs/gpu-resume-*
    limited $run $flags --out runs/gpu-resume-whole || return 1
    $run $flags --out runs/gpu-resume-killed & local pid=$!
    until [ "$(wc -l 2>/dev/null <runs/gpu-resume-killed/metrics.jsonl || echo 0)" -ge 25 ]; do
        kill -0 $pid 2>/dev/null || { echo "ended before it could be killed"; return 1; }
        sleep 0.1
    done
    kill -KILL $pid; wait $pid
    limited $run $flags --out runs/gpu-resume-killed || return 1
    cmp runs/gpu-resume-{whole,killed}/metrics.jsonl && echo "the same to the bit"
}

part_evaluate() {
    needs tyro tomli_w rich tokenizers matplotlib || return
    local run=runs/gpu-evaluate groundup="limited $PYTHON -m groundup" precision
    rm -rf $run $run-exported
    $groundup train quickstart --steps 100 --train.precision bf16 --train.compile True --out $run \
        --evaluate.every 50 --evaluate.texts docs/derivations.md || return 1
    for precision in bf16 float32; do
        $groundup eval $run --text docs/derivations.md --precision $precision \
            --out "$RESULTS/evaluated_$precision.json" || return 1
    done
    $groundup eval $run --text docs/derivations.md --device cpu \
        --out "$RESULTS/evaluated_cpu.json" || return 1
    needs transformers safetensors || return 0
    $groundup export $run $run-exported &&
    $groundup generate $run --prompt "def " --tokens 60 --greedy &&
    $groundup generate $run-exported --prompt "def " --tokens 60 --greedy
}

part_study() {
    needs tyro tomli_w rich tokenizers matplotlib || return
    local data=()
    [ "$1" != resnet ] || data=(--data.source "cifar10:${DATA:?say where CIFAR-10 lies}")
    limited "$PYTHON" -m groundup reproduce "$1" --scale gpu "${data[@]}" --page "$RESULTS/studies.md"
}

part_parallel() {
    needs tyro tomli_w rich tokenizers matplotlib || return
    local gpus
    gpus=$("$PYTHON" -c 'import torch; print(torch.cuda.device_count())')
    local flags="train quickstart --steps 40 --batch 16 --train.precision bf16 --train.compile True"
    local ranks="$PYTHON -m torch.distributed.run --standalone --nproc-per-node $gpus"
    rm -rf runs/gpu-parallel-*
    # shellcheck disable=SC2086
    limited "$PYTHON" -m groundup $flags --out runs/gpu-parallel-one &&
    limited $ranks -m groundup $flags --out runs/gpu-parallel-auto &&
    limited $ranks -m groundup $flags --parallel.mode fsdp --out runs/gpu-parallel-fsdp &&
    limited $ranks -m groundup $flags --parallel.mode fsdp --parallel.offload True \
        --train.recompute ops --train.micro-batch $((8 / gpus)) --out runs/gpu-parallel-offload &&
    limited $ranks -m groundup $flags --parallel.mode fsdp --parallel.gather bf16 \
        --out runs/gpu-parallel-bf16 &&
    "$PYTHON" - runs/gpu-parallel-{one,auto,fsdp,offload,bf16} <<'PYTHON'
import json, sys
one, *others = ([json.loads(line) for line in open(f"{run}/metrics.jsonl")] for run in sys.argv[1:])
for run, found in zip(sys.argv[2:], others, strict=True):
    pairs = list(zip(one, found, strict=True))
    print(run, "largest difference of loss", max(abs(a["loss"] - b["loss"]) for a, b in pairs))
PYTHON
}

everything() {
    local part code began failed="" skipped=""
    "$PYTHON" -c 'import sys, torch
print("Python", sys.version.split()[0], "torch", torch.__version__, "CUDA", torch.version.cuda)
if not torch.cuda.is_available(): sys.exit("torch sees no CUDA device here: nothing to measure")
print(torch.cuda.get_device_name())' || return 2
    for part in "$@"; do
        echo "===== begin $part ($(date -u +%H:%M:%S))"
        began=$SECONDS
        "part_${part%%:*}" "${part#*:}"
        code=$?
        case $code in
            0) echo "===== end $part: done, $((SECONDS - began)) s" ;;
            "$SKIPPED") echo "===== end $part: left out"; skipped="$skipped $part" ;;
            *) echo "===== end $part: FAILED with $code, $((SECONDS - began)) s"; failed="$failed $part" ;;
        esac
    done
    echo "failed:${failed:- none}; left out:${skipped:- none}"
    [ -z "$failed" ]
}

[ $# -gt 0 ] || set -- tests throughput overhead ways scaling resting startup measuring optimizers guard memory demo \
    evaluate parallel resume
for part in "$@"; do
    [ "$(type -t "part_${part%%:*}")" = function ] || { echo "no part $part: see the top of $0"; exit 2; }
done
everything "$@" 2>&1 | tee -a "$RESULTS/log.txt"
