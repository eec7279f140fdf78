"""`dtn-det corrupt`: corrupted copies of image folders, and a picture of all corruptions."""

from __future__ import annotations

import argparse
import functools
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dtn_det.cli import sweep_options
from dtn_det.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from dtn_det.corrupted_folders.plan import TreePlan
    from dtn_det.corruptions import Corruptor
    from dtn_det.corruptions.image import ByteImage


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `corrupt`."""
    parser = subparsers.add_parser(
        "corrupt",
        help="write corrupted copies of an image folder (ImageNet-C, C-bar, COCO-C), or a picture of all corruptions",
        description="Writes DST/<corruption>/<severity>/... for a folder of images, or corrupts a single image. "
        "Images come out the same in any run. Stopped and started again, it continues. SRC and DST come before "
        "the options.",
    )
    parser.add_argument("src", type=Path, metavar="SRC", help="folder of images, or one image")
    parser.add_argument("dst", type=Path, metavar="DST", nargs="?", help="folder of the tree, or file for one image")
    parser.add_argument(
        "--grid", type=Path, metavar="FILE", help="draw all corruptions of the image SRC in one picture, and no more"
    )
    what = parser.add_argument_group("what to write")
    sweep_options.add_cells(what, "benchmark; all for --grid", ": SRC and DST come before the options")
    sweep_options.add_limit(what)
    what.add_argument("--layout", choices=("auto", "imagenet", "coco", "plain"), default="auto", help="of SRC [auto]")
    what.add_argument(
        "--annotations", nargs="+", type=Path, default=(), metavar="JSON", help="COCO annotation files to follow"
    )
    what.add_argument(
        "--images", type=Path, metavar="DIR", help="folder in SRC that the COCO file names are relative to"
    )
    what.add_argument(
        "--format",
        choices=("source", "jpeg", "png"),
        help="of the files: png loses nothing [jpeg for ImageNet's layout, else as the source]",
    )
    how = parser.add_argument_group("how to corrupt")
    profiles = "imagenet-c, coco-c, cifar-c, tiny-imagenet-c, imagenet-c-bar or cifar-c-bar"
    sweep_options.add_corruptor(how, "imagenet-c for ImageNet's layout, else coco-c", profiles)
    sweep_options.add_jpeg(how)
    how.add_argument(
        "--resize",
        action=argparse.BooleanOptionalAction,
        help="resize to 256 and crop 224 first [for imagenet-c and imagenet-c-bar in ImageNet's layout]",
    )
    how.add_argument("--channel-order", default="rgb", help="rgb, or bgr as in published COCO-C numbers [%(default)s]")
    how.add_argument("--backend", default="dtn_det", help="dtn_det, or imagecorruptions for comparison [%(default)s]")
    run = parser.add_argument_group("the run")
    run.add_argument("--workers", type=int, metavar="N", help="processes, 0 for this one alone [one a core]")
    run.add_argument("--yes", action="store_true", help="do not ask before writing")


def run(args: argparse.Namespace) -> int:
    """Run `dtn-det corrupt`."""
    from dtn_det.system.processes import interrupts_remembered

    with interrupts_remembered():
        importlib.import_module("dtn_det.corrupted_folders.writing")
    if args.grid is not None:
        return _grid(args)
    if args.dst is None:
        raise InputError("expected DST, the folder to write to, got none: name it, or --grid FILE for one image")
    return _one_image(args) if args.src.is_file() else _tree(args)


def _corruptor(args: argparse.Namespace, profile: str) -> Corruptor:
    from dtn_det.corruptions import Corruptor

    profile = args.profile or profile
    frost = None if args.frost is None else str(args.frost)
    return Corruptor(profile, args.seed, args.jpeg, args.channel_order, frost, args.backend, args.engine)


def _cells(args: argparse.Namespace, profile: str, default: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the chosen corruptions and severities; ``profile`` and ``default`` apply where the user chose none."""
    from dtn_det.corruptions.catalog import select_corruptions, select_severities
    from dtn_det.corruptions.profiles import get_profile

    catalog = get_profile(args.profile or profile).catalog
    return select_corruptions(args.corruptions or [default], catalog), select_severities(args.severities)


def _tree(args: argparse.Namespace) -> int:
    from rich.console import Console

    from dtn_det.corrupted_folders.plan import plan_tree
    from dtn_det.corrupted_folders.writing import write_tree
    from dtn_det.datasets.remarks import tell

    tree = plan_tree(
        args.src,
        args.dst,
        *_cells(args, "imagenet-c", "benchmark"),
        layout=args.layout,
        annotations=args.annotations,
        images=args.images,
        corruptor=functools.partial(_corruptor, args),
        crop=args.resize,
        file_format=args.format,
        limit=args.limit,
    )
    console = Console()
    _say(console, tree.summary)
    tell(tree.source.remarks, functools.partial(_say, console))
    if not tree.cropped:
        _tell_size(console, tree.corruptor.profile, tree.source.images[0].path)
    if tree.source.layout == "plain" and args.profile is None:
        _tell_plain(console, args, tree)
    workers = args.workers if args.workers is not None else sweep_options.num_cores()
    bad = write_tree(tree, workers, console, _asker(console, ask=not args.yes))
    if bad:
        _say(console, f"{len(bad)} images could not be corrupted:")
        for outcome in bad:
            _say(console, f"  {outcome.image.name}: {outcome.error}")
        return 1
    return 0


def _tell_plain(console: Console, args: argparse.Namespace, tree: TreePlan) -> None:
    """If a folder is not recognised as ImageNet, print how to get images as in ImageNet-C from it."""
    if not tree.source.classes:
        if args.layout == "auto":
            _say(
                console,
                f"{args.src} has neither annotations/*.json nor class folders such as n01440764, so it is taken for "
                "plain images. For ImageNet's in one folder, pass --profile imagenet-c --resize --format jpeg",
            )
    elif not tree.cropped and not tree.corruptor.rules.is_small:
        _say(
            console,
            f"{args.src} has class folders ({', '.join(tree.source.classes[:3])}, ...) that are not ImageNet's, so its "
            "images keep their sizes. For the images that `dtn-det mce` makes of clean ones, pass --profile "
            "imagenet-c --resize --format jpeg; it reads what is written either way",
        )


def _tell_size(console: Console, profile: str, path: Path) -> None:
    """Print a remark if the image differs in size from the images of the profile's benchmark."""
    from PIL import Image

    from dtn_det.corruptions.profiles import size_remark

    try:
        with Image.open(path) as image:
            remark = size_remark(profile, *image.size)
    # An unreadable image is reported when it is corrupted.
    except Exception:
        return
    if remark is not None:
        _say(console, remark)


def _asker(console: Console, *, ask: bool) -> Callable[[str], bool]:
    def confirm(estimate: str) -> bool:
        _say(console, estimate)
        if not ask or not (sys.stdin.isatty() and console.is_terminal):
            return True
        if input("Continue? [Y/n] ").strip().lower() in ("", "y", "yes"):
            return True
        _say(console, "Nothing was written.")
        return False

    return confirm


def _say(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, highlight=False, markup=False)


def _grid(args: argparse.Namespace) -> int:
    import numpy as np

    from dtn_det.corruptions.grid import draw_grid

    if args.dst is not None:
        raise InputError(f"expected --grid without DST, got {args.dst}: leave one of them out")
    corruptor, image = _corruptor(args, "coco-c"), _read(args)
    names, severities = _cells(args, "coco-c", "all")
    picture = draw_grid(image, names, severities, corruptor=corruptor, key=args.src.name)
    _write(args.src, args.grid, np.array(picture))
    return 0


def _one_image(args: argparse.Namespace) -> int:
    from dtn_det.corrupted_folders.worker import corrupt_to_file
    from dtn_det.system.files import write_bytes

    names, severities = _cells(args, "coco-c", "benchmark")
    if len(names) != 1 or len(severities) != 1:
        raise InputError(
            f"expected one corruption and one severity for one image, got {len(names)} and {len(severities)}: choose "
            "with --corruptions and --severities, or draw them all with --grid FILE"
        )
    _check_target(args.src, args.dst)
    corruptor, image = _corruptor(args, "coco-c"), _read(args)
    data = corrupt_to_file(corruptor, image, names[0], severities[0], args.src.name, args.dst.suffix)
    write_bytes(args.dst, data)
    return 0


def _read(args: argparse.Namespace) -> ByteImage:
    import numpy as np

    from dtn_det.corruptions.image import read_image, resize_and_crop
    from dtn_det.errors import BadImageError

    if args.src.is_dir():
        raise InputError(f"expected SRC to be one image for --grid, got the folder {args.src}: name an image")
    try:
        image = read_image(args.src, upright=not args.resize)
    except BadImageError as error:
        raise InputError(f"expected SRC to be an image, got {args.src}: {error}") from None
    return np.array(resize_and_crop(image) if args.resize else image)


def _check_target(source: Path, target: Path) -> None:
    if target.is_dir() or os.path.realpath(target) == os.path.realpath(source):
        raise InputError(f"expected the name of another file to write to, got {target}: name an image file")


def _write(source: Path, target: Path, image: ByteImage) -> None:
    from dtn_det.corrupted_folders.worker import encode
    from dtn_det.system.files import write_bytes

    _check_target(source, target)
    write_bytes(target, encode(image, target.suffix))
