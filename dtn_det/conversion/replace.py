"""Which modules of a built model a conversion replaces, by their exact classes."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from dtn_det.conversion.plan import Layers, check_layers

# What replaces a module: it gets the model and the path of the module.
Replace = Callable[[nn.Module, str], None]


@dataclass(frozen=True)
class Replacements:
    """What a conversion does to a model; print it to read it.

    Attributes:
        model: Class of the model.
        target: Name of the new layers.
        replaced: Path and class of each module that is replaced.
        kept: Path and class of each module of the same kind that stays.
    """

    model: str
    target: str
    replaced: tuple[tuple[str, str], ...]
    kept: tuple[tuple[str, str], ...] = field(default=())

    def __str__(self) -> str:
        lines = [f"{self.model}: {len(self.replaced)} modules become {self.target}, {len(self.kept)} stay"]
        lines += [f"  {name}: {kind}" for name, kind in self.replaced]
        lines += [f"  {name}: {kind} stays" for name, kind in self.kept]
        return "\n".join(lines)


def known_hosts(model: nn.Module, sources: Mapping[str, str]) -> dict[type[nn.Module], Replace]:
    """The replacements of those libraries that the model is made of; no other is imported.

    Args:
        model: A built model.
        sources: From the name of a library to the name of the module that has ``HOSTS`` for it.
    """
    packages = {type(module).__module__.partition(".")[0] for module in model.modules()}
    hosts: dict[type[nn.Module], Replace] = {}
    for package, source in sources.items():
        if package in packages:
            hosts |= importlib.import_module(source).HOSTS
    return hosts


def plan_replacements(
    model: nn.Module, target: str, hosts: Mapping[type[nn.Module], Replace], models: str, pattern: str, layers: Layers
) -> Replacements:
    """Choose what a conversion replaces. The model is left as it is.

    Args:
        model: A built model.
        target: Name of the new layers.
        hosts: Classes that can be replaced; a subclass may do anything and is not one of them.
        models: The models that have such classes, for the error.
        pattern: Regular expression that finds the class names of modules of the same kind.
        layers: Regular expression that is searched for in the path of a module, or a function of path and module.

    Raises:
        ValueError: Nothing is to be replaced, or an argument does not fit.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"expected a built model (torch.nn.Module), got {type(model).__name__}: build it first")
    check_layers(layers)
    replaced: list[tuple[str, str]] = []
    others: list[tuple[str, str]] = []
    for name, module in model.named_modules():
        selected = layers(name, module) if callable(layers) else re.search(layers, name)
        if type(module) in hosts and selected and name:
            replaced.append((name, type(module).__name__))
        elif re.search(pattern, type(module).__name__):
            others.append((name, type(module).__name__))
    # What is inside of a replaced module, or around one, is no module of the same kind that stays.
    kept = tuple(
        (name, kind)
        for name, kind in others
        if name and not any(f"{one}.".startswith(f"{name}.") or name.startswith(f"{one}.") for one, _ in replaced)
    )
    if not replaced and kept and all(kind.startswith(("LSA", "SPT", "Shifted")) for _, kind in kept):
        raise ValueError(f"expected a {type(model).__name__} without {target}, got one that is converted already")
    if not replaced:
        fitting = [name for name, module in model.named_modules() if name and type(module) in hosts]
        if fitting:
            raise ValueError(
                f"expected layers to choose some of {_some(fitting)} of {type(model).__name__}, got {layers!r}, which "
                "chooses none of them: write a regular expression that is found in such a path, or leave layers out"
            )
        classes = sorted({_path(type(model.get_submodule(name))) for name, _ in kept})
        found = f"{', '.join(classes)}, for which it is not written" if classes else "none of the kind"
        raise ValueError(
            f"expected modules of {type(model).__name__} that can become {target}, got {found}: each class needs a "
            f"form of its own; take {models}"
        )
    return Replacements(type(model).__name__, target, tuple(replaced), kept)


def _path(kind: type[nn.Module]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _some(names: Sequence[str], number: int = 6) -> str:
    return ", ".join(names[:number]) + (", ..." if len(names) > number else "")


def put(model: nn.Module, path: str, module: nn.Module) -> None:
    """Set the submodule of a model at a path."""
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
