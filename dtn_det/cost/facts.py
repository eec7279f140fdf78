"""What is worth knowing of a model that its numbers do not depend on: its cost for an image, how it was trained."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class ModelFacts:
    """Facts of a model, where they are known.

    Attributes:
        flops: Multiply-adds for one image, None where unknown.
        flops_at: Height and width of that image, as ``800x1216``; empty where unknown.
        training: How it was trained, by name.
    """

    flops: int | None = None
    flops_at: str = ""
    training: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether anything is known."""
        return self != ModelFacts()

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "training": dict(self.training)}

    @classmethod
    def from_dict(cls, values: object) -> ModelFacts:
        """The inverse of :meth:`to_dict`.

        Raises:
            TypeError: They are something else.
        """
        if not isinstance(values, Mapping):
            raise TypeError(f"facts are {values!r}")
        found = cls(**values)
        texts = (found.flops_at, *found.training, *found.training.values()) if isinstance(found.training, dict) else ()
        if not (isinstance(found.flops, int | None) and texts and all(isinstance(text, str) for text in texts)):
            raise TypeError(f"facts are {dict(values)!r}")
        return found


def training_facts(config: Mapping[str, Any], checkpoint: Mapping[str, Any]) -> dict[str, str]:
    """How a model was trained, from its config and what MMEngine's training wrote into the checkpoint.

    Args:
        config: Of MMEngine.
        checkpoint: Content of the file; without ``meta``, the weights may come from any training, and nothing is said.
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


def forward_flops(network: nn.Module, forward: Callable[[Tensor], object], images: Tensor) -> int | None:
    """Multiply-adds of a forward pass: matrix products, convolutions, attention, and DTN's filters.

    Args:
        network: Of which `forward` makes use.
        forward: What is counted.
        images: One image.

    Returns:
        None where the model cannot be run on it.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from dtn_det.cost.complexity import as_layer_norm, dtn_layer
    from dtn_det.layers import DTN

    norms = {name: module for name, module in network.named_modules() if isinstance(module, DTN)}
    grids: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    counter = FlopCounterMode(display=False)
    try:
        # The counter sees the matrix products of plain attention, whatever the device.
        plain = sdpa_kernel(SDPBackend.MATH)
        with torch.random.fork_rng(devices=[]), torch.no_grad(), as_layer_norm(norms, grids), plain, counter:
            forward(images)
    # A model is code of anyone, and the run that follows tells what is wrong with it.
    except (Exception, SystemExit):
        return None
    own = sum(dtn_layer(name, norms[name], grid).flops.total for name, met in grids.items() for grid in met)
    # It counts a multiplication and an addition as two.
    return int(counter.get_total_flops()) // 2 + own


def _duration(settings: Mapping[str, Any], meta: Mapping[str, Any]) -> dict[str, str]:
    """Epochs or iterations that were trained, out of those that were meant where these are others."""
    unit = "iterations" if "max_iters" in settings and "max_epochs" not in settings else "epochs"
    done = _number(meta.get("iter" if unit == "iterations" else "epoch"))
    meant = _number(settings.get("max_iters" if unit == "iterations" else "max_epochs"))
    return {unit: f"{done} of {meant}" if done and meant and done != meant else done or meant}


def _pretrained(config: Mapping[str, Any]) -> str:
    """File from which training began."""
    places = (config.get("load_from"), *(_part(config, "model", *path).get("checkpoint") for path in _INIT))
    return next((PurePosixPath(place).name for place in places if isinstance(place, str)), "")


_INIT = (("backbone", "init_cfg"), ("init_cfg",))


def _part(values: Any, *keys: str) -> Mapping[str, Any]:
    for key in keys:
        values = values.get(key) if isinstance(values, Mapping) else None
    return values if isinstance(values, Mapping) else {}


def _name(kind: object) -> str:
    """A type as configs give it: its name or the class."""
    return kind.rpartition(".")[2] if isinstance(kind, str) else getattr(kind, "__name__", "")


def _number(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value) if isinstance(value, int) else ""
