"""Whether mean and deviation are of pixels from 0 to 1 or from 0 to 255."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dtn_det.errors import InputError
from dtn_det.robustness.pixel_values import check_unit_range, small_for_bytes

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HUNDREDS = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
CAFFE = ((103.53, 116.28, 123.675), (1.0, 1.0, 1.0))

Values = tuple[float, ...]


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        IMAGENET,
        ((0.5,) * 3, (0.5,) * 3),
        ((0.0,) * 3, (1.0,) * 3),
        ((0.4857,) * 3, (0.2348,) * 3),  # DPN
        ((-0.125,) * 3, (1.25,) * 3),  # EfficientNet of mmpretrain
        ((0.13,), (0.31,)),  # grey
    ],
)
def test_values_of_real_models_of_pixels_up_to_1(mean: Values, std: Values) -> None:
    check_unit_range(mean, std, "for this model", "pass")


@pytest.mark.parametrize(
    ("mean", "std", "advice"),
    [
        (*HUNDREDS, "pass mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), which are these divided by 255"),
        (*CAFFE, "pass mean=(0.406, 0.456, 0.485), std=(0.00392157, 0.00392157, 0.00392157), which are these"),
        ((0.0,) * 3, (255.0,) * 3, "pass mean=(0, 0, 0), std=(1, 1, 1), which are these divided by 255"),
        ((33.46,), (78.87,), "pass mean=(0.131216,), std=(0.309294,), which are these divided by 255"),
        (IMAGENET[0], HUNDREDS[1], "of two ranges: pass both of 0 to 1"),
        (HUNDREDS[0], IMAGENET[1], "of two ranges: pass both of 0 to 1"),
    ],
)
def test_values_of_pixels_up_to_255(mean: Values, std: Values, advice: str) -> None:
    with pytest.raises(
        InputError, match="expected mean and std of pixels from 0 to 1 for this model, got mean="
    ) as error:
        check_unit_range(mean, std, "for this model", "pass")
    assert advice in str(error.value)


def test_every_model_of_timm_passes() -> None:
    pytest.importorskip("timm")
    from timm.models import _registry

    settings = _registry._model_pretrained_cfgs.values()
    assert len(settings) > 1000
    for one in settings:
        check_unit_range(one.mean, one.std, "for this model", "pass")


def test_a_folder_with_values_of_pixels_up_to_255_is_refused_until_they_are_divided(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    from dtn_det.robustness.classification.models.loading import load_classifier

    model = timm.create_model("resnet10t", num_classes=3)
    model.pretrained_cfg = {**model.pretrained_cfg, "mean": HUNDREDS[0], "std": HUNDREDS[1]}
    timm.models.save_for_hf(model, str(tmp_path), safe_serialization=True)
    with pytest.raises(
        InputError, match=r"in the config\.json of .*: write into its pretrained_cfg mean=\(0\.485, 0\.4"
    ):
        load_classifier(f"timm:local-dir:{tmp_path}", 3)
    config = json.loads((tmp_path / "config.json").read_text())
    config["pretrained_cfg"] |= {"mean": IMAGENET[0], "std": IMAGENET[1]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = load_classifier(f"timm:local-dir:{tmp_path}", 3)
    assert found.protocol["normalization"] == f"mean {[*IMAGENET[0]]} std {[*IMAGENET[1]]}"


@pytest.mark.parametrize(
    "settings",
    [
        {"mean": list(HUNDREDS[0]), "std": list(HUNDREDS[1])},
        {"mean": list(CAFFE[0]), "std": list(CAFFE[1])},
        {"mean": [0, 0, 0], "std": [1, 1, 1]},  # YOLOX
        {"mean": [0.0] * 3, "std": [255.0] * 3},
        {"mean": [-31.875] * 3, "std": [318.75] * 3},
        {"mean": [33.46], "std": [78.87]},
        {"mean": None, "std": None},
        {},
        None,
    ],
)
def test_values_of_real_configs_of_openmmlab(settings: Any) -> None:
    assert small_for_bytes(settings, "a.py") == ()


@pytest.mark.parametrize("mean", [IMAGENET[0], (0.0,) * 3, HUNDREDS[0]])
def test_a_config_with_values_of_pixels_up_to_1_is_told(mean: Values) -> None:
    (remark,) = small_for_bytes({"mean": list(mean), "std": list(IMAGENET[1])}, "a.py")
    assert remark.sentence().startswith("a.py: 1 data_preprocessor has mean=(")
    assert remark.sentence().endswith(
        "and std=(0.229, 0.224, 0.225), as for pixels from 0 to 1, but gets pixels from 0 to 255: this is right only "
        "if the training had the same values"
    )
