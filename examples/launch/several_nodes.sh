#!/usr/bin/env bash
# The same command on each of several machines, which meet at one of them.
#
#   NODES=2 MEET=node-1.example:29500 several_nodes.sh RECIPE --out /shared/runs/big
#
# --out and data.folder lie on a file system that all machines see. When a machine fails, the others
# wait for it to come back (up to --max-restarts times) and all go on from the last checkpoint.
set -euo pipefail

: "${NODES:?number of machines}" "${MEET:?HOST:PORT of one of them}"
GPUS="${GPUS:-$(nvidia-smi --list-gpus | wc -l)}"

exec torchrun \
  --nnodes "$NODES" --nproc-per-node "$GPUS" --max-restarts 3 \
  --rdzv-backend c10d --rdzv-endpoint "$MEET" --rdzv-id "${RUN_ID:-groundup}" \
  -m groundup train "$@"
