"""`dtn-det inspect`: figures and tables of what a trained model has learned."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

from dtn_det.cli.sweep_options import add_weights


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `inspect`."""
    parser = subparsers.add_parser(
        "inspect",
        help="draw gates, positional kernels, token magnitudes and attention of a model",
        description="Runs a model on one image and draws DTN's learned gates and positional kernels, the magnitude of "
        "the tokens under LN, IN and DTN, the mean attention distance of each head, and the attention of the class "
        "token or that which tokens receive. Each figure comes as PDF, SVG and PNG at the width of a paper's column, "
        "its numbers as CSV.",
    )
    parser.add_argument(
        "config", metavar="CONFIG", help="config of MMDetection or mmpretrain with Swin, PVT or ViT; or timm:NAME"
    )
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="path or URL of its weights; random for an untrained model of timm"
    )
    parser.add_argument("image", metavar="IMAGE", help="JPEG or PNG file")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of the figures; those of before are replaced"
    )
    parser.add_argument(
        "--blocks",
        nargs="+",
        metavar="NAME",
        help="blocks whose kernels, magnitudes and attention are drawn, such as 'backbone.stages.2.*' [the last of "
        "each stage]",
    )
    parser.add_argument(
        "--norm", choices=("norm1", "norm2"), default="norm1", help="before attention or feed-forward [%(default)s]"
    )
    add_weights(parser)
    parser.add_argument("--device", default="cpu", help="cpu, cuda:0, ... [%(default)s]")


def run(args: argparse.Namespace) -> int:
    """Run `dtn-det inspect`."""
    from rich.console import Console

    from dtn_det.datasets.remarks import tell
    from dtn_det.inspection import load_subject, look
    from dtn_det.inspection.write import check_folder, choose, notes, write_looks

    check_folder(args.out)
    # MMDetection prints while it builds models; standard output is for this command only.
    with contextlib.redirect_stdout(sys.stderr):
        subject = load_subject(args.config, args.checkpoint, args.image, args.device, args.weights)
        tell(subject.remarks, print)
        looks = look(subject)
    choice = choose(looks, args.blocks, args.norm)
    files = write_looks(looks, choice, args.out)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    kinds = [norm.kind for _, norm in looks.norms]
    console.print(f"{len(looks.blocks)} blocks, {kinds.count('DTN')} norms DTN, {kinds.count('LN')} LayerNorm")
    for note in notes(looks, choice):
        console.print(note)
    for path in files:
        console.print(str(path))
    return 0
