"""Test a detector or a classifier: `python tools/test.py CONFIG CHECKPOINT`, with the options of MMDetection's tool."""

import argparse
import sys
from collections.abc import Sequence

from dtn_det.checkpoints.files import check_checkpoint
from dtn_det.checkpoints.load import fit_weights
from dtn_det.checkpoints.read import read_checkpoint
from dtn_det.cli.sweep_options import add_weights
from dtn_det.datasets.configs.classes import check_evaluation
from dtn_det.datasets.configs.files import check_files, explain_failure
from dtn_det.datasets.configs.folders import check_trained_folders
from dtn_det.datasets.remarks import tell
from dtn_det.errors import InputError
from dtn_det.training import launch
from dtn_det.training.bad_images import explain_bad_image
from dtn_det.training.config import is_classifier, load_config
from dtn_det.training.launch import enable_tta
from dtn_det.training.run import read_by_package


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/test.py", description="Test a detector or a classifier.")
    launch.add_common_arguments(parser)
    parser.add_argument("checkpoint", help="path or URL of the weights")
    add_weights(parser)
    parser.add_argument("--out", metavar="FILE.pkl", help="write the predictions to this pickle file")
    parser.add_argument("--show", action="store_true", help="show the images with their predictions in a window")
    parser.add_argument("--show-dir", metavar="DIR", help="write them to WORK_DIR/TIMESTAMP/DIR, a classifier's to DIR")
    parser.add_argument("--wait-time", type=float, default=2, help="seconds that --show shows an image")
    parser.add_argument("--tta", action="store_true", help="merge the boxes of each image and its mirror image")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    try:
        cfg = load_config(args.config, args.cfg_options)
        launch.set_work_dir(cfg, args.config, args.work_dir)
        if args.data_root:
            launch.set_data_root(cfg, args.data_root)
        cfg.load_from = check_checkpoint(args.checkpoint)
        launch.check_data(cfg, ["test_dataloader"], args.data_root)
        remarks = check_files(cfg, ["test_dataloader"], cfg.work_dir)
        launch.set_output(cfg, args.out)
        if args.show or args.show_dir:
            launch.enable_visualization(cfg, args.show, args.show_dir, args.wait_time)
        if args.tta:
            enable_tta(cfg)
    except (FileNotFoundError, ValueError, ImportError) as error:
        print(f"tools/test.py: error: {error}", file=sys.stderr)
        return 2
    try:
        content = read_checkpoint(cfg.load_from)
        told = check_evaluation(cfg, "test", cfg.load_from, content)
        told += check_trained_folders(cfg, "test_dataloader", cfg.load_from, content)
        runner = launch.build_runner(cfg, args.launcher, args.local_rank)
        tell((*remarks, *told), runner.logger.warning)
        advice = f"test it with its own config instead of {args.config}, and the --cfg-options of its training"
        read_by_package(runner, "test", advice, runner.logger.info, args.weights, content)
        # Before the data is read, for this may fail. The Runner loads them once its hooks are ready.
        fit_weights(runner.model, content, cfg.load_from, weights=args.weights, advice=advice, options="keep")
        runner.test()
    except Exception as error:
        fault = error if isinstance(error, InputError) else explain_bad_image(error, is_classifier(cfg))
        fault = fault or explain_failure(cfg, ["test_dataloader"])
        if fault is None:  # an error of the program keeps its traceback
            raise
        print(f"tools/test.py: error: {fault}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
