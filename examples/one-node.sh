#!/usr/bin/env bash
# Trains on every GPU of this machine, or in as many processes as PROCESSES says:
#   examples/one-node.sh imagenet256-b-2 --data.path latents
#   PROCESSES=2 examples/one-node.sh digits --device cpu
# The same command resumes an interrupted run; the number of processes may change.
set -euo pipefail

processes=${PROCESSES:-$(python -c 'import torch; print(max(torch.cuda.device_count(), 1))')}
exec torchrun --standalone --nproc-per-node "$processes" -m eqm train "$@"
