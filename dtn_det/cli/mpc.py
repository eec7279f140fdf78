"""`dtn-det mpc`: a detector under every corruption."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `mpc`."""
    parser = subparsers.add_parser(
        "mpc",
        help="evaluate a detector under every corruption (mPC, rPC)",
        description="Evaluates an MMDetection detector on the clean images and under 15 corruptions at 5 severities, "
        "each image loaded once, and prints P, mPC and rPC. The detections go to a store; stopped and started again, "
        "it continues. Several processes: torchrun --nproc-per-node N -m dtn_det.cli.main mpc ... --launcher pytorch.",
    )
    parser.add_argument("config", metavar="CONFIG", help="config of MMDetection")
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="path or URL of its weights")
    parser.add_argument("--store", type=Path, required=True, metavar="DIR", help="folder of the results")
    parser.add_argument("--name", help="what reports call the model [that of the config]")
    data = parser.add_argument_group("data")
    data.add_argument("--data-root", metavar="DIR", help="folder of the data set, in place of the config's data_root")
    data.add_argument("--split", choices=("test", "val"), default="test", help="dataloader of the config [%(default)s]")
    data.add_argument("--limit", type=int, metavar="N", help="no more than N images, chosen at random, always the same")
    data.add_argument("--limit-seed", type=int, default=0, metavar="N", help="of that choice [%(default)s]")
    data.add_argument("--on-bad-image", choices=("fail", "record"), default="fail", help="what to do [%(default)s]")
    how = parser.add_argument_group("corruptions")
    how.add_argument(
        "--corruptions",
        nargs="+",
        metavar="NAME",
        help="names, groups (noise, blur, weather, digital, extra), benchmark or all [benchmark]",
    )
    how.add_argument("--severities", nargs="+", type=int, default=(1, 2, 3, 4, 5), metavar="N", help="[1 2 3 4 5]")
    how.add_argument("--profile", default="coco-c", help="imagenet-c, coco-c, cifar-c or tiny-imagenet-c [%(default)s]")
    how.add_argument("--seed", type=int, default=0, help="of all randomness [%(default)s]")
    how.add_argument("--frost", type=Path, metavar="DIR", help="folder with the original frost textures")
    how.add_argument(
        "--channel-order",
        choices=("rgb", "bgr"),
        default="rgb",
        help="what corruptions see; bgr as in published COCO-C numbers [%(default)s]",
    )
    run = parser.add_argument_group("the run")
    run.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes that load and corrupt images, for each GPU [one a core in all]",
    )
    run.add_argument(
        "--batch-size",
        type=int,
        default=4,
        metavar="N",
        help="conditions of an image that the model sees at once [%(default)s]",
    )
    run.add_argument("--unit-size", type=int, default=16, metavar="N", help="images written together [%(default)s]")
    run.add_argument("--device", help="cpu, cuda:0, ... [an accelerator if there is one]")
    run.add_argument("--amp", action="store_true", help="mixed precision")
    run.add_argument("--cfg-options", nargs="+", metavar="KEY=VALUE", help="values that replace those of the config")
    run.add_argument("--launcher", choices=("none", "pytorch", "slurm", "mpi"), default="none", help="[%(default)s]")


def run(args: argparse.Namespace) -> int:
    """Run `dtn-det mpc`."""
    from dtn_det._optional import require

    for module, extra in (("cv2", "corruptions"), ("numba", "corruptions"), ("pyarrow", "eval"), ("rich", "eval")):
        require(module, extra)
    from dtn_det.robustness.detection_run import DetectionOptions, run_detection

    for option in ("batch_size", "unit_size"):
        if getattr(args, option) < 1:
            raise ValueError(f"expected --{option.replace('_', '-')} to be at least 1, got {getattr(args, option)}")
    # torchrun tells how many processes share this machine.
    cores = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    workers = max(1, cores) if args.workers is None else args.workers
    if workers < 0:
        raise ValueError(f"expected --workers to be at least 0, got {workers}")
    values = {key: value for key, value in vars(args).items() if key in DetectionOptions.__dataclass_fields__}
    return run_detection(DetectionOptions(**{**values, "workers": workers}))
