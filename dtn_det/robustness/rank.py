"""The processes of a distributed run: joining them, and the device of each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch

from dtn_det._optional import require
from dtn_det.errors import InputError
from dtn_det.robustness.sweep import Rank, current_rank

# Processes only wait for each other, at the end for the slowest one; the usual half hour may not do.
_WAIT_SECONDS = 7 * 24 * 3600


@contextmanager
def joined(launcher: str, device: str | None) -> Iterator[tuple[Rank, torch.device]]:
    """Join the processes that a launcher started, by mmengine's rules.

    Args:
        launcher: ``none``, ``pytorch`` (torchrun), ``slurm`` or ``mpi``.
        device: Where models run, such as ``cpu`` or ``cuda``; None for a GPU where there is one.

    Yields:
        This process, and its device: of several GPUs, the one of its local rank.

    Raises:
        ValueError: A device that is not there, or a launcher that needs GPUs or another environment.
    """
    chosen = pick_device(device)
    if launcher != "none":
        _join(launcher, chosen)
    try:
        if chosen == torch.device("cuda"):
            chosen = torch.device("cuda", torch.cuda.current_device())
        yield current_rank(), chosen
    finally:
        if launcher != "none":
            torch.distributed.destroy_process_group()


def pick_device(name: str | None) -> torch.device:
    """The device of a name.

    Raises:
        ValueError: There is none of that name.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise InputError(f"expected a device such as cpu, cuda or cuda:1, got {name!r}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"expected a device of this machine, got {name!r} where torch sees {torch.cuda.device_count()} GPUs: "
            "take --device cpu, or run `dtn-det doctor`"
        )
    if device.type not in ("cpu", "cuda"):
        try:
            torch.zeros(1, device=device).item()
        # Each backend that is not there has its own kind.
        except Exception as error:
            reason = str(error).partition("\n")[0]
            raise InputError(
                f"expected a device of this machine, got {name!r}, with which torch cannot compute ({reason}): take "
                "--device cpu"
            ) from error
    return device


def _join(launcher: str, device: torch.device) -> None:
    if launcher == "pytorch" and "RANK" not in os.environ:
        raise InputError("expected --launcher pytorch under torchrun, got no RANK: torchrun --nproc-per-node N -m ...")
    if device.type == "cuda":
        require("mmengine.dist", "det").init_dist(launcher, backend="gloo", timeout=_WAIT_SECONDS)
    elif launcher == "pytorch":
        # mmengine's start-up needs a GPU for each process.
        torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=_WAIT_SECONDS))
    else:
        raise InputError(f"expected GPUs with --launcher {launcher}, got the device {device}: start it with torchrun")
