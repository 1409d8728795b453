#!/usr/bin/env bash
# Trains on several machines. Run it on each of them, with the same FIRST and NODES:
#   FIRST=node0:29500 NODES=4 examples/several-nodes.sh imagenet256-xl-2 --data.path /shared/latents --output /shared/xl
# All see the same folders; the first writes. Machines may leave and join between two runs.
set -euo pipefail

: "${FIRST:?set FIRST to host:port of one of the machines}" "${NODES:?set NODES to how many machines there are}"
exec torchrun --nnodes "$NODES" --nproc-per-node "${PROCESSES:-gpu}" --max-restarts 3 \
  --rdzv-backend c10d --rdzv-id eqm --rdzv-endpoint "$FIRST" \
  -m eqm train "$@"
