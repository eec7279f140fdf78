"""`dtn-det export`: write a trained classifier in timm's format, and as ONNX."""

from __future__ import annotations

import argparse
import contextlib
import sys

from dtn_det.cli.sweep_options import add_weights, output_folder


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `export`."""
    parser = subparsers.add_parser(
        "export",
        help="write a trained classifier as safetensors with timm's config.json, and as ONNX",
        description="Writes model.safetensors and config.json, and model.onnx where asked. Of a model of timm, "
        "converted or not, timm.create_model('local-dir:DIR', pretrained=True) reads the folder. Each file is read "
        "again and has to give the logits of the model within 1e-4.",
    )
    parser.add_argument("config", metavar="CONFIG", help="config of mmpretrain")
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="path or URL of its weights")
    parser.add_argument("--out", type=output_folder, required=True, metavar="DIR", help="folder of the files")
    add_weights(parser)
    parser.add_argument("--onnx", action="store_true", help="write model.onnx, for any number of images")
    parser.add_argument("--image-size", nargs=2, type=int, metavar=("H", "W"), help="of the input [that of the config]")


def run(args: argparse.Namespace) -> int:
    """Run `dtn-det export`."""
    from dtn_det.datasets.remarks import tell
    from dtn_det.export import export_classifier

    # Standard output is for this command's results only, but mmpretrain and the exporter print too.
    with contextlib.redirect_stdout(sys.stderr):
        size = None if args.image_size is None else (args.image_size[0], args.image_size[1])
        exported = export_classifier(
            args.config, args.checkpoint, args.out, onnx=args.onnx, image_size=size, weights=args.weights
        )
    tell(exported.remarks, lambda text: print(text, file=sys.stderr))
    print(f"architecture: {exported.architecture}")
    for path in exported.files:
        difference = exported.differences.get(path.name)
        print(path if difference is None else f"{path} (logits within {difference:.1e} of the model's)")
    return 0
