#!/usr/bin/env bash
# Train on a Slurm cluster:
#   tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options of train.py]
# In the environment: GPUS (all of them, 8), GPUS_PER_NODE (8), CPUS_PER_TASK (5), SRUN_ARGS (more options for srun).
set -euo pipefail

if (( $# < 4 )); then
    echo "usage: $0 PARTITION JOB_NAME CONFIG WORK_DIR [options of train.py]" >&2
    exit 2
fi
partition=$1
job_name=$2
config=$3
work_dir=$4
shift 4
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
    python -u "$here/train.py" "$config" --work-dir "$work_dir" --launcher slurm "$@"
