"""How fast is the corruption engine on one core, against `imagecorruptions`, and do two processes double it?

python benchmarks/corruptions.py [--profile coco-c] [--sizes 224x224 1333x800] [--seconds 0.5] [--image FILE]
"""

from __future__ import annotations

import argparse
import multiprocessing.synchronize
import os
import statistics
import time
from importlib import metadata

# Before NumPy and OpenCV are loaded: this measures one core.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[variable] = "1"

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from _measure import setup_line  # noqa: E402

from dtn_det.corruptions import ALL, BENCHMARK, EXTRA, SEVERITIES, Corruptor  # noqa: E402

PACKAGES = ("numpy", "scipy", "numba", "opencv-python-headless", "pillow", "imagecorruptions-imaug")


def picture(height: int, width: int) -> np.ndarray:
    """An image with structure at all scales, like a photograph: ``(height, width, 3)`` uint8."""
    rng = np.random.default_rng(0)
    total = np.zeros((height, width, 3), np.float32)
    for octave in range(8):
        cells = (2 + (width >> (8 - octave)), 2 + (height >> (8 - octave)))
        noise = rng.normal(size=(cells[1], cells[0], 3)).astype(np.float32)
        total += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) * 0.7**octave
    return np.clip(128 + 45 * total / total.std(), 0, 255).astype(np.uint8)


def milliseconds(corruptor: Corruptor, image: np.ndarray, name: str, severity: int, seconds: float) -> float:
    """Median time of a call."""
    times: list[float] = []
    while sum(times) < seconds or len(times) < 3:
        start = time.perf_counter()
        corruptor(image, name, severity, len(times))
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def compile_all(image: np.ndarray, profile: str) -> float:
    """Seconds until every corruption has run once: loading compiled loops, or compiling them, and building tables."""
    start = time.perf_counter()
    for name in ALL:
        for severity in SEVERITIES:
            Corruptor(profile)(image, name, severity, 0)
    return time.perf_counter() - start


def compare(image: np.ndarray, profile: str, seconds: float) -> None:
    """Print a table and the mean throughput of both."""
    ours, theirs = Corruptor(profile), Corruptor("coco-c", backend="imagecorruptions")
    means: dict[str, tuple[float, float]] = {}
    print(f"\n{image.shape[1]} x {image.shape[0]}, {profile}, milliseconds per image, severities 1 to 5 averaged\n")
    print("| corruption | dtn-det | slowest severity | imagecorruptions | times faster |\n|---|---|---|---|---|")
    for name in (*BENCHMARK, *EXTRA):
        times = [
            (milliseconds(ours, image, name, severity, seconds), milliseconds(theirs, image, name, severity, seconds))
            for severity in SEVERITIES
        ]
        mine, other = (statistics.fmean(column) for column in zip(*times, strict=True))
        means[name] = mine, other
        print(
            f"| {name} | {mine:.2f} | {max(t[0] for t in times):.2f} | {other:.2f} | {other / mine:.1f} |", flush=True
        )
    mine, other = (statistics.fmean(means[name][k] for name in BENCHMARK) for k in (0, 1))
    print(f"| **mean of the 15** | **{mine:.2f}** | | **{other:.2f}** | **{other / mine:.1f}** |")
    print(f"\nimages per second and core: dtn-det {1e3 / mine:.0f}, imagecorruptions {1e3 / other:.0f}")


def _work(profile: str, size: tuple[int, int], barrier: multiprocessing.synchronize.Barrier, seconds: float) -> float:
    cv2.setNumThreads(1)
    image, corruptor = picture(*size), Corruptor(profile)
    compile_all(image, profile)
    barrier.wait()
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        for name in BENCHMARK:
            for severity in SEVERITIES:
                corruptor(image, name, severity, done)
                done += 1
    return done / (time.perf_counter() - start)


def scaling(profile: str, size: tuple[int, int], seconds: float, repeats: int = 5) -> None:
    """Print the throughput of two processes over that of one."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    context = multiprocessing.get_context("spawn")
    for _ in range(repeats):
        for processes in (1, 2):
            with context.Manager() as manager, context.Pool(processes) as pool:
                barrier = manager.Barrier(processes)
                rates[processes].append(sum(pool.starmap(_work, [(profile, size, barrier, seconds)] * processes)))
    ratios = [two / one for one, two in zip(rates[1], rates[2], strict=True)]
    print(
        f"\ntwo processes against one at {size[1]} x {size[0]}: {statistics.median(ratios):.2f} times the throughput "
        f"({min(ratios):.2f} to {max(ratios):.2f}; {statistics.median(rates[1]):.0f} and "
        f"{statistics.median(rates[2]):.0f} images per second)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="coco-c", help="coco-c has the parameters of imagecorruptions")
    parser.add_argument("--sizes", nargs="+", default=["224x224", "1333x800"], metavar="WxH")
    parser.add_argument("--seconds", type=float, default=0.3, help="for each severity of each corruption")
    parser.add_argument("--image", help="measure on this photograph, resized, instead of a generated picture")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    print(f"{setup_line()}; one thread; " + ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES))
    first = compile_all(picture(64, 64), args.profile)
    print(f"first call of everything (compiled loops from numba's cache where it has them): {first:.1f} s")
    sizes = [tuple(map(int, size.split("x")))[::-1] for size in args.sizes]
    for height, width in sizes:
        image = picture(height, width)
        if args.image:
            image = np.ascontiguousarray(cv2.resize(cv2.imread(args.image), (width, height))[..., ::-1])
        compare(image, args.profile, args.seconds if height * width < 300_000 else 3 * args.seconds)
    scaling(args.profile, sizes[0], seconds=5)


if __name__ == "__main__":
    main()
