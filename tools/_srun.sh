#!/usr/bin/env bash
# What slurm_train.sh and slurm_test.sh share: run one of the Python tools as a job of Slurm.
#   tools/_srun.sh PARTITION JOB_NAME TOOL [arguments of the tool]
# In the environment: GPUS (all of them, 8), GPUS_PER_NODE (8), CPUS_PER_TASK (5), SRUN_ARGS (more options for srun).
set -euo pipefail

partition=$1
job_name=$2
tool=$3
shift 3
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
read -r -a srun_args <<< "${SRUN_ARGS:-}"

set -x
PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}" \
    srun --partition="$partition" \
    --job-name="$job_name" \
    --gres="gpu:${GPUS_PER_NODE:-8}" \
    --ntasks="${GPUS:-8}" \
    --ntasks-per-node="${GPUS_PER_NODE:-8}" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 \
    ${srun_args[@]+"${srun_args[@]}"} \
    python -u "$here/$tool" "$@"
