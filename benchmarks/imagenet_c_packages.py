"""Which package makes the corruptions of ImageNet-C? RMSE to the clean image of each, against the original generator.

python benchmarks/imagenet_c_packages.py IMAGES --frost FOLDER [--count 20] [--packages NAME ...]

IMAGES is a folder of photographs, of which the middle 224 x 224 are taken after the short side was scaled to 256 (not
for images that are smaller than 256). FOLDER holds the original frost textures. Each package is installed with pinned
versions into a virtual environment of its own in a temporary folder, and runs there. The original generator is the
code of imagenet-c 0.0.3, the authors' own package, given what it lacks: the frost textures, and an argument that
scikit-image renamed. It needs the library MagickWand (Debian: libmagickwand-6.q16-6).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SEVERITIES = (1, 2, 3, 4, 5)
NAMES = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow",
    "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
    "speckle_noise", "gaussian_blur", "spatter", "saturate",
)  # fmt: skip
ORIGINAL = "original"
# One pattern for a whole image, whose strength varies from draw to draw; frost's textures most of all.
DRAWS = {"frost": 12, **dict.fromkeys(("motion_blur", "snow", "fog", "elastic_transform", "spatter"), 4)}
# Differences that are no more than these are none: standard errors at one severity and in the mean of the five, or a
# share of the original's strength.
ERRORS, ERRORS_OF_MEAN, SHARE = 4, 3, 0.02

OLD = ("numpy==1.26.4", "scipy==1.12.0", "scikit-image==0.22.0", "pillow==10.4.0", "setuptools==80.10.2")
NEW = ("numpy==2.2.6", "scipy==1.15.3", "scikit-image==0.25.2", "pillow==11.3.0", "opencv-python-headless==4.12.0.88")
REQUIREMENTS = {
    ORIGINAL: ("imagenet-c==0.0.3", "wand==0.6.13", "opencv-python==4.10.0.84", *OLD),
    "imagenet-c": ("imagenet-c==0.0.3", "wand==0.6.13", "opencv-python==4.10.0.84", *OLD),
    "imagecorruptions": ("imagecorruptions==1.1.2", "opencv-python==4.10.0.84", *OLD),
    "imagecorruptions-imaug": ("imagecorruptions-imaug==1.1.5", "numba==0.61.2", *NEW, "setuptools==80.10.2"),
    "imgcorr": ("imgcorr==1.1.3", "numba==0.61.2", *NEW, "setuptools==80.10.2"),
    "corrupt-tta": ("corrupt-tta==0.1.7", *NEW),
    "torch-uncertainty": ("torch-uncertainty[cpu,image]==0.13.0", "torch==2.13.0", *NEW),
}
"""What is installed for each package, without dependencies for the last's sake; see :func:`install`."""

Corrupt = Callable[[np.ndarray, str, int], np.ndarray]


@dataclass(frozen=True)
class Measured:
    """What a package did.

    Attributes:
        rmse: ``(severities, images)`` of each corruption, the draws of an image averaged.
        notes: Corruption to what is wrong with it, whatever the strength: it fails, or severities are one picture.
    """

    rmse: dict[str, np.ndarray]
    notes: dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--frost", type=Path, required=True)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=1, help="packages at a time")
    parser.add_argument("--packages", nargs="+", choices=[name for name in REQUIREMENTS if name != ORIGINAL])
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is not None:
        print(json.dumps(work(args.worker, args.images, args.frost)))
        return
    from dtn_det.corruptions import Corruptor

    images = photographs(args.images, args.count)
    ours = Corruptor("imagenet-c", jpeg=False, frost_folder=str(args.frost))
    print(f"{len(images)} images; dtn-det: {ours.identity}\n", flush=True)
    draw = iter(range(10**9))
    found = {"dtn-det": measured(measure(lambda image, *which: ours(image, *which, next(draw)), images))}
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "images.npy", np.stack(images))
        packages = [ORIGINAL, *(args.packages or [name for name in REQUIREMENTS if name != ORIGINAL])]
        with ThreadPoolExecutor(args.jobs) as pool:
            results = pool.map(lambda package: in_environment(package, Path(folder), args), packages)
            found.update(zip(packages, results, strict=True))
    for package in packages:
        print(f"<!-- {package}: {', '.join(REQUIREMENTS[package])} -->")
    print("\n".join(table(found)))


def photographs(folder: Path, count: int) -> list[np.ndarray]:
    """``(224, 224, 3)`` RGB of the first images of a folder."""
    from PIL import Image

    from dtn_det.corruptions.image import resize_and_crop

    images = []
    for file in sorted(folder.iterdir())[:count]:
        with Image.open(file) as picture:
            image = picture.convert("RGB")
            if min(image.size) < 256:
                left, top = (image.width - 224) // 2, (image.height - 224) // 2
                image = image.crop((left, top, left + 224, top + 224))
            else:
                image = resize_and_crop(image)
            images.append(np.array(image))
    return images


def in_environment(package: str, folder: Path, args: argparse.Namespace) -> Measured:
    """Install a package into an environment of its own and measure it there."""
    python = folder / package / "bin" / "python"
    try:
        subprocess.run([sys.executable, "-m", "venv", str(folder / package)], check=True)
        install(python, package)
        command = [python, __file__, folder / "images.npy", "--frost", args.frost.resolve(), "--worker", package]
        done = subprocess.run([*map(str, command)], check=True, capture_output=True, text=True, cwd=folder)
    except subprocess.CalledProcessError as error:
        reason = (error.stderr or "it cannot be installed").strip().splitlines()[-1]
        print(f"{package}: {reason}", file=sys.stderr)
        return Measured({}, dict.fromkeys(NAMES, "not installed or not imported"))
    return measured(json.loads(done.stdout.splitlines()[-1]))


def install(python: Path, package: str) -> None:
    """Install the pinned requirements. Old packages ask for libraries that have no wheels, so they get no more."""
    requirements = REQUIREMENTS[package]
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if package == "torch-uncertainty":
        subprocess.run([*pip, *requirements], check=True, capture_output=True, text=True)
        return
    subprocess.run([*pip, "--no-deps", requirements[0]], check=True, capture_output=True, text=True)
    subprocess.run([*pip, *requirements[1:]], check=True, capture_output=True, text=True)


def work(package: str, images: Path, frost: Path) -> dict[str, dict[str, object]]:
    """Measure the package that is installed here."""
    return measure(loaded(package, frost), list(np.load(images)))


def loaded(package: str, frost: Path) -> Corrupt:
    """The function of a package that corrupts an image by name and severity."""
    if package == "torch-uncertainty":
        return torch_uncertainty_function()
    if package == "corrupt-tta":
        from corrupt_tta import corrupt as by_name

        # Its values are floats from 0 to 255.
        return lambda image, name, severity: np.uint8(by_name(image, severity, name))
    if package in ("imagecorruptions", "imagecorruptions-imaug"):
        from imagecorruptions import corrupt as by_keyword
    elif package == "imgcorr":
        from imgcorr import corrupt as by_keyword
    else:
        from imagenet_c import corrupt as by_keyword

        if package == ORIGINAL:
            complete_original(frost)
    return lambda image, name, severity: np.asarray(by_keyword(image, corruption_name=name, severity=severity))


def complete_original(frost: Path) -> None:
    """Give the authors' package the textures that it lacks and the argument of today's scikit-image."""
    import cv2
    import skimage.filters
    from imagenet_c import corruptions

    gaussian, read = skimage.filters.gaussian, cv2.imread

    def renamed(*args: object, multichannel: bool = False, **options: object) -> np.ndarray:
        return gaussian(*args, channel_axis=-1 if multichannel else None, **options)

    corruptions.gaussian = renamed
    corruptions.cv2.imread = lambda path: read(str(frost / Path(path).name))


def torch_uncertainty_function() -> Corrupt:
    """By the names of ImageNet-C: its classes take a tensor of values from 0 to 1, and the severity when built."""
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        # Built for CUDA, it cannot load its operators beside PyTorch's build for the CPU, and its import wants two.
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor boxes, Tensor scores, float threshold) -> Tensor")
    from torch_uncertainty.transforms import corruption

    own = {"elastic_transform": "Elastic", "jpeg_compression": "JPEGCompression", "saturate": "Saturation"}

    def corrupt(image: np.ndarray, name: str, severity: int) -> np.ndarray:
        kind = getattr(corruption, own.get(name, name.title().replace("_", "")))
        # Its generators are of the instance and begin anywhere; a seed of their own keeps draws apart and repeatable.
        seeded = "seed" in kind.__init__.__code__.co_varnames
        step = kind(severity, seed=int(np.random.randint(2**31))) if seeded else kind(severity)
        torch.manual_seed(int(np.random.randint(2**31)))
        found = step(torch.from_numpy(image).permute(2, 0, 1).float() / 255)
        return (found.permute(1, 2, 0) * 255).round().clamp(0, 255).to(torch.uint8).numpy()

    return corrupt


def measure(corrupt: Corrupt, images: list[np.ndarray]) -> dict[str, dict[str, object]]:
    """RMSE and what is odd, as JSON takes it."""
    rmse: dict[str, object] = {}
    notes: dict[str, object] = {}
    for name in NAMES:
        values, draws = np.zeros((len(SEVERITIES), len(images))), DRAWS.get(name, 1)
        pictures = []
        try:
            for row, severity in enumerate(SEVERITIES):
                # The same randomness for every severity tells whether they are one picture.
                np.random.seed(0)
                pictures.append(corrupt(images[0], name, severity))
                np.random.seed(severity)
                for column, image in enumerate(images):
                    for _ in range(draws):
                        change = corrupt(image, name, severity).astype(np.float64) - image
                        values[row, column] += np.sqrt(np.square(change).mean()) / draws
        except Exception as error:  # each package fails in its own way
            notes[name] = f"fails ({type(error).__name__})"
            continue
        rmse[name] = values.tolist()
        same = sorted({s + 1 for s in range(5) for t in range(5) if s != t and np.array_equal(*pairs(pictures, s, t))})
        clean = [severity for severity, row in zip(SEVERITIES, values, strict=True) if not row.any()]
        if same:
            notes[name] = f"severities {', '.join(map(str, same))} are one picture"
        elif clean:
            notes[name] = f"severity {', '.join(map(str, clean))} is the clean image"
    return {"rmse": rmse, "notes": notes}


def pairs(pictures: list[np.ndarray], first: int, second: int) -> tuple[np.ndarray, np.ndarray]:
    return pictures[first], pictures[second]


def measured(found: dict[str, dict[str, object]]) -> Measured:
    """What :func:`measure` returned, with arrays."""
    rmse = {name: np.array(values) for name, values in found["rmse"].items()}
    return Measured(rmse, {name: str(note) for name, note in found["notes"].items()})


def table(found: dict[str, Measured]) -> list[str]:
    """Rows of corruptions and columns of packages, in Markdown."""
    truth = found.pop(ORIGINAL)
    lines = ["", f"| corruption | original generator | {' | '.join(found)} |", "|---" * (2 + len(found)) + "|"]
    equal = dict.fromkeys(found, 0)
    for name in NAMES:
        cells = [numbers(truth.rmse[name])] if name in truth.rmse else [truth.notes[name]]
        for package, one in found.items():
            verdict = compared(name, one, truth)
            equal[package] += verdict == "equal"
            cells.append(verdict)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    totals = " | ".join(f"**{count}**" for count in equal.values())
    return [*lines, f"| equal of {len(NAMES)} | | {totals} |"]


def compared(name: str, one: Measured, truth: Measured) -> str:
    """`equal`, or the strengths and what is odd."""
    note = one.notes.get(name, "")
    if name not in one.rmse or name not in truth.rmse:
        return note or "unknown"
    difference, strength = one.rmse[name] - truth.rmse[name], truth.rmse[name].mean(axis=1)
    if (
        not note
        and alike(difference, strength, ERRORS)
        and alike(difference.mean(axis=0, keepdims=True), strength.mean(keepdims=True), ERRORS_OF_MEAN)
    ):
        return "equal"
    return "; ".join(part for part in (numbers(one.rmse[name]), note) if part)


def alike(difference: np.ndarray, strength: np.ndarray, errors: float) -> bool:
    """Whether differences ``(rows, images)`` are within what chance brings about, or too small to matter."""
    error = difference.std(axis=1, ddof=1) / np.sqrt(difference.shape[1])
    return bool((np.abs(difference.mean(axis=1)) <= np.maximum(errors * error, SHARE * strength)).all())


def numbers(values: np.ndarray) -> str:
    return " ".join(f"{value:.1f}" for value in values.mean(axis=1))


if __name__ == "__main__":
    main()
