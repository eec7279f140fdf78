"""How accurate are models on a set of natural shifts, given their clean accuracy? The baseline of effective robustness.

python benchmarks/effective_robustness.py RESULTS

RESULTS is the folder `results` of timm's repository, with the top-1 accuracies of its models. Of these, the models are
taken that were trained on ImageNet-1k alone, as the tags in their names say. A straight line is fitted to the logits of
their accuracies by least squares, as in Taori et al. (NeurIPS 2020). The output is the table `FITS` of
`dtn_det/metrics/shifts.py`.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np
import pandas as pd

SETS = {
    "ImageNet-R": ("imagenet-r", "imagenet-r-clean"),
    "ImageNet-A": ("imagenet-a", "imagenet-a-clean"),
    "ImageNet-V2 matched-frequency": ("imagenetv2-matched-frequency", "imagenet"),
    "ImageNet-Sketch": ("sketch", "imagenet"),
}
"""The files of accuracies on each set, and on its clean images."""

MORE_DATA = re.compile(
    "in12k|in21k|in22k|jft|laion|clip|openai|merged2b|m38m|ig1b|^ig|yfcc|ssl|swsl|wsl|seer|dino|webli|siglip|dfn|"
    "datacomp|lvd|cc12m|_ft|ft_"
)
"""Matches tags of models that were trained on more images than ImageNet-1k's, or fine-tuned."""


def read(path: Path) -> pd.Series:
    """Top-1 in percent by model and size of the image."""
    table = pd.read_csv(path).drop_duplicates(["model", "img_size"])
    return table.set_index(["model", "img_size"])["top1"]


def logit(percent: pd.Series) -> pd.Series:
    """The logit of accuracies in percent."""
    return np.log(percent / (100 - percent))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    args = parser.parse_args()
    for title, (shifted, clean) in SETS.items():
        files = [args.results / f"results-{name}.csv" for name in (clean, shifted)]
        found = pd.concat(map(read, files), axis=1, keys=["clean", "shifted"]).dropna()
        tags = [model.partition(".")[2] for model, _ in found.index]
        found = found[[tag.endswith("in1k") and not MORE_DATA.search(tag) for tag in tags]]
        found = found[found["shifted"].between(0, 100, inclusive="neither")]
        slope, intercept = np.polyfit(logit(found["clean"]), logit(found["shifted"]), 1)
        expected = 100 / (1 + np.exp(-(slope * logit(found["clean"]) + intercept)))
        print(
            f"{title}: slope {slope:.4f}, intercept {intercept:.4f}, "
            f"{found.index.get_level_values(0).nunique()} models, clean top-1 {found['clean'].min():.1f} to "
            f"{found['clean'].max():.1f} %, standard deviation of the rest {(found['shifted'] - expected).std():.2f} "
            "points"
        )


if __name__ == "__main__":
    main()
