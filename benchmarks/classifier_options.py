"""What do the options of a classification config cost in training? Optimizer steps of each variant, in one run.

python benchmarks/classifier_options.py [CONFIG --variant dtn model.norm_cfg.type=dtn --variant spt model.spt=True ...]

Without a config all norms and options of the small ViT of configs/dtn_cifar.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from _measure import argument_parser, interleaved, setup_line, speeds
from mmengine.config import Config, DictAction
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from mmpretrain.utils import register_all_modules

from dtn_det.layers import TOKEN_NORMS

PLAIN = "as it is"
SMALL_VIT = str(Path(__file__).parents[1] / "configs/dtn_cifar/vit-pico-p4_3e_cifar10.py")
SMALL_VIT_VARIANTS = [
    *([norm, f"model.norm_cfg.type={norm}"] for norm in TOKEN_NORMS if norm not in ("ln", "powernorm")),
    ["powernorm", "model.norm_cfg.type=powernorm", "model.norm_cfg.warmup_steps=500"],
    ["spt", "model.spt=True"],
    ["lsa", "model.lsa=True"],
    ["spt+lsa", "model.spt=True", "model.lsa=True"],
]


def parse_options(pairs: list[str]) -> dict[str, object]:
    """``KEY=VALUE`` strings as ``--cfg-options`` understands them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=DictAction)
    return dict(parser.parse_args(["--cfg-options", *pairs]).cfg_options)


def build(config: str, options: list[str], size: int, batch: int, device: str) -> Callable[[], object]:
    """One step of the config's optimizer on random images, under bfloat16 autocast on a GPU."""
    cfg = Config.fromfile(config)
    if options:
        cfg.merge_from_dict(parse_options(options))
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        model = MODELS.build(cfg.model).to(device).train()
        optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, device=device)
    samples = [DataSample().set_gt_label(index % 10) for index in range(batch)]

    def run() -> None:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            model.train_step({"inputs": list(images), "data_samples": samples}, optim_wrapper)

    return run


def main() -> None:
    parser = argument_parser(__doc__, repeats=15)
    parser.add_argument("config", nargs="?", default=SMALL_VIT)
    parser.add_argument(
        "--variant",
        nargs="+",
        action="append",
        default=[],
        metavar=("NAME", "KEY=VALUE"),
        help="a name and the --cfg-options that make it",
    )
    parser.add_argument("--size", type=int, default=32, help="height and width of the images")
    parser.add_argument("--batch", type=int, default=64)
    args = parser.parse_args()
    register_all_modules()
    MMLogger.get_instance("benchmark", log_level="ERROR")
    print(setup_line(args.device))
    chosen = args.variant or (SMALL_VIT_VARIANTS if args.config == SMALL_VIT else [])
    variants = {PLAIN: [], **{name: options for name, *options in chosen}}
    runs = {name: build(args.config, options, args.size, args.batch, args.device) for name, options in variants.items()}
    timings = interleaved(runs, args.repeats, args.device)
    first, *others = speeds(timings, PLAIN, args.batch)
    print(f"{args.config}, batch {args.batch}: {first}", *others, sep="\n  ")


if __name__ == "__main__":
    main()
