"""Train a detector or a classifier: `python tools/train.py CONFIG`, with the options of MMDetection's tool."""

import argparse
import sys
from collections.abc import Sequence

from dtn_det.checkpoints.files import check_checkpoint
from dtn_det.cli.sweep_options import add_weights
from dtn_det.datasets.configs.classes import prepare_training
from dtn_det.datasets.configs.files import check_files, explain_failure
from dtn_det.datasets.remarks import tell
from dtn_det.errors import InputError
from dtn_det.training import launch
from dtn_det.training.bad_images import explain_bad_image
from dtn_det.training.config import is_classifier, load_config, schedule_warning
from dtn_det.training.run import INTERRUPTED, conversions_noted, train


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/train.py", description="Train a detector or a classifier.")
    launch.add_common_arguments(parser)
    parser.add_argument("--amp", action="store_true", help="train in mixed precision")
    parser.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="scale the learning rate to the batch size: number of processes x images of each",
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="continue from this checkpoint; without a value, from the last one in the work-dir",
    )
    add_weights(parser)
    args = parser.parse_args(argv)
    if args.weights is not None and args.resume is not None:
        parser.error(
            "expected --weights for the checkpoint that a training starts from (load_from), got it with --resume, "
            "which continues with all weights: leave one of them out"
        )
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    try:
        return run(args)
    except KeyboardInterrupt:
        print("interrupted before training began", file=sys.stderr)
        return INTERRUPTED


def run(args: argparse.Namespace) -> int:
    try:
        cfg = load_config(args.config, args.cfg_options)
        launch.set_work_dir(cfg, args.config, args.work_dir)
        if args.data_root:
            launch.set_data_root(cfg, args.data_root)
        if args.amp:
            launch.enable_amp(cfg)
        if args.auto_scale_lr:
            launch.enable_auto_scale_lr(cfg)
        launch.set_resume(cfg, args.resume)
        if args.weights is not None and not cfg.get("load_from"):
            raise InputError(
                "expected a checkpoint for --weights to choose from, got a config without load_from: leave --weights "
                "out, or add --cfg-options load_from=FILE"
            )
        launch.check_amp(cfg)
        loaders = ["train_dataloader"] + ["val_dataloader"] * (cfg.get("val_cfg") is not None)
        launch.check_data(cfg, loaders, args.data_root)
        remarks = (*check_files(cfg, loaders, cfg.work_dir), *prepare_training(cfg))
    except (FileNotFoundError, ValueError, ImportError) as error:
        print(f"tools/train.py: error: {error}", file=sys.stderr)
        return 2
    try:
        if cfg.get("load_from"):
            check_checkpoint(cfg.load_from)
        with conversions_noted() as conversions:
            runner = launch.build_runner(cfg, args.launcher, args.local_rank)
        for line in conversions:
            runner.logger.info(line)
        tell(remarks, runner.logger.warning)
        warning = schedule_warning(cfg)
        if warning is not None:
            runner.logger.warning(warning)
        return train(runner, args.config, args.weights)
    except Exception as error:
        fault = error if isinstance(error, InputError) else explain_bad_image(error, is_classifier(cfg))
        fault = fault or explain_failure(cfg, loaders)
        if fault is None:  # an error of the program keeps its traceback
            raise
        print(f"tools/train.py: error: {fault}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
