"""Detectors of torchvision and transformers: what they return, the names of their classes, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dtn_det.datasets.coco.coco_classes import COCO_NAMES
from dtn_det.errors import DtnDetError
from dtn_det.robustness.detection.models.category_ids import DataCategories, StatedClasses, asked_for, category_places
from dtn_det.robustness.detection.models.loading import load_pixel_model
from dtn_det.robustness.detection.models.torchvision import _freeze

CPU = torch.device("cpu")
SSD = "ssdlite320_mobilenet_v3_large"
NAMES = {0: "disc", 1: "square", 2: "bar"}
DATA = DataCategories(Path("some.json"), (1, 2, 3), tuple(NAMES.values()))


def pixels(height: int = 48, width: int = 64) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def ssd(ssd_file: Path) -> tuple[Path, torch.nn.Module]:
    """A file of a detector of torchvision with three classes and a background, and the model."""
    torchvision = pytest.importorskip("torchvision")
    model = torchvision.models.get_model(SSD, weights=None, weights_backbone=None, num_classes=4)
    model.load_state_dict(torch.load(ssd_file)["model"])
    return ssd_file, model.eval()


def test_a_file_of_torchvision_is_built_with_its_classes_and_gives_its_boxes(ssd) -> None:
    path, own = ssd
    found = load_pixel_model(f"torchvision:{SSD}@{path}", CPU)
    assert (found.name, found.source) == (SSD, f"torchvision:{SSD}@own.pth")
    assert found.classes.names == {1: "disc", 2: "square", 3: "bar"}
    assert found.classes.count == 4
    image = pixels()
    with torch.no_grad():
        (result,) = found.detect([image])
        (wanted,) = own([torch.from_numpy(image).permute(2, 0, 1).float() / 255])
    assert len(wanted["scores"]) > 0
    torch.testing.assert_close(result["boxes"], wanted["boxes"])
    torch.testing.assert_close(result["scores"], wanted["scores"])
    torch.testing.assert_close(result["category_ids"], wanted["labels"])


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("torchvision:resnet50", "expected a detector of torchvision out of"),
        (f"torchvision:{SSD}@", "expected a file after the @"),
        (f"torchvision:{SSD}@missing.pth", "missing.pth"),
        ("hf:", "a folder or a name of the hub"),
    ],
)
def test_names_that_are_no_detectors_are_refused(source: str, said: str) -> None:
    with pytest.raises((DtnDetError, OSError), match=said):
        load_pixel_model(source, CPU)


def test_norms_of_files_without_counts_of_batches_are_frozen_as_in_torchvision() -> None:
    ops = pytest.importorskip("torchvision.ops")
    for epsilon, wanted in ((0.0, 0.0), (None, 1e-3)):
        part = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2, eps=1e-3))
        _freeze(part, epsilon)
        assert isinstance(part[1], ops.FrozenBatchNorm2d)
        assert part[1].eps == wanted


@pytest.fixture(scope="module")
def yolos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny detector of transformers and its image processor."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("hf") / "tiny-yolos"
    settings = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(0)
    config = transformers.YolosConfig(
        **settings, image_size=[32, 48], patch_size=16, num_detection_tokens=5, id2label=NAMES
    )
    transformers.YolosForObjectDetection(config).save_pretrained(folder)
    transformers.YolosImageProcessor(size={"shortest_edge": 32, "longest_edge": 48}).save_pretrained(folder)
    return folder


def test_a_detector_of_transformers_gives_the_boxes_of_its_own_processor(yolos: Path) -> None:
    import transformers

    found = load_pixel_model(f"hf:{yolos}", CPU)
    assert (found.name, found.source) == ("tiny-yolos", "hf:tiny-yolos")
    assert found.classes.names == NAMES
    processor = transformers.AutoImageProcessor.from_pretrained(yolos, use_fast=False)
    own = transformers.YolosForObjectDetection.from_pretrained(yolos).eval()
    image = pixels()
    with torch.no_grad():
        results = found.detect([image, image[:, ::-1].copy()])
        inputs = processor(images=[image], return_tensors="pt", input_data_format="channels_last")
        outputs = own(inputs["pixel_values"])
    (wanted,) = processor.post_process_object_detection(outputs, threshold=0, target_sizes=[(48, 64)])
    assert len(results) == 2
    scores, labels = outputs.logits.softmax(-1)[0, :, :-1].max(-1)
    torch.testing.assert_close(wanted["scores"], scores)
    assert wanted["labels"].tolist() == labels.tolist()
    torch.testing.assert_close(results[0]["boxes"], wanted["boxes"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(results[0]["scores"], wanted["scores"], atol=1e-5, rtol=1e-5)
    assert category_places("m", found.classes, DATA, None).places == {0: 0, 1: 1, 2: 2}


def test_an_image_classifier_is_no_detector(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    settings = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.ViTConfig(**settings, image_size=32, patch_size=16)
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    with pytest.raises(DtnDetError, match="expected an object detector of transformers"):
        load_pixel_model(f"hf:{tmp_path}", CPU)


COCO = DataCategories(Path("coco.json"), tuple(COCO_NAMES), tuple(COCO_NAMES.values()))


def test_the_categories_of_coco_are_known() -> None:
    assert len(COCO_NAMES) == 80
    assert (COCO_NAMES[1], COCO_NAMES[18], COCO_NAMES[90]) == ("person", "dog", "toothbrush")
    datasets = pytest.importorskip("mmdet.datasets")
    assert tuple(COCO_NAMES.values()) == datasets.CocoDataset.METAINFO["classes"]


@pytest.mark.parametrize(
    ("stated", "asked", "dog", "way"),
    [
        (StatedClasses(count=91, source="a file"), None, 18, "coco91"),
        (StatedClasses(count=80, source="a file"), None, 16, "coco80"),
        (StatedClasses(), "coco80", 16, "coco80"),
        (StatedClasses(), "index1", 17, "index1"),
        (StatedClasses(), "dataset", 18, "dataset"),
        (StatedClasses({5: "DOG", 7: "N/A"}, "a model"), None, 5, "names"),
    ],
)
def test_ids_of_coco_are_known_by_their_number_or_as_the_user_says(stated, asked, dog, way) -> None:
    found = category_places("m", stated, COCO, asked)
    assert found.way == way
    assert COCO.names[found.places[dog]] == "dog"


def test_names_of_darknet_are_those_of_coco() -> None:
    names = ("sofa", "tvmonitor", "aeroplane", "pottedplant", "diningtable", "motorbike")
    found = category_places("m", StatedClasses(dict(enumerate(names)), "a model"), COCO, None)
    assert [COCO.names[place] for place in found.places.values()] == [
        *("couch", "tv", "airplane", "potted plant", "dining table", "motorcycle")
    ]
    (_, lacking) = found.remarks
    assert (lacking.kind, lacking.count, lacking.partial) == ("categories_unknown", 74, False)


def test_a_class_more_than_categories_is_the_background_only_if_ids_count_from_one() -> None:
    stated = StatedClasses(count=4, source="a file")
    assert category_places("m", stated, DATA, None).places == {1: 0, 2: 1, 3: 2}
    others = replace(DATA, ids=(1, 2, 4))
    with pytest.raises(DtnDetError, match=r"which of the 3 categories of some.json .* got 4 classes without names"):
        category_places("m", stated, others, None)


def test_models_of_other_classes_are_refused() -> None:
    with pytest.raises(DtnDetError, match="that the model 'm' knows, got bar, disc, square in the file and cat of the"):
        category_places("m", StatedClasses({0: "cat"}, "a model"), DATA, None)
    with pytest.raises(DtnDetError, match="that the model 'm' knows"):
        category_places("m", StatedClasses(), DATA, "coco91")
    with pytest.raises(DtnDetError, match="expected --category-ids once for the model 'm'"):
        asked_for("m", ["m=index", "m=dataset"])
    assert asked_for("m", ["m=index", "dataset", "n=coco80"]) == "index"
    assert asked_for("o", ["m=index", "dataset"]) == "dataset"
