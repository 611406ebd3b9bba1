#!/usr/bin/env bash
# All GPUs of this machine. Usage: one_node.sh RECIPE [--out FOLDER] [--parallel.mode fsdp] …
# Started again, by hand or by torchrun after a crash, it goes on from the last checkpoint.
set -euo pipefail

GPUS="${GPUS:-$(nvidia-smi --list-gpus | wc -l)}"

# Prepared first, by one process that shows how far it is; the ranks then find it.
python -m groundup data prepare "$1"

exec torchrun --standalone --nproc-per-node "$GPUS" --max-restarts 3 -m groundup train "$@"
