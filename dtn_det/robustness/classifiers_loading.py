"""From what the user names to a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dtn_det.robustness.classifiers import Classifier


def load_classifier(source: str, num_classes: int) -> Classifier:
    """Load a model.

    Args:
        source: ``timm:NAME``, ``timm:NAME@FILE``, ``timm:NAME@random``, ``CONFIG@CHECKPOINT`` of mmpretrain, or
            ``python:MODULE:FUNCTION``.
        num_classes: Of the data set.

    Raises:
        ValueError: It is none of these, or cannot be loaded.
    """
    if source.startswith("timm:"):
        from dtn_det.robustness.classifiers_timm import load_timm

        return load_timm(source, num_classes)
    if source.startswith("python:"):
        from dtn_det.robustness.classifiers_python import load_python

        return load_python(source)
    if Path(source.partition("@")[0]).suffix == ".py":
        from dtn_det.robustness.classifiers_mmpretrain import load_mmpretrain

        return load_mmpretrain(source, num_classes)
    raise ValueError(
        f"expected MODEL to be timm:NAME, timm:NAME@FILE, CONFIG.py@CHECKPOINT or python:MODULE:FUNCTION, got "
        f"{source!r}"
    )


def load_classifiers(sources: Sequence[str], names: Sequence[str] | None, num_classes: int) -> list[Classifier]:
    """Load models and name them.

    Raises:
        ValueError: One cannot be loaded, or two would have one name.
    """
    if names is not None and len(names) != len(sources):
        raise ValueError(f"expected --names for {len(sources)} models, got {len(names)}: give each model one name")
    models = [load_classifier(source, num_classes) for source in sources]
    if names is not None:
        models = [replace(model, name=name) for model, name in zip(models, names, strict=True)]
    called = [model.name for model in models]
    twice = sorted({name for name in called if called.count(name) > 1})
    if twice:
        raise ValueError(f"expected models of different names, got {', '.join(twice)} twice: name them with --names")
    return models
