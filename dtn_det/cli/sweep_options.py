"""Command-line options that several commands share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dtn_det.errors import InputError

SEVERITIES = (1, 2, 3, 4, 5)


def output_folder(text: str) -> Path:
    """Return the folder that an argument names. Refuse an empty name, which an unset shell variable gives."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"expected a folder, got {text!r}: name one, or . for the current folder")
    return Path(text)


def output_file(text: str) -> Path:
    """Return the file that an argument names. Refuse a folder, and a file in a folder that does not exist."""
    path = output_folder(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"expected a file, got the folder {text}: name a file in it")
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"expected a folder for {text}, got none: make {path.parent} first")
    return path


def add_weights(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add `--weights`, which chooses between the two sets of weights that a checkpoint may hold."""
    parser.add_argument(
        "--weights",
        choices=("ema", "plain"),
        help="of a checkpoint with both, the exponential moving average or the weights without it [ema, but of mmcv "
        "1.x's EMAHook the names of the model]",
    )


def add_evaluator(group: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add `--evaluator`."""
    group.add_argument(
        "--evaluator",
        choices=("hotcoco", "faster-coco-eval"),
        default="hotcoco",
        help="of detections; faster-coco-eval is a second opinion, slower and without intervals [%(default)s]",
    )


def add_limit(group: argparse._ArgumentGroup) -> None:
    """Add `--limit`."""
    group.add_argument(
        "--limit", type=int, metavar="N", help="no more than N images, chosen at random, always the same"
    )


def add_images(group: argparse._ArgumentGroup) -> None:
    """Add `--limit`, `--limit-seed` and `--on-bad-image`."""
    add_limit(group)
    group.add_argument("--limit-seed", type=int, default=0, metavar="N", help="of that choice [%(default)s]")
    group.add_argument(
        "--on-bad-image",
        choices=("fail", "record"),
        default="fail",
        help="stop at a file that cannot be read, or leave it out of every number, say so and exit with 1 "
        "[%(default)s]",
    )


def add_cells(group: argparse._ArgumentGroup, default: str = "benchmark", hint: str = "") -> None:
    """Add `--corruptions` and `--severities`.

    Args:
        default: Default of `--corruptions`, as shown in the help.
        hint: Text to append to the error about a severity that is not a number.
    """
    group.add_argument(
        "--corruptions",
        nargs="+",
        metavar="NAME",
        help=f"names, groups (noise, blur, weather, digital, extra; those of --profile), benchmark or all; "
        f"none for the clean images alone [{default}]",
    )
    add_severities(group, hint)


def add_severities(group: argparse._ArgumentGroup, hint: str = "") -> None:
    """Add `--severities`; the hint is as of :func:`add_cells`."""
    group.add_argument(
        "--severities", nargs="+", type=_severity(hint), default=SEVERITIES, metavar="N", help="[1 2 3 4 5]"
    )


def _severity(hint: str) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            return int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected numbers from 1 to 5, got {text!r}{hint}") from None

    return parse


SWEPT_PROFILES = "imagenet-c, coco-c, cifar-c or tiny-imagenet-c"
"""The profiles that models are evaluated under, as help texts name them."""


def add_corruptor(group: argparse._ArgumentGroup, default: str, profiles: str = SWEPT_PROFILES) -> None:
    """Add `--profile`, `--seed`, `--frost` and `--engine`.

    Args:
        default: Default of `--profile`, as shown in the help.
        profiles: Values of `--profile`, as shown in the help.
    """
    group.add_argument("--profile", help=f"{profiles} [{default}]")
    add_randomness(group)


def add_randomness(group: argparse._ArgumentGroup) -> None:
    """Add `--seed`, `--frost` and `--engine`."""
    group.add_argument("--seed", type=int, default=0, help="of all randomness [%(default)s]")
    group.add_argument("--frost", type=Path, metavar="DIR", help="folder with the original frost textures")
    group.add_argument(
        "--engine", type=int, metavar="N", help="go on with what this version of the engine began [the latest]"
    )


def add_jpeg(group: argparse._ArgumentGroup) -> None:
    """Add `--jpeg` and `--no-jpeg`."""
    group.add_argument("--jpeg", action=argparse.BooleanOptionalAction, help="the JPEG step [that of the profile]")


def add_order(group: argparse._ArgumentGroup) -> None:
    """Add `--order`, `--reset` and `--order-seed`."""
    group.add_argument(
        "--order",
        choices=("image", "cell"),
        default="image",
        help="all corruptions of an image, then the next image; or all images of a corruption and severity, then the "
        "next severity, for models that adapt while they are tested [%(default)s]",
    )
    group.add_argument(
        "--reset",
        choices=("cell", "corruption", "never"),
        help="with --order cell, call reset() of the models for each corruption and severity, for each "
        "corruption, or never [cell]",
    )
    group.add_argument(
        "--order-seed", type=int, default=0, metavar="N", help="of the order of images with --order cell [%(default)s]"
    )


def add_run(group: argparse._ArgumentGroup, *, batch_size: int, batch: str, unit_size: int) -> None:
    """Add `--workers`, `--batch-size`, `--unit-size`, `--device`, `--amp` and `--launcher` of a sweep.

    Args:
        batch_size: Default of `--batch-size`.
        batch: Help text of `--batch-size`, which says what a batch consists of.
        unit_size: Default of `--unit-size`.
    """
    group.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes that load and corrupt images, for each GPU [one a core in all]",
    )
    group.add_argument("--batch-size", type=int, default=batch_size, metavar="N", help=f"{batch} [%(default)s]")
    group.add_argument(
        "--unit-size", type=int, default=unit_size, metavar="N", help="images written together [%(default)s]"
    )
    group.add_argument("--device", help="cpu, cuda:0, ... [a GPU if there is one]")
    group.add_argument("--amp", action="store_true", help="mixed precision")
    group.add_argument("--launcher", choices=("none", "pytorch", "slurm", "mpi"), default="none", help="[%(default)s]")


def resolved(args: argparse.Namespace, default: str = "benchmark") -> dict[str, Any]:
    """Check the options that `mce` and `mpc` share, and replace each group of corruptions by its members.

    Args:
        default: What ``--corruptions`` is if the user did not give it; ``none`` is for the clean images alone.

    Returns:
        The values of `corruptions`, `severities` and `workers`.

    Raises:
        InputError: A number is too small, a name or severity is unknown, or the profile is for corruptions other than
            ImageNet-C's.
    """
    from dtn_det.corruptions.catalog import select_corruptions
    from dtn_det.corruptions.profiles import check_swept

    if args.profile is not None:
        check_swept(args.profile)
    words = args.corruptions or [default]
    return {
        "corruptions": () if words == ["none"] else select_corruptions(words),
        **resolved_numbers(args),
    }


def resolved_numbers(args: argparse.Namespace) -> dict[str, Any]:
    """Check the severities and the number of workers.

    Returns:
        The values of `severities` and `workers`.

    Raises:
        InputError: A number is too small, or a severity is unknown.
    """
    from dtn_det.corruptions.catalog import select_severities

    return {"severities": select_severities(args.severities), "workers": checked_workers(args)}


def checked_workers(args: argparse.Namespace) -> int:
    """Check the numeric options of :func:`add_run`, and return the number of worker processes.

    Raises:
        InputError: One of the numbers is too small.
    """
    # torchrun sets LOCAL_WORLD_SIZE to the number of its processes on this machine, which share the cores.
    workers: int = args.workers
    if args.workers is None:
        workers = max(1, num_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    for option, value, least in (
        ("workers", workers, 0),
        ("batch-size", args.batch_size, 1),
        ("unit-size", args.unit_size, 1),
    ):
        if value < least:
            raise InputError(f"expected --{option} to be at least {least}, got {value}")
    return workers


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
