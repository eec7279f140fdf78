"""How fast are the corruptions of ImageNet-C-bar and CIFAR-10-C-bar, against the generator of their authors?

git clone https://github.com/facebookresearch/augmentation-corruption
python benchmarks/c_bar.py augmentation-corruption [--side 224] [--image FILE] [--severities 1 3 5] [--repeats 1]

Both corrupt the same image without a JPEG step on one thread of one process, in turn, and the processor's time is
counted, which other programs do not prolong much. The generator needs SciPy and scikit-image.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

# Before NumPy is loaded: this measures one core.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[variable] = "1"

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from _measure import setup_line  # noqa: E402
from PIL import Image  # noqa: E402

from dtn_det.corruptions import PROFILES, SEVERITIES, Corruptor  # noqa: E402

PACKAGES = ("numpy", "scipy", "numba", "opencv-python-headless", "scikit-image")
FOLDER = "imagenet_c_bar"


def picture(side: int) -> np.ndarray:
    """An image with structure at several scales: ``(side, side, 3)`` uint8."""
    rng = np.random.default_rng(0)
    total = np.zeros((side, side, 3), np.float32)
    for octave in range(7):
        cells = 2 + (side >> (7 - octave))
        noise = rng.normal(size=(cells, cells, 3)).astype(np.float32)
        total += cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC) * 0.7**octave
    return np.clip(128 + 45 * total / total.std(), 0, 255).astype(np.uint8)


def milliseconds(call: Callable[[int], object], repeats: int) -> float:
    """Median processor time of calls with the numbers from 0 on, all threads together."""
    times = []
    for number in range(repeats):
        start = time.process_time()
        call(number)
        times.append(time.process_time() - start)
    return 1e3 * statistics.median(times)


def compare(
    authors: Callable[..., Callable[..., object]], profile: str, image: np.ndarray, args: argparse.Namespace
) -> None:
    """Print a table of the corruptions of a profile, and the mean of all of them."""
    corruptor = Corruptor(profile, jpeg=False)
    side = len(image)
    print(f"\n{profile}, {side} x {side}, milliseconds of one thread an image, mean of the severities\n")
    print("| corruption | dtn-det | slowest severity | authors' generator | times faster |\n|---|---|---|---|---|")
    means = []
    for name in PROFILES[profile].catalog.names:
        mine, theirs = [], []
        for severity in SEVERITIES:

            def ours(number: int, name: str = name, severity: int = severity) -> object:
                return corruptor(image, name, severity, number)

            ours(0)  # compiles the loops, or loads them
            mine.append(milliseconds(ours, 15))
            if severity in args.severities:
                (magnitude,) = PROFILES[profile].parameters(name, severity)
                transform = authors(name=name, severity=float(magnitude), dataset_type="imagenet")
                transform.im_size = side  # type: ignore[attr-defined]
                theirs.append(milliseconds(lambda _, transform=transform: transform(image), args.repeats))
        means.append((statistics.fmean(mine), statistics.fmean(theirs)))
        ratio = means[-1][1] / means[-1][0]
        print(f"| {name} | {means[-1][0]:.2f} | {max(mine):.2f} | {means[-1][1]:.0f} | {ratio:.0f} |", flush=True)
    mine, other = (statistics.fmean(column) for column in zip(*means, strict=True))
    print(f"| **mean of the {len(means)}** | **{mine:.2f}** | | **{other:.0f}** | **{other / mine:.0f}** |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("authors", type=Path, help="clone of facebookresearch/augmentation-corruption")
    parser.add_argument("--side", type=int, default=224, help="of the images, in pixels")
    parser.add_argument("--image", help="measure on this photograph, resized, instead of a generated picture")
    parser.add_argument("--severities", type=int, nargs="+", default=[1, 3, 5], help="of the authors' generator")
    parser.add_argument("--repeats", type=int, default=1, help="calls of the authors' generator a severity")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    if not hasattr(np, "int"):
        np.int = int  # type: ignore[attr-defined]  # removed in NumPy 1.24, and the generator still names it
    sys.path.insert(0, str(args.authors / FOLDER))
    from transform_finder import build_transform

    commit = subprocess.run(
        ["git", "-C", str(args.authors), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    )
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    print(f"{setup_line()}; one thread; {packages}; augmentation-corruption at {commit.stdout.strip()}")
    image = picture(args.side)
    if args.image:
        with Image.open(args.image) as file:
            image = np.array(file.convert("RGB").resize((args.side, args.side)))
    np.random.seed(0)
    for profile in ("imagenet-c-bar", "cifar-c-bar"):
        compare(build_transform, profile, image, args)


if __name__ == "__main__":
    main()
