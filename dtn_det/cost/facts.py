"""Facts about a model that do not affect its robustness results: FLOPs for one image, and how it was trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any


@dataclass(frozen=True)
class ModelFacts:
    """The known facts about a model.

    Attributes:
        flops: Multiply-adds for one image; None if unknown.
        flops_at: Height and width of that image, such as ``800x1216``; empty if unknown.
        training: How the model was trained, as values by name, such as ``{"epochs": "12"}``.
    """

    flops: int | None = None
    flops_at: str = ""
    training: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Return whether any fact is known."""
        return self != ModelFacts()

    def to_dict(self) -> dict[str, Any]:
        """Return the facts, ready for JSON."""
        return {**asdict(self), "training": dict(self.training)}

    @classmethod
    def from_dict(cls, values: object) -> ModelFacts:
        """Make facts from the result of :meth:`to_dict`.

        Raises:
            TypeError: The values are not a result of :meth:`to_dict`.
        """
        if not isinstance(values, Mapping):
            raise TypeError(f"facts are {values!r}")
        found = cls(**values)
        texts = (found.flops_at, *found.training, *found.training.values()) if isinstance(found.training, dict) else ()
        if not (isinstance(found.flops, int | None) and texts and all(isinstance(text, str) for text in texts)):
            raise TypeError(f"facts are {dict(values)!r}")
        return found


def training_facts(config: Mapping[str, Any], checkpoint: Mapping[str, Any]) -> dict[str, str]:
    """Return how a model was trained, from its config and from what MMEngine's training stored in the checkpoint.

    Returns:
        Values by name. Empty if the checkpoint has no ``meta``, because its weights may come from any training.
    """
    meta = _part(checkpoint, "meta")
    if not meta:
        return {}
    optimizer = _part(config, "optim_wrapper", "optimizer")
    loader = _part(config, "train_dataloader")
    seed = meta.get("seed")
    found = {
        **_duration(_part(config, "train_cfg"), meta),
        "optimizer": _name(optimizer.get("type")),
        "lr": _number(optimizer.get("lr")),
        "weight decay": _number(optimizer.get("weight_decay")),
        "batch size per process": _number(loader.get("batch_size")),
        "seed": _number(_part(config, "randomness").get("seed") if seed is None else seed),
        "pretrained": _pretrained(config),
    }
    return {name: text for name, text in found.items() if text}


def _duration(settings: Mapping[str, Any], meta: Mapping[str, Any]) -> dict[str, str]:
    """Return the number of epochs or iterations of the training, and the planned number if it differs."""
    unit = "iterations" if "max_iters" in settings and "max_epochs" not in settings else "epochs"
    done = _number(meta.get("iter" if unit == "iterations" else "epoch"))
    meant = _number(settings.get("max_iters" if unit == "iterations" else "max_epochs"))
    return {unit: f"{done} of {meant}" if done and meant and done != meant else done or meant}


def _pretrained(config: Mapping[str, Any]) -> str:
    """Return the file name of the weights that the training started from; empty if there are none."""
    paths = (("backbone", "init_cfg"), ("init_cfg",))
    places = (config.get("load_from"), *(_part(config, "model", *path).get("checkpoint") for path in paths))
    return next((PurePosixPath(place).name for place in places if isinstance(place, str)), "")


def _part(values: Any, *keys: str) -> Mapping[str, Any]:
    for key in keys:
        values = values.get(key) if isinstance(values, Mapping) else None
    return values if isinstance(values, Mapping) else {}


def _name(kind: object) -> str:
    """Return the name of a type, which a config contains as text or as the class itself."""
    return kind.rpartition(".")[2] if isinstance(kind, str) else getattr(kind, "__name__", "")


def _number(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value) if isinstance(value, int) else ""
