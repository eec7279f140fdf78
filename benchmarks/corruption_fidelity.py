"""Are these the corruptions of the benchmarks? Strength and pixels against `imagecorruptions` on real images.

python benchmarks/corruption_fidelity.py IMAGES [--count 40] [--frost FOLDER]

IMAGES is a folder of photographs; of each, the middle 224 x 224 are taken. FOLDER holds the original frost textures, so
that both sides draw from the same ones.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from _measure import setup_line
from PIL import Image

from dtn_det.corruptions import ALL, SEVERITIES, Corruptor

# No randomness: compared pixel by pixel.
DETERMINISTIC = {
    "defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression", "gaussian_blur", "saturate",
}  # fmt: skip
# One angle, field, texture or sky for a whole image: its strength varies much from draw to draw.
PATTERNS = {"motion_blur", "snow", "frost", "fog", "elastic_transform", "spatter"}


def middle(file: Path) -> np.ndarray | None:
    """The middle 224 x 224 of an image, or None if it is smaller."""
    with Image.open(file) as image:
        array = np.array(image.convert("RGB"))
    if min(array.shape[:2]) < 224:
        return None
    top, left = (array.shape[0] - 224) // 2, (array.shape[1] - 224) // 2
    return np.ascontiguousarray(array[top : top + 224, left : left + 224])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--draws", type=int, default=20, help="for corruptions with one pattern for a whole image")
    parser.add_argument("--frost", type=Path)
    args = parser.parse_args()
    files = sorted(file for file in args.images.rglob("*") if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
    images = [image for image in map(middle, files[: 2 * args.count]) if image is not None][: args.count]
    ours = Corruptor("coco-c", frost_folder=args.frost)
    theirs = Corruptor("coco-c", backend="imagecorruptions")
    # The fork draws frost from six textures, as engine 1 did; imagecorruptions itself draws from five.
    six_textures = Corruptor("coco-c", frost_folder=args.frost, engine=1)
    print(f"{setup_line()}\n{ours.identity} against {theirs.identity}; {len(images)} images\n")
    header = " | ".join(f"s{severity}" for severity in SEVERITIES)
    print(f"| corruption | {header} | largest difference of strength | values that differ |")
    print("|---|" + "---|" * (len(SEVERITIES) + 2))
    for name in ALL:
        cells, relative, differing, largest = [], [], [], 0
        for severity in SEVERITIES:
            squares = np.zeros(2)
            draws = args.draws if name in PATTERNS else 1
            for key, image in ((f"{k} {draw}", image) for k, image in enumerate(images) for draw in range(draws)):
                first = six_textures if name == "frost" and "imaug" in theirs.identity else ours
                mine, other = (corruptor(image, name, severity, key) for corruptor in (first, theirs))
                squares += [np.square(out.astype(float) - image).mean() for out in (mine, other)]
                difference = np.abs(mine.astype(int) - other)
                differing.append((difference > 0).mean())
                largest = max(largest, int(difference.max()))
            rmse = np.sqrt(squares / (draws * len(images)))
            relative.append(abs(rmse[0] / rmse[1] - 1))
            cells.append(f"{rmse[0]:.1f} / {rmse[1]:.1f}")
        exact = f"{np.mean(differing):.2%}, by at most {largest}" if name in DETERMINISTIC else "random"
        print(f"| {name} | {' | '.join(cells)} | {max(relative):.2%} | {exact} |", flush=True)


if __name__ == "__main__":
    main()
