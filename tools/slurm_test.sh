#!/usr/bin/env bash
# Test on a Slurm cluster:
#   tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options of test.py]
# In the environment: GPUS (all of them, 8), GPUS_PER_NODE (8), CPUS_PER_TASK (5), SRUN_ARGS (more options for srun).
set -euo pipefail

if (( $# < 4 )); then
    echo "usage: $0 PARTITION JOB_NAME CONFIG CHECKPOINT [options of test.py]" >&2
    exit 2
fi
exec bash "$(dirname "${BASH_SOURCE[0]}")/_srun.sh" "$1" "$2" test.py "$3" "$4" --launcher slurm "${@:5}"
