"""`dtn-det mce` on ImageNet-C-bar and ImageNet-3DCC, and on a part of a benchmark."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from class_folders import WNIDS, write_folders
from odd_folders import link_classes

from dtn_det.cli.main import main
from dtn_det.corruptions.catalog import (
    CIFAR_C_BAR_CATALOG,
    EXTRA,
    IMAGENET_3DCC_CATALOG,
    IMAGENET_C_BAR_CATALOG,
)
from dtn_det.corruptions.severities import CIFAR_C_BAR, IMAGENET_C_BAR
from dtn_det.datasets.folders.label_maps import imagenet_wnids
from dtn_det.datasets.folders.magnitudes import severities_of
from dtn_det.datasets.folders.recognise import recognise
from dtn_det.metrics import mean_corruption_error, mean_error
from dtn_det.robustness.classification.data import prepare
from dtn_det.robustness.importing.read import import_files
from dtn_det.robustness.options import ClassificationOptions
from dtn_det.robustness.store import Store

MODEL = '''
import torch

class Constant(torch.nn.Module):
    """Always sees the first class."""

    def __init__(self):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor([1.0] + [0.0] * 999))

    def forward(self, images):
        return self.logits.expand(len(images), -1)
'''


@pytest.fixture
def mce(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs `dtn-det mce` in this process and returns what it printed, its error where it failed."""
    (tmp_path / "constant_models.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "constant_models", raising=False)

    def run(data: Path, *arguments: str, store: str = "store") -> str:
        words = ["mce", "python:constant_models:Constant", "--data", str(data), "--store", str(tmp_path / store)]
        code = main([*words, "--workers", "0", "--device", "cpu", *arguments])
        captured = capsys.readouterr()
        return captured.out if code == 0 else captured.err

    return run


def tree(root: Path, folders: dict[str, list[str]], side: int = 224) -> Path:
    """A tree of the corrupted images of four classes, all of them the same files."""
    shared = write_folders(root.parent / "images", per_class=1, side=side)
    for corruption, severities in folders.items():
        for severity in severities:
            (root / corruption).mkdir(parents=True, exist_ok=True)
            (root / corruption / severity).symlink_to(shared, target_is_directory=True)
    return root


def options(data: Path, **values: object) -> ClassificationOptions:
    return ClassificationOptions(models=(), data=data, store=Path("store"), **values)


@pytest.mark.parametrize("naming", ["severities", "magnitudes", "groups"])
def test_imagenet_c_bar_is_recognised_and_scored_by_its_mean_error(mce, tmp_path: Path, naming: str) -> None:
    names = IMAGENET_C_BAR_CATALOG.names
    folders = {
        f"{'noise/' if naming == 'groups' else ''}{name}": (
            [f"{value:.2f}" for (value,) in IMAGENET_C_BAR[name]] if naming == "magnitudes" else list("12345")
        )
        for name in names
    }
    data = tree(tmp_path / "imagenet_c_bar", folders)
    found = recognise(data)
    assert (found.kind, found.dataset) == ("corrupted", "ImageNet-C-bar")
    for (name, severity), folder in found.corruptions.cells.items():
        wanted = IMAGENET_C_BAR[name][severity - 1][0]
        assert folder.name == (f"{wanted:.2f}" if naming == "magnitudes" else str(severity))
    if naming == "magnitudes":
        return
    out = mce(data)
    store = Store.open(tmp_path / "store").manifest
    assert (len(store.cells), store.recognised["dataset"]) == (50, "ImageNet-C-bar")
    assert store.recognised["profile"] == "imagenet-c-bar"
    assert "Mean error partial" not in out
    assert "Mean error" in out
    assert "Caustic refraction" in out
    assert "mCE" not in out.partition("no baseline")[0].partition("CE and mCE against")[0]


def test_a_magnitude_belongs_to_the_benchmark_that_has_all_of_them() -> None:
    for table in (IMAGENET_C_BAR, CIFAR_C_BAR):
        for name, rows in table.items():
            folders = [f"{value:.2f}" for (value,) in rows]
            assert severities_of(name, folders) == {folder: place for place, folder in enumerate(folders, 1)}
    assert severities_of("sparkles", ["1.00", "1.25"]) == {}
    assert severities_of("sparkles", ["1", "5", "6"]) == {"1": 1, "5": 5}


def test_imagenet_3dcc_has_alexnet_as_baseline(mce, tmp_path: Path) -> None:
    data = tmp_path / "ImageNet-3DCC"
    shared = link_classes(tmp_path / "images", imagenet_wnids(), "ILSVRC2012_val_00000001.JPEG", (224, 224))
    for name in IMAGENET_3DCC_CATALOG.names:
        (data / name).mkdir(parents=True)
        for severity in "12345":
            (data / name / severity).symlink_to(shared, target_is_directory=True)
    out = mce(data, "--severities", "1", "--corruptions", "near_focus", "fog_3d")
    assert Store.open(tmp_path / "store").manifest.recognised["dataset"] == "ImageNet-3DCC"
    # Of a thousand classes the model knows one: 99.9 % errors, where AlexNet has 53.84 % and 56.26 %.
    assert f"{100 * 0.999 / 0.5384:.2f}" in out
    assert f"{50 * 0.999 / 0.5384 + 50 * 0.999 / 0.5626:.2f}" in out
    assert "AlexNet's errors on ImageNet-3DCC are of 5,000 images" in " ".join(out.split())


def test_corruptions_of_two_benchmarks_in_one_tree_are_refused(tmp_path: Path) -> None:
    data = tree(tmp_path / "data", {"fog": ["1"], "plasma_noise": ["1"]})
    with pytest.raises(ValueError, match=r"of one benchmark in .*, got fog of ImageNet-C and plasma_noise of "):
        prepare(options(data))
    prepared = prepare(options(data, corruptions=("plasma_noise",), severities=(1,)))
    assert prepared.cells == (("plasma_noise", 1),)


def test_the_extra_corruptions_are_read_beside_the_groups(tmp_path: Path) -> None:
    data = tree(tmp_path / "data", {f"extra/{name}": list("12345") for name in EXTRA})
    assert len(prepare(options(data, corruptions=("extra",))).cells) == 20


def test_a_part_of_imagenet_c_says_what_is_missing_and_runs_as_a_part(mce, tmp_path: Path) -> None:
    data = tree(tmp_path / "data", {"noise/gaussian_noise": list("12345"), "noise/shot_noise": list("1234")})
    with pytest.raises(
        ValueError, match=r"got none for shot_noise 5; impulse_noise, .*: fetch what is missing, take --"
    ) as caught:
        prepare(options(data))
    assert len(str(caught.value)) <= 300
    assert "\n" not in str(caught.value)
    out = mce(data, "--partial")
    assert len(Store.open(tmp_path / "store").manifest.cells) == 9
    assert "partial (9/75)" in out


def test_c_bar_is_made_from_clean_images(mce, tmp_path: Path) -> None:
    data = write_folders(tmp_path / "images", WNIDS, per_class=1, side=256)
    out = mce(data, "--profile", "imagenet-c-bar", "--corruptions", "sparkles", "--severities", "3")
    assert "Sparkles partial (1/5)" in out
    assert Store.open(tmp_path / "store").manifest.corruption.startswith("imagenet-c-bar jpeg85")


ORDER = (
    *("near_focus", "far_focus", "bit_error", "color_quant", "flash", "fog_3d"),
    *("h265_abr", "h265_crf", "iso_noise", "low_light", "xy_motion_blur", "z_motion_blur"),
)
"""The corruptions of the columns of RobustBench's file."""

RESNET50 = (
    "0.667 0.6298 0.5892 0.559 0.523 "
    "0.6708 0.6064 0.5372 0.4888 0.4456 "
    "0.6338 0.5696 0.4886 0.4026 0.2476 "
    "0.73 0.7176 0.6776 0.5074 0.1854 "
    "0.4924 0.4532 0.3976 0.3312 0.2196 "
    "0.6542 0.5176 0.4016 0.3128 0.2526 "
    "0.7064 0.6964 0.6464 0.514 0.5216 "
    "0.7078 0.7064 0.6888 0.655 0.6248 "
    "0.406 0.37 0.2896 0.19 0.0804 "
    "0.555 0.519 0.4644 0.399 0.2828 "
    "0.5112 0.3934 0.2972 0.2292 0.179 "
    "0.476 0.3978 0.328 0.276 0.2492 "
)
"""Accuracies of Standard_R50 on ImageNet-3DCC: github.com/RobustBench/robustbench (MIT),
model_info/imagenet/corruptions/unaggregated_results_3d.csv."""

DEIT_S = (
    "0.7368 0.7118 0.6928 0.6678 0.6446 "
    "0.7398 0.6962 0.648 0.6094 0.5694 "
    "0.699 0.6432 0.5594 0.473 0.3044 "
    "0.769 0.7652 0.747 0.6994 0.6234 "
    "0.6348 0.6118 0.5732 0.5198 0.4152 "
    "0.7386 0.673 0.5714 0.4924 0.4154 "
    "0.7706 0.7558 0.721 0.625 0.6266 "
    "0.7706 0.7716 0.757 0.7222 0.7048 "
    "0.7216 0.722 0.7146 0.7044 0.6794 "
    "0.7106 0.6974 0.6844 0.6558 0.5978 "
    "0.6644 0.574 0.482 0.3984 0.33 "
    "0.6004 0.5358 0.465 0.4026 0.3722 "
)
"""Accuracies of Tian2022Deeper_DeiT-S, from the same file."""


def robustbench(path: Path) -> Path:
    """Their file with two of its models, and with its column of means."""
    header = ",".join(["", *(name for name in ORDER for _ in range(5)), "average"])
    severities = ",".join(["", *"12345" * len(ORDER), ""])
    rows = [",".join([name, *text.split(), "0.5"]) for name, text in (("R50", RESNET50), ("DeiT-S", DEIT_S))]
    path.write_text("\n".join([header, severities, *rows]))
    return path


def test_the_published_mce_of_imagenet_3dcc_is_reproduced(tmp_path: Path) -> None:
    models = {
        model.name: model
        for model in import_files([robustbench(tmp_path / "results.csv")], "robustbench", dataset="imagenet")
    }
    # RobustBench gives 73.16 and 47.12 % for ResNet-50, 52.5 for DeiT-S.
    for name, published in (("R50", 73.16), ("DeiT-S", 52.5)):
        frame = models[name].frames["top1"]
        assert mean_corruption_error(frame).value == pytest.approx(published, abs=0.01)
        assert models[name].source.dataset == "ImageNet-3DCC"
    assert 100 * (1 - mean_error(models["R50"].frames["top1"]).value) == pytest.approx(47.12, abs=0.005)


def test_c_bar_has_no_published_baseline() -> None:
    import pandas as pd

    rows = [(name, severity, 0.5) for name in CIFAR_C_BAR_CATALOG.names for severity in range(1, 6)]
    frame = pd.DataFrame(rows, columns=["corruption", "severity", "error"])
    summary = mean_error(frame)
    assert (summary.value, summary.expected_cells) == (0.5, 50)
    assert set(summary.by_group) == set(CIFAR_C_BAR_CATALOG.groups)
    assert mean_corruption_error(frame, frame).value == 100
    with pytest.raises(ValueError, match=r"AlexNet \(errors are published for ImageNet-C and ImageNet-3DCC alone\)"):
        mean_corruption_error(frame)
