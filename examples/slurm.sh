#!/usr/bin/env bash
#SBATCH --job-name=eqm
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
# Trains under Slurm:
#   sbatch examples/slurm.sh imagenet256-xl-2 --data.path /shared/latents --output /shared/xl
# Two minutes before its time is over the run is told to end and saves itself. Submitted again, or put
# back in the queue after a machine failed, it goes on.
set -euo pipefail

FIRST=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1):29500
NODES=$SLURM_JOB_NUM_NODES
export FIRST NODES
srun --kill-on-bad-exit=1 "${SLURM_SUBMIT_DIR:-.}/examples/several-nodes.sh" "$@"
