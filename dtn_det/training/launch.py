"""Change a config as the arguments of `tools/train.py` or `tools/test.py` demand, and build the Runner.

Building a model takes minutes, so all arguments are checked first. Mistakes are raised as `FileNotFoundError` or
`InputError` with a message that says what to do.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtn_det._optional import require
from dtn_det.checkpoints.files import check_checkpoint, is_whole
from dtn_det.datasets.configs.folders import check_class_folders
from dtn_det.datasets.configs.settings import data_paths, innermost_settings, other_names
from dtn_det.datasets.remarks import tell
from dtn_det.errors import CheckpointError, InputError
from dtn_det.training.config import is_classifier

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.runner import Runner

LAUNCHERS = ("none", "pytorch", "slurm", "mpi")
PACK_META_KEYS = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "flip", "flip_direction")


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the common arguments of training and testing, named as in MMDetection."""
    parser.add_argument("config", help="path of the config")
    parser.add_argument("--work-dir", help="folder for logs and checkpoints; work_dirs/NAME_OF_THE_CONFIG by default")
    parser.add_argument("--data-root", help="folder of the dataset, in place of the config's data_root")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=_key_value_action(),
        metavar="KEY=VALUE",
        help="values that replace those of the config, e.g. train_dataloader.batch_size=4 or key='[a,b]'",
    )
    parser.add_argument("--launcher", choices=LAUNCHERS, default="none", help="how the processes are started")
    parser.add_argument(
        "--local_rank", "--local-rank", type=int, default=0, help="set by some launchers; leave it to them"
    )


def _key_value_action() -> type[argparse.Action]:
    """Return MMEngine's action for `KEY=VALUE`, with an error message for texts that it cannot parse."""
    action: type[argparse.Action] = require("mmengine.config", "det").DictAction

    class KeyValueAction(action):  # type: ignore[valid-type,misc]
        def __call__(
            self,
            parser: argparse.ArgumentParser,
            namespace: argparse.Namespace,
            values: Sequence[str],
            option_string: str | None = None,
        ) -> None:
            for value in values:
                key, equals, text = value.partition("=")
                if not key or not equals:
                    parser.exit(2, f"{parser.prog}: error: expected --cfg-options as key=value, got {value!r}\n")
                if text.count("[") != text.count("]") or text.count("(") != text.count(")"):
                    parser.exit(
                        2,
                        f"{parser.prog}: error: expected --cfg-options as key=value, got {value!r}, in which a bracket "
                        'is open: put quotes around a value with spaces or brackets, key="[a,b]"\n',
                    )
            super().__call__(parser, namespace, values, option_string)

    return KeyValueAction


def set_work_dir(cfg: Config, config_path: str, work_dir: str | None) -> None:
    """Set the folder of the run: the argument, otherwise the config's, otherwise `work_dirs/NAME_OF_THE_CONFIG`."""
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get("work_dir") is None:
        cfg.work_dir = str(Path("work_dirs") / Path(config_path).stem)


def set_data_root(cfg: Config, root: str) -> None:
    """Replace the data folder in all dataloaders and evaluators by another folder of the same layout.

    Args:
        cfg: Config whose top-level `data_root` is the folder to replace; changed in place.

    Raises:
        FileNotFoundError: `root` is not a folder.
        InputError: The config has no `data_root`.
    """
    if not Path(root).is_dir():
        raise FileNotFoundError(f"expected --data-root to be a folder, got {root!r}: there is no such folder")
    old = cfg.get("data_root")
    if not old:
        raise InputError(
            "expected a config with a top-level data_root for --data-root to replace, got none: set the paths of "
            "each dataloader and evaluator with --cfg-options"
        )
    # The slash prevents data/coco from matching as a prefix of data/coco_mini.
    old, new = old.rstrip("/") + "/", root.rstrip("/") + "/"
    for key in [key for key in cfg if key.endswith(("_dataloader", "_evaluator"))]:
        cfg[key] = _replace_prefix(cfg[key], old, new)
    cfg.data_root = new


def check_data(cfg: Config, dataloaders: Sequence[str], given_root: str | None = None) -> None:
    """Check that the dataloaders' files and folders exist, and that folders of classes match the classifier.

    Args:
        dataloaders: Keys such as `"train_dataloader"`; keys that the config lacks are ignored.
        given_root: The value of `--data-root`, which :func:`set_data_root` has put into the config.

    Raises:
        FileNotFoundError: A file or folder is missing.
        InputError: The folders of classes do not match the model's classes; see
            :func:`dtn_det.datasets.configs.folders.check_class_folders`.
    """
    paths = [(name, root, path) for name in dataloaders for root, path in data_paths(cfg, name)]
    missing = [(name, root, path) for name, root, path in paths if not os.path.exists(path)]
    if not missing:
        tell(check_class_folders(cfg, dataloaders), lambda text: print(text, file=sys.stderr))
        return
    name, root, path = missing[0]
    folder = None if given_root is None else given_root.rstrip("/") + "/"
    if folder is not None and path.startswith(folder):
        expected, lacking = (
            ", ".join(dict.fromkeys(path.removeprefix(folder) for _, _, path in found if path.startswith(folder)))
            for found in (paths, missing)
        )
        raise FileNotFoundError(
            f"expected --data-root {given_root!r} to hold {expected}, got a folder without {lacking}: name the folder "
            f"of the dataset in which they lie{other_names(cfg, name, folder, path)}"
        )
    if folder is not None:
        place = next(where for where, one in innermost_settings(cfg, name) if (one.get("data_root") or "") == root)
        option = f"{place}.data_root={given_root}"
        raise FileNotFoundError(
            f"expected the data of {name} at {path!r}, got nothing there: this path does not begin with the config's "
            f"top-level data_root, which --data-root replaces; give it with --cfg-options {option}"
        )
    place = root.rstrip("/") or os.path.dirname(path)
    # If a folder of this name exists, `ln -s` would put the link inside it.
    cure = (
        f"its folder {place!r} is there without it"
        if os.path.lexists(place)
        else f"link the dataset to {place!r} (ln -s)"
    )
    raise FileNotFoundError(
        f"expected the data of {name} at {path!r}, got nothing there: {cure}; "
        f"name the dataset's folder with --data-root DIR{other_names(cfg, name, place, path)}"
    )


def enable_amp(cfg: Config) -> None:
    """Set mixed precision with dynamic loss scaling."""
    cfg.optim_wrapper.type = "AmpOptimWrapper"
    cfg.optim_wrapper.setdefault("loss_scale", "dynamic")


def check_amp(cfg: Config) -> None:
    """Check that the device supports the precision of the optimizer wrapper.

    Raises:
        InputError: The config sets mixed precision, and there is no accelerator.
    """
    if cfg.optim_wrapper.get("type") == "AmpOptimWrapper" and not _has_accelerator():
        raise InputError(
            "expected a GPU for mixed precision (AmpOptimWrapper), got none: leave out --amp, use the config without "
            "'amp-' in its name, or add --cfg-options optim_wrapper.type=OptimWrapper"
        )


def enable_auto_scale_lr(cfg: Config) -> None:
    """Make MMEngine scale the learning rate by the batch size of the run, relative to the batch size of the config.

    Raises:
        InputError: The config does not contain its batch size.
    """
    scale = cfg.get("auto_scale_lr")
    if not scale or "base_batch_size" not in scale:
        raise InputError(
            "expected a config with auto_scale_lr.base_batch_size for --auto-scale-lr, got none: add "
            "--cfg-options auto_scale_lr.base_batch_size=16, the batch size the learning rate was chosen for"
        )
    scale.enable = True


def set_resume(cfg: Config, resume: str | None) -> None:
    """Set the checkpoint to continue from: a path, or `"auto"` for the last checkpoint of the work_dir.

    Raises:
        CheckpointNotFoundError: There is no such checkpoint.
        CheckpointError: The file is not a checkpoint, or was cut off.
    """
    if resume is None:
        return
    cfg.resume = True
    if resume == "auto":
        cfg.load_from = None
        return
    if Path(resume).is_file() and not is_whole(resume):
        raise CheckpointError(
            f"expected --resume to name a checkpoint of a training run, got {resume!r}, which is not one or was cut "
            "off: take the one before it, or --resume without a path for the last one in the work-dir"
        )
    cfg.load_from = check_checkpoint(resume)


def set_output(cfg: Config, out: str | None) -> None:
    """Make testing also write the predictions to a pickle file.

    Raises:
        InputError: The name does not end in `.pkl` or `.pickle`.
    """
    if out is None:
        return
    if not out.endswith((".pkl", ".pickle")):
        raise InputError(f"expected --out to end in .pkl or .pickle, got {out!r}")
    dump = "DumpResults" if is_classifier(cfg) else "DumpDetResults"
    cfg.test_evaluator = [*_as_list(cfg.test_evaluator), {"type": dump, "out_file_path": out}]


def enable_visualization(cfg: Config, show: bool, show_dir: str | None, wait_time: float) -> None:
    """Make testing show the images with their predictions, or write them to a folder.

    Raises:
        InputError: The config has no visualization hook.
    """
    hook = (cfg.get("default_hooks") or {}).get("visualization")
    if hook is None:
        raise InputError(
            "expected default_hooks.visualization in the config for --show and --show-dir, got none: add "
            f"--cfg-options default_hooks.visualization.type={'' if is_classifier(cfg) else 'Det'}VisualizationHook"
        )
    if is_classifier(cfg):
        # By default mmpretrain's hook draws only one image in 5000.
        hook.update(enable=True, interval=1)
        folder = "out_dir"
    else:
        hook.update(draw=True)
        folder = "test_out_dir"
    if show:
        hook.update(show=True, wait_time=wait_time)
    if show_dir:
        hook[folder] = show_dir


def enable_tta(cfg: Config) -> None:
    """Change a config so that testing merges the boxes of augmented views.

    The config may set `tta_model` and `tta_pipeline`. By default, the model gets each image and its mirror image, and
    non-maximum suppression merges the boxes.

    Args:
        cfg: Config with a `test_dataloader`; changed in place.

    Raises:
        InputError: The evaluator uses masks, which MMDetection cannot merge, or the test pipeline does not end in
            `PackDetInputs`.
    """
    for evaluator in _as_list(cfg.test_evaluator):
        metrics = _as_list(evaluator.get("metric", []))
        if "segm" in metrics:
            raise InputError(
                f"expected an evaluator of boxes for --tta, which merges no masks, got metric={metrics}: "
                "add --cfg-options test_evaluator.metric=bbox"
            )
    dataset = cfg.test_dataloader.dataset
    while "dataset" in dataset:
        dataset = dataset["dataset"]
    if "tta_pipeline" not in cfg:
        cfg.tta_pipeline = flip_pipeline(dataset.pipeline)
    if "tta_model" not in cfg:
        cfg.tta_model = {
            "type": "DetTTAModel",
            "tta_cfg": {"nms": {"type": "nms", "iou_threshold": 0.5}, "max_per_img": 100},
        }
    dataset.pipeline = cfg.tta_pipeline
    cfg.model = {**cfg.tta_model, "module": cfg.model}


def flip_pipeline(pipeline: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the pipeline with its last step, `PackDetInputs`, applied to the image and to its mirror image."""
    last = pipeline[-1]["type"] if pipeline else None
    if last != "PackDetInputs":
        raise InputError(
            f"expected a test pipeline that ends in PackDetInputs, got {last!r} at its end: "
            "give the config a tta_pipeline of its own"
        )
    flips = [{"type": "RandomFlip", "prob": 1.0}, {"type": "RandomFlip", "prob": 0.0}]
    pack = [{"type": "PackDetInputs", "meta_keys": PACK_META_KEYS}]
    return [*copy.deepcopy(pipeline[:-1]), {"type": "TestTimeAug", "transforms": [flips, pack]}]


def build_runner(cfg: Config, launcher: str, local_rank: int = 0) -> Runner:
    """Build the config's Runner.

    MMEngine can connect processes only if each has a GPU. Without GPUs, this function connects processes with gloo.

    Args:
        launcher: One of :data:`LAUNCHERS`.
        local_rank: Rank of the process on this machine, for launchers that pass it as an argument.
    """
    os.environ.setdefault("LOCAL_RANK", str(local_rank))
    cfg.launcher = launcher
    if launcher == "pytorch" and not _has_accelerator():
        _join_cpu_processes(cfg)
    if "runner_type" in cfg:
        return require("mmengine.registry", "det").RUNNERS.build(cfg)
    return require("mmengine.runner", "det").Runner.from_cfg(cfg)


def _join_cpu_processes(cfg: Config) -> None:
    import torch.distributed

    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    # DistributedDataParallel supports no device_ids on a CPU. MMEngine passes device_ids unless they are set here.
    cfg.model_wrapper_cfg = {
        "type": "MMDistributedDataParallel",
        "broadcast_buffers": False,
        "find_unused_parameters": cfg.get("find_unused_parameters", False),
        **(cfg.get("model_wrapper_cfg") or {}),
        "device_ids": None,
    }


def _has_accelerator() -> bool:
    return bool(require("mmengine.device", "det").get_device() != "cpu")


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _replace_prefix(node: Any, old: str, new: str) -> Any:
    if isinstance(node, dict):
        return type(node)({key: _replace_prefix(value, old, new) for key, value in node.items()})
    if isinstance(node, list | tuple):
        return type(node)(_replace_prefix(value, old, new) for value in node)
    if isinstance(node, str) and f"{node}/".startswith(old):
        return new + node[len(old) :]
    return node
