"""Published numbers: each with a source, and the same as in the files that they were taken from."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace

import pytest
from made_up import classification_report, detection_report

from dtn_det.metrics.baselines import ALEXNET_ERRORS
from dtn_det.reports.tables import report_tables
from dtn_det.reports.tables.published import published_for, published_rows, rows_of_sets

NAMES = {
    "top1": {"error", "mCE", "relative mCE", "mean error", "FLOPs"},
    "bbox": {"P AP", "mPC AP", "rPC AP"},
    "segm": {"P AP", "mPC AP", "rPC AP"},
}


def row(model, kind="top1", source=""):
    found = [one for one in published_rows() if (one.model, one.kind) == (model, kind) and source in one.source]
    assert len(found) == 1, (model, source, found)
    return found[0].values


def test_every_row_has_a_source_and_numbers_that_can_be():
    rows = published_rows()
    assert len({(one.model, one.kind, one.source) for one in rows}) == len(rows)
    for one in rows:
        assert one.model
        assert one.values
        assert set(one.values) <= NAMES[one.kind]
        assert re.search(r"arXiv:\d{4}\.\d{5}|github\.com/\S+/\S+", one.source), one.source
        assert all(0 < value <= 110 for value in one.values.values()), one
        if one.kind != "top1" and "P AP" in one.values:
            relative = 100 * one.values["mPC AP"] / one.values["P AP"]
            # Both were rounded before they were printed.
            assert relative == pytest.approx(one.values["rPC AP"], abs=0.3), one
    assert {one.benchmark for one in rows} == {"ImageNet-C", "COCO-C"}


def test_well_known_numbers():
    assert row("ResNet-50")["mCE"] == 76.7
    assert row("AugMix", source="hendrycks")["mCE"] == 65.3
    assert row("DeepAugment + AugMix")["mCE"] == 53.6
    assert row("Faster R-CNN R-50-FPN", "bbox") == {"P AP": 36.3, "mPC AP": 18.2, "rPC AP": 50.2}
    assert row("ViT-S* LN")["error"] - row("ViT-S* DTN")["error"] == pytest.approx(0.7)
    alexnet = row("AlexNet", source="Hendrycks and Dietterich")
    assert alexnet["mCE"] == alexnet["relative mCE"] == 100
    mean = sum(sum(errors) for errors in list(ALEXNET_ERRORS.values())[:15]) / 75
    assert alexnet["mean error"] == pytest.approx(100 * mean, abs=0.05)


def test_rows_fit_the_report():
    assert {one.kind for one in published_for(classification_report(images=6, replicates=0))} == {"top1"}
    detectors = detection_report(images=6, replicates=3, kinds=("bbox", "segm"))
    assert {one.kind for one in published_for(detectors)} == {"bbox", "segm"}
    boxes = replace(detectors, sections=detectors.sections[:1])
    assert {one.kind for one in published_for(boxes)} == {"bbox"}
    # ImageNet-C says nothing about other classes.
    assert published_for(classification_report(images=6, replicates=0, settings={"classes": "folder"})) == ()
    # Imported results do not tell their classes.
    assert published_for(classification_report(images=6, replicates=0, settings={}))


def test_each_row_appears_once_with_its_source():
    report = classification_report(images=6, replicates=0)
    rows = published_for(report)
    shown = [one for table in report_tables(report, rows) for one in table.rows if one.source]
    assert [(one.label, one.source) for one in shown] == [(one.model, one.source) for one in rows]


SETS = {
    *(f"imagenet{name}/top-1" for name in ("", "-real", "-r", "-a", "-sketch", "-v2-matched-frequency")),
    *("imagenet-r/drop", "imagenet-a/drop", "imagenet-c/mce", "imagenet-3dcc/mce_3d"),
    *("cifar-10/top-1", "cifar-100/top-1", "cifar-10-c/mean-error", "cifar-100-c/mean-error"),
}


def of_sets(model, source=""):
    (found,) = [one for one in rows_of_sets() if one.model == model and source in one.source]
    return found.values


def test_every_row_of_sets_has_a_source_and_numbers_that_can_be():
    rows = rows_of_sets()
    assert len({(one.model, one.source) for one in rows}) == len(rows)
    for one in rows:
        assert one.values.keys() <= SETS, one
        assert re.search(r"arXiv:\d{4}\.\d{5}|github\.com/\S+/\S+", one.source), one.source
        assert all(0 <= value <= 110 for value in one.values.values()), one
    assert {key for one in rows for key in one.values} == SETS


def test_well_known_numbers_of_sets():
    resnet = of_sets("resnet50.tv_in1k")
    assert resnet["imagenet-v2-matched-frequency/top-1"] == 63.19
    assert resnet["imagenet-r/drop"] == pytest.approx(92.15 - 36.157)
    assert of_sets("ResNet-50", "easyrobust")["imagenet-c/mce"] == of_sets("ResNet-50", "hendrycks")["imagenet-c/mce"]
    assert of_sets("AlexNet", "Hendrycks")["imagenet/top-1"] == 56.5
    # The mean of the fifteen errors of RobustBench's table, which has them with three digits.
    errors = (52.974, 41.22, 44.70, 18.512, 49.0, 22.276, 24.398, 18.114, 24.956, 11.212, 6.716, 17.39, 16.22, 28.018,
              22.436)  # fmt: skip
    assert of_sets("Standard")["cifar-10-c/mean-error"] == pytest.approx(sum(errors) / 15, abs=0.01)


def test_a_report_of_another_set_has_the_rows_of_that_set():
    report = classification_report(images=6, replicates=0)
    sketch = {one.model: one for one in published_for(report, "ImageNet-Sketch")}
    assert sketch["resnet50.tv_in1k"].values == {"error": 75.936}
    assert sketch["resnet50.tv_in1k"].benchmark == "ImageNet-Sketch"
    assert {tuple(one.values) for one in published_for(report, "ImageNet-3DCC")} == {("mCE",)}
    assert published_for(report, "ImageNet-C") == published_for(report)
    assert published_for(report, "Tiny-ImageNet-C") == ()


# Against the files that they were taken from


@pytest.fixture(scope="module")
def files(shared_dir):
    folder = shared_dir / "data" / "published_results"
    if not folder.is_dir():
        pytest.skip(f"no published results at {folder}")
    return folder


def test_the_table_of_resnet50(files):
    names = {
        "ResNet-50 Baseline": "ResNet-50",
        "Patch Uniform": "Patch Uniform",
        "Stylized ImageNet": "Stylized ImageNet (SIN)",
        "AugMix": "AugMix",
        "BlurAfterConv": "BlurAfterConv",
        "ANT (3x3)": "ANT3x3",
        "Assemble-ResNet50": "Assemble-ResNet50",
        "DeepAugment+AugMix": "DeepAugment + AugMix",
    }
    with (files / "imagenet_c_leaderboard_resnet50.csv").open() as lines:
        table = {line["method"]: line for line in csv.DictReader(lines)}
    for method, name in names.items():
        values = row(name, source="hendrycks/robustness, README")
        assert values == {"error": float(table[method]["clean_error"]), "mCE": float(table[method]["mCE"])}


def test_game_of_noise(files):
    for name, file in (("ResNet-50 ANT", "ANT_results.txt"), ("ResNet-50 Speckle", "Speckle_results.txt")):
        text = (files / "game_of_noise" / file).read_text()
        clean = re.search(r"ImageNet val: Top1 accuracy: ([\d.]+)", text)
        full = re.search(r"Full ImageNet-C: Top1 accuracy ([\d.]+), .* mCE: ([\d.]+)", text)
        values = row(name)
        assert values["error"] == pytest.approx(100 - float(clean[1]), abs=0.06)
        assert values["mean error"] == pytest.approx(100 - float(full[1]), abs=0.06)
        assert values["mCE"] == pytest.approx(float(full[2]), abs=0.06)


def test_robustbench(files):
    for name, file in (("Standard_R50", "Standard_R50"), ("DeiT-S", "Tian2022Deeper_DeiT-S"), ("AlexNet", "AlexNet")):
        told = json.loads((files / "robustbench_imagenet" / f"{file}.json").read_text())
        values = row(name, source="RobustBench")
        assert values["mCE"] == float(told["corruptions_mce"])
        assert values["error"] == pytest.approx(100 - float(told["clean_acc"]))
        assert values["mean error"] == pytest.approx(100 - float(told["corruptions_acc"]))
        (found,) = [one.values for one in rows_of_sets() if one.model == file and "model_info/imagenet" in one.source]
        wanted = {"imagenet-3dcc/mce_3d": "corruptions_mce_3d", "imagenet-c/mce": "corruptions_mce"}
        assert {key: found[key] for key in wanted} == {key: float(told[name]) for key, name in wanted.items()}


def test_detectors(files):
    names = {"Faster R-CNN, combined": "Faster R-CNN Combined", "Faster R-CNN, stylized": "Faster R-CNN Stylized",
             "Mask R-CNN, combined": "Mask R-CNN Combined", "Mask R-CNN, stylized": "Mask R-CNN Stylizes"}  # fmt: skip
    text = (files / "detection_c" / "PUBLISHED_TABLES.md").read_text()
    printed = set()
    for line in text.splitlines():
        fields = [field.strip() for field in line.split("|")]
        if len(fields) > 4 and re.fullmatch(r"[\d.]+", fields[2]):
            printed.add((" ".join(fields[:2]), *map(float, fields[2:5])))
    for one in published_rows():
        if one.kind == "top1" or "P AP" not in one.values:
            continue
        model, backbone = one.model.rsplit(" ", 1)
        wanted = (f"{names.get(model, model)} {backbone}", *one.values.values())
        assert wanted in printed, wanted
