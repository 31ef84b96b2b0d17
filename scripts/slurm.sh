#!/bin/bash
# One training on several machines of a cluster: sbatch scripts/slurm.sh dataset=mnist model=unet task_name=runs/mnist
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@120
# TERM two minutes before the end: the training saves, and  resume=runs/mnist  goes on in the next job.
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 10000)) # of its own, as other jobs may share the machine
exec srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=1 torchrun --nnodes="$SLURM_NNODES" \
    --nproc-per-node=auto --max-restarts=1 --rdzv-id="$SLURM_JOB_ID" --rdzv-backend=c10d \
    --rdzv-endpoint="$first:$port" train.py "$@"
