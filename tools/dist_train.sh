#!/usr/bin/env bash
# Train on the GPUs of one machine or several:
#   tools/dist_train.sh CONFIG GPUS [options of train.py]
# Several machines: NNODES, NODE_RANK, MASTER_ADDR and PORT in the environment of each.
set -euo pipefail

if (( $# < 2 )); then
    echo "usage: $0 CONFIG GPUS [options of train.py]" >&2
    exit 2
fi
exec bash "$(dirname "${BASH_SOURCE[0]}")/_torchrun.sh" "$2" train.py "$1" --launcher pytorch "${@:3}"
