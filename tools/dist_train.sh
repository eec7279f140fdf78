#!/usr/bin/env bash
# Train on the GPUs of one machine or several:
#   tools/dist_train.sh CONFIG GPUS [options of train.py]
# Several machines: NNODES, NODE_RANK, MASTER_ADDR and PORT in the environment of each.
set -euo pipefail

if (( $# < 2 )); then
    echo "usage: $0 CONFIG GPUS [options of train.py]" >&2
    exit 2
fi
config=$1
gpus=$2
shift 2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}" \
    python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$gpus" \
    "$here/train.py" "$config" --launcher pytorch "$@"
