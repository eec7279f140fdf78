"""The images of a config's data set that a sweep sees, with their ground truth."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtn_det._optional import require
from dtn_det.corruptions.engine import Corruptor
from dtn_det.datasets.class_names import NamedSet, check_set
from dtn_det.datasets.config_classes import read_categories
from dtn_det.robustness.cells import Cell
from dtn_det.robustness.coco_truth import CocoTruth, read_truth
from dtn_det.robustness.detection_images import DetectionImages
from dtn_det.robustness.wording import counted

if TYPE_CHECKING:
    from mmengine.config import Config


@dataclass(frozen=True)
class DetectionData:
    """A COCO set of a config, and the pipeline that its images go through.

    Attributes:
        name: The annotation file, for people.
        dataset: Of MMDetection, without a pipeline.
        indices: Of the images of the sweep in it.
        total: Images of the whole set.
        truth: What is to be found in those images.
        pipeline: The config of the test pipeline.
    """

    name: str
    dataset: Any
    indices: tuple[int, ...]
    total: int
    truth: CocoTruth
    pipeline: tuple[dict[str, Any], ...]

    @property
    def pipeline_json(self) -> str:
        """The pipeline as text: another one gives other numbers."""
        return json.dumps(self.pipeline, default=str, sort_keys=True)

    def hash(self) -> str:
        """Identity of the images and their annotations.

        Raises:
            FileNotFoundError: Images are missing.
        """
        paths = [str(self.dataset.get_data_info(index)["img_path"]) for index in self.indices]
        missing = [path for path in paths if "://" not in path and not os.path.isfile(path)]
        if missing:
            raise FileNotFoundError(
                f"expected all images of {self.dataset.ann_file}, got {len(missing)} of {len(paths)} missing, such as "
                f"{missing[0]}: fetch them, or name the right folder with --data-root"
            )
        return self.truth.hash([0 if "://" in path else os.path.getsize(path) for path in paths])

    def images(self, cells: Sequence[Cell], corruptor: Corruptor) -> DetectionImages:
        """The images under every cell, for worker processes.

        Raises:
            ValueError: The pipeline does not load an image, or does not build.
        """
        load, rest = _built(self.pipeline)
        sizes = [(image.height, image.width) for image in self.truth.images]
        return DetectionImages(self.dataset, self.indices, sizes, load, rest, cells, corruptor)


def read_data(cfg: Config, split: str, limit: int | None = None, limit_seed: int = 0) -> DetectionData:
    """Read the data set of a config's dataloader.

    Args:
        cfg: The config.
        split: `test` or `val`.
        limit: Take no more than so many images, chosen at random, always the same.
        limit_seed: Of that choice.

    Raises:
        ValueError: There is no such dataloader, the set is no COCO set, its file is damaged, it has no images, or its
            categories are not those of the config.
    """
    check_loader(cfg, split)
    settings = copy.deepcopy(cfg[f"{split}_dataloader"]["dataset"])
    if "pipeline" not in settings or not settings.get("ann_file"):
        raise ValueError(
            f"expected one data set with a pipeline and an ann_file in {split}_dataloader, got "
            f"{settings.get('type')!r}: name the annotation file of one COCO set with --cfg-options"
        )
    pipeline = tuple(_plain(step) for step in settings["pipeline"])
    settings.update(pipeline=[], test_mode=True, lazy_init=False)
    datasets = require("mmdet.registry", "det").DATASETS
    coco_class = require("mmdet.datasets", "det").CocoDataset
    kind = datasets.get(settings["type"]) if isinstance(settings["type"], str) else settings["type"]
    if kind is None or not issubclass(kind, coco_class):
        raise ValueError(
            f"expected a data set of COCO's format, got {settings['type']!r}: convert its annotations, and use "
            "CocoDataset"
        )
    try:
        dataset = datasets.build(settings)
    except (KeyError, TypeError, ValueError, AssertionError, IndexError) as error:
        # What MMEngine makes of an empty list.
        if "need at least one array" in str(error):
            raise ValueError(
                f"expected images in {settings['ann_file']}, got an empty data set: name another"
            ) from error
        raise ValueError(
            f"expected COCO annotations in {settings.get('ann_file')!r} below {settings.get('data_root')!r}, got "
            f"{type(error).__name__}: {error}: check the file and its format"
        ) from error
    return _selected(dataset, pipeline, limit, limit_seed)


def check_loader(cfg: Config, split: str) -> None:
    """See that a config has a dataloader whose parts are of the right types.

    Raises:
        ValueError: It has none, or a part is something else.
    """
    loader = cfg.get(f"{split}_dataloader")
    if not loader:
        raise ValueError(f"expected {split}_dataloader in the config, got none: choose another --split")
    dataset = loader.get("dataset") if isinstance(loader, dict) else None
    pipeline = dataset.get("pipeline", []) if isinstance(dataset, dict) else None
    if not isinstance(pipeline, list | tuple) or not all(isinstance(step, dict) for step in pipeline):
        raise ValueError(
            f"expected {split}_dataloader with a dataset, and in it a pipeline of steps, got {loader!r:.200}: mend the "
            "config or --cfg-options"
        )


def _selected(dataset: Any, pipeline: tuple[dict[str, Any], ...], limit: int | None, limit_seed: int) -> DetectionData:
    classes = tuple(dataset.metainfo["classes"])
    names = dict.fromkeys(row.name for row in read_categories(dataset.ann_file))
    check_set(NamedSet("the data set", str(dataset.ann_file), classes, tuple(names)))
    named = [dataset.get_data_info(index)["img_id"] for index in range(len(dataset))]
    odd = [name for name in named if not isinstance(name, int)]
    if odd:
        raise ValueError(f"expected integers as ids of images in {dataset.ann_file}, got {odd[0]!r}: mend the file")
    ids = [int(name) for name in named]
    indices = tuple(choose(ids, limit, limit_seed))
    truth = read_truth(Path(dataset.ann_file), [ids[index] for index in indices], dataset.cat_ids)
    if not truth.num_objects:
        raise ValueError(
            f"expected objects in {dataset.ann_file}, got none in {counted(len(indices), 'image')}: there is nothing "
            "to evaluate"
        )
    name = os.path.relpath(dataset.ann_file, dataset.data_root) if dataset.data_root else dataset.ann_file
    return DetectionData(str(name), dataset, indices, len(ids), truth, pipeline)


def choose(keys: Sequence[object], limit: int | None, seed: int) -> list[int]:
    """Places of the images that a limit leaves, in ascending order; which ones follows from their keys and the seed.

    Raises:
        ValueError: A limit below 1.
    """
    if limit is None:
        return list(range(len(keys)))
    if limit < 1:
        raise ValueError(f"expected --limit to be at least 1, got {limit}")

    def rank(place: int) -> bytes:
        return hashlib.blake2b(f"{seed} {keys[place]}".encode("utf-8", "surrogateescape")).digest()

    return sorted(sorted(range(len(keys)), key=rank)[:limit])


def _built(pipeline: Sequence[dict[str, Any]]) -> tuple[list[Any], list[Any]]:
    """The steps up to the loading of the image, and those after it without the loading of annotations."""
    transforms = require("mmdet.registry", "det").TRANSFORMS
    annotations = require("mmcv.transforms", "det").LoadAnnotations
    try:
        steps = [transforms.build(dict(step)) for step in pipeline]
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        raise ValueError(f"expected a test pipeline that builds, got {type(error).__name__}: {error}") from error
    loads = [place for place, step in enumerate(steps) if type(step).__name__.startswith("LoadImage")]
    if len(loads) != 1:
        names = ", ".join(type(step).__name__ for step in steps)
        raise ValueError(
            f"expected a test pipeline with one LoadImageFromFile, after which images are corrupted, got {names}"
        )
    rest = [step for step in steps[loads[0] + 1 :] if not isinstance(step, annotations)]
    return steps[: loads[0] + 1], rest


def _plain(value: Any) -> Any:
    """Settings without the classes of mmengine, which print otherwise in other versions."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(inner) for inner in value)
    return value
