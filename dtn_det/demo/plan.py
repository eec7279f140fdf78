"""The plan of a demonstration, and the places of its files."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtn_det._optional import require
from dtn_det.corruptions.cells import Cell, sweep_cells
from dtn_det.demo.dataset import GENERATOR_VERSION, DatasetSpec
from dtn_det.errors import InputError
from dtn_det.system.files import write_json

if TYPE_CHECKING:
    from dtn_det.corruptions import Corruptor

CONFIGS = {"dtn": "atss_dtn-swin-nano_fpn_shapes.py", "ln": "atss_swin-nano_fpn_shapes.py"}
"""The config of each model in ``configs/dtn_demo``, by the model's short name."""

LABELS = {"dtn": "DTN", "ln": "LayerNorm"}
"""Names of the models in reports and messages."""

SETTINGS = "settings.json"

CORRUPTIONS = ("gaussian_noise", "motion_blur", "fog", "jpeg_compression")
"""One corruption of each group: noise, blur, weather, digital."""


@dataclass(frozen=True)
class Plan:
    """What a demonstration does.

    Attributes:
        data: Settings of the detection set. Its seed is also used for training and corruptions.
        max_epochs: Number of epochs; None for the number in the configs.
        severities: Severities, from 1 to 5.
    """

    data: DatasetSpec = field(default_factory=DatasetSpec)
    max_epochs: int | None = None
    corruptions: tuple[str, ...] = CORRUPTIONS
    severities: tuple[int, ...] = (1, 3, 5)

    def cells(self) -> tuple[Cell, ...]:
        """The conditions under which each image is evaluated, first the clean one."""
        return sweep_cells(self.corruptions, self.severities)

    @property
    def corruptor(self) -> Corruptor:
        """The corruptor of the images."""
        from dtn_det.corruptions import Corruptor

        return Corruptor("coco-c", seed=self.data.seed)

    def settings(self) -> dict[str, Any]:
        """Return everything that affects results, so that results of different settings are never mixed."""
        own = json.loads(json.dumps(asdict(self)))
        configs = {f"config of {name}": _digest(load_config(name)) for name in CONFIGS}
        packages = {name: _version(name) for name in ("dtn-det", "torch", "mmcv", "mmdet", "numpy")}
        own = {**own, "corruptor": self.corruptor.identity, "generator": GENERATOR_VERSION}
        return {**own, **configs, **packages}


@dataclass(frozen=True)
class Layout:
    """Paths of the files and folders of a demonstration."""

    root: Path

    @property
    def data(self) -> Path:
        """The folder of the detection set."""
        return self.root / "data"

    @property
    def report(self) -> Path:
        """The folder of the comparison: tables, figures and a page."""
        return self.root / "report"

    @property
    def picture(self) -> Path:
        """The picture of ground truth and detections side by side."""
        return self.root / "detections.png"

    def model(self, name: str) -> Path:
        """Return the path of the folder with a model's checkpoints, logs and results."""
        return self.root / name

    def training(self, model: str) -> Path:
        """Return the path of the file that is written when a model's training ends."""
        return self.model(model) / "training.json"

    def log(self, model: str) -> Path:
        """Return the path of the file with the output of a model's process."""
        return self.model(model) / "output.log"

    def store(self, model: str) -> Path:
        """Return the path of the store of a model's detections under all conditions."""
        return self.model(model) / "store"


def load_config(model: str) -> Any:
    """Read the MMDetection config of a model from the checkout's folder `configs/dtn_demo`.

    Raises:
        ImportError: MMDetection is missing.
        FileNotFoundError: The configs are missing.
    """
    require("mmdet", "det")
    config = require("mmengine.config", "det").Config
    return config.fromfile(str(config_folder() / CONFIGS[model]))


def config_folder() -> Path:
    """Return the folder ``configs/dtn_demo`` of the checkout.

    Raises:
        FileNotFoundError: The package was installed without a checkout.
    """
    folder = Path(__file__).resolve().parents[2] / "configs" / "dtn_demo"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"expected the demonstration's configs in {folder}, got no such folder: run from a checkout installed with "
            "`pip install -e .`"
        )
    return folder


def open_folder(root: Path, plan: Plan, *, fresh: bool = False) -> Layout:
    """Prepare the folder of a new demonstration, or check that an earlier one can be continued in it.

    Args:
        root: The folder, which must exist.
        fresh: Delete the files of an earlier demonstration first.

    Raises:
        ValueError: The folder belongs to something else, or to a demonstration with other settings.
        OSError: The folder cannot be written.
    """
    settings = plan.settings()
    stored = read_settings(root)
    if stored is None and any(root.iterdir()):
        raise InputError(
            f"expected --out to be empty or the folder of an earlier demonstration, got {root} with other files in it: "
            "name another"
        )
    if stored is not None and fresh:
        clear(root)
    elif stored is not None and stored != settings:
        differing = [key for key in settings if settings[key] != stored.get(key)] or sorted(set(stored) - set(settings))
        changes = "; ".join(
            f"{key} was {json.dumps(stored.get(key))}, is {json.dumps(settings.get(key))}" for key in differing
        )
        raise InputError(
            f"expected the settings that the results in {root} were made with, got others ({changes}): "
            "pass --fresh to delete those results, or --out for another folder"
        )
    write_json(root / SETTINGS, settings)
    return Layout(root)


def read_settings(root: Path) -> dict[str, Any] | None:
    """Read the settings stored in a folder; None if the folder does not belong to a demonstration."""
    try:
        value = json.loads((root / SETTINGS).read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def clear(root: Path) -> None:
    """Delete only the files of a demonstration, and the settings last, so that a killed deletion can be repeated."""
    layout = Layout(root)
    for folder in (layout.data, layout.report, *(layout.model(name) for name in CONFIGS)):
        if folder.is_dir():
            shutil.rmtree(folder)
    for file in (layout.picture, root / SETTINGS):
        file.unlink(missing_ok=True)


def _digest(config: Any) -> str:
    return hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode()).hexdigest()[:12]


def _version(package: str) -> str:
    if package == "dtn-det":
        return metadata.version(package)
    return str(require(package, "det").__version__)
