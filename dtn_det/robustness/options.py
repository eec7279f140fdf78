"""The options of a sweep, as the commands `dtn-det mce` and `dtn-det mpc` accept them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dtn_det.corruptions.catalog import SEVERITIES

if TYPE_CHECKING:
    from dtn_det.checkpoints.two_networks import WeightsKind
    from dtn_det.corruptions.engine import ChannelOrder

Order = Literal["image", "cell"]
"""What a sweep of classifiers goes through: all cells of an image, then the next image; or all images of a cell."""

Reset = Literal["cell", "corruption", "never"]
"""Before what a model that adapts while it is tested is reset: each cell, each corruption, or nothing."""

OnBadImage = Literal["fail", "record"]
"""What to do about an image that cannot be read: end the run, or leave the image out and record why."""


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """The options that sweeps of classifiers and of detectors have in common.

    Attributes:
        corruptions: Names of corruptions or of groups of corruptions; empty for the clean images alone, and None for
            all corruptions in the benchmark's mean.
        severities: Severities of each corruption, from 1 to 5.
        profile: Benchmark whose corruptions are applied; None for the benchmark that suits the data.
        seed: Seed of the corruptions' randomness.
        frost: Folder of frost textures; None for the textures that this package draws.
        engine: Version of the implementation of the corruptions; None for the newest.
        limit: Largest number of images to evaluate. They are chosen at random, the same ones in every run. None for
            all.
        on_bad_image: What to do if an image cannot be read.
        workers: Number of processes that load and corrupt images; 0 to do this in the main process.
        batch_size: Largest number of images that a model gets at once. For a detector, these are versions of one image.
        unit_size: Number of images whose records are written together, as one unit.
        device: Where the models run, such as ``cpu``; None for a GPU where there is one.
        launcher: How the processes were started: ``none``, ``pytorch``, ``slurm`` or ``mpi``.
        weights: Which weights to load from a checkpoint with plain weights and an average. None for the average; for
            checkpoints of mmcv 1.x's ``EMAHook``, None for the weights under the model's names.
    """

    store: Path
    corruptions: Sequence[str] | None = None
    severities: Sequence[int] = SEVERITIES
    profile: str | None = None
    seed: int = 0
    frost: Path | None = None
    engine: int | None = None
    limit: int | None = None
    limit_seed: int = 0
    on_bad_image: OnBadImage = "fail"
    workers: int = 0
    batch_size: int
    unit_size: int
    amp: bool = False
    device: str | None = None
    launcher: str = "none"
    weights: WeightsKind | None = None


@dataclass(frozen=True, kw_only=True)
class ClassificationOptions(SweepOptions):
    """The options of `dtn-det mce`.

    Attributes:
        models: The models as the user named them, see
            :func:`dtn_det.robustness.classification.models.loading.load_classifier`.
        data: Folder of clean images, which the sweep corrupts, or of corrupted images.
        clean: Folder of the clean images, if ``data`` holds corrupted images.
        classes: How classes are numbered: see :data:`dtn_det.datasets.folders.label_maps.CLASSES`; None to infer the
            numbering from the folders.
        labels: File with the Real labels of ImageNet's validation images, see :mod:`dtn_det.datasets.real_labels`; None
            to use the classes of the folders.
        partial: Whether to accept corrupted images that lack corruptions or severities.
        baseline: ``alexnet`` or the name of the model whose errors are the denominators of corruption errors. None for
            AlexNet if its published errors fit the data.
        jpeg: Whether corrupted images are compressed as JPEG; None to follow the benchmark.
        order: Whether models get all cells of an image in turn, or all images of a cell, as models that adapt need.
        reset: With ``order`` ``cell``, before what the models are reset; None for ``cell``.
        order_seed: With ``order`` ``cell``, the seed of the order of the images.
    """

    models: Sequence[str]
    data: Path
    clean: Path | None = None
    classes: str | None = None
    labels: Path | None = None
    partial: bool = False
    names: Sequence[str] | None = None
    baseline: str | None = None
    jpeg: bool | None = None
    order: Order = "image"
    reset: Reset | None = None
    order_seed: int = 0
    batch_size: int = 128
    unit_size: int = 64


@dataclass(frozen=True)
class DetectorSource:
    """A detector as the user named it.

    Attributes:
        model: The model, such as ``torchvision:fasterrcnn_resnet50_fpn``, or the path of a config of MMDetection.
        checkpoint: Path or URL of the weights of a config of MMDetection; empty for other models.
        name: Name of the model in the store and in reports; None for a name made from ``model``.
    """

    model: str
    checkpoint: str = ""
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class DetectionOptions(SweepOptions):
    """The options of `dtn-det mpc`.

    Attributes:
        data_root: Folder of the data set. For configs of MMDetection, it replaces the config's; None for the config's.
        ann: Annotation file, if no model is a config of MMDetection; None to find it in ``data_root``.
        images: Folder of the images, if no model is a config of MMDetection; None to find it in ``data_root``.
        category_ids: What the category ids of models are, as ``WAY`` for all or ``NAME=WAY`` for one model: see
            :mod:`dtn_det.robustness.detection.models.category_ids`.
        split: Dataloader of the config, ``test`` or ``val``.
        channel_order: Order of the colour channels in the images that are corrupted.
        cfg_options: Values that replace values of the config, as ``KEY=VALUE``.
        evaluator: What will compute the numbers of the detections: ``hotcoco``, or ``faster-coco-eval`` for a second
            opinion.
    """

    models: Sequence[DetectorSource]
    data_root: str | None = None
    ann: Path | None = None
    images: Path | None = None
    category_ids: Sequence[str] = ()
    split: str = "test"
    channel_order: ChannelOrder = "rgb"
    cfg_options: Sequence[str] | None = None
    evaluator: str = "hotcoco"
    batch_size: int = 4
    unit_size: int = 16
