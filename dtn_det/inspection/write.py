"""The folder of an inspection: figures, tables, and a JSON file with facts on model, checkpoint and image."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from dtn_det._optional import require

require("matplotlib", "report")  # first, so that the error names the extra that is missing
require("pandas", "cli")

from matplotlib.figure import Figure  # noqa: E402

from dtn_det.errors import InputError  # noqa: E402
from dtn_det.inspection.figures import (  # noqa: E402
    draw_axis_kernels,
    draw_class_attention,
    draw_distance,
    draw_gates,
    draw_kernels,
    draw_magnitudes,
    draw_received,
)
from dtn_det.inspection.forward_pass import BlockLook, Looks  # noqa: E402
from dtn_det.inspection.frames import all_frames  # noqa: E402
from dtn_det.system.drawing import FORMATS, drawing, rendered  # noqa: E402
from dtn_det.system.files import write_bytes, write_text  # noqa: E402

FIGURES = {
    "gates": "Gates of DTN",
    "kernels": "Positional kernels of DTN",
    "kernel_axes": "Positional kernels of DTN by axis",
    "magnitudes": "Token magnitudes under three norms",
    "attention_distance": "Mean attention distances",
    "attention_received": "Attention that tokens receive",
    "class_attention": "Attention of the class token",
}
"""Titles of the figures, by the names of their files."""
TABLES = (*FIGURES, "kernel_maps", "magnitude_spread")
FACTS = "inspect.json"
RADIUS = 3
"""How many tokens figures show on each side of a kernel's centre."""
MOST_CHOSEN = 4


@dataclass(frozen=True)
class Choice:
    """The blocks that the figures show, and the name of the norm that they show for each block."""

    blocks: tuple[BlockLook, ...]
    norm: str


def choose(looks: Looks, patterns: Sequence[str] | None, norm: str) -> Choice:
    """Choose the blocks that the figures show.

    Args:
        patterns: Names of blocks, in which ``*`` stands for anything. None takes the last block of each stage; in a
            network with one stage it takes up to four blocks, spread evenly from the first to the last.

    Raises:
        InputError: A pattern fits no block.
    """
    blocks = looks.blocks
    if patterns is not None:
        for pattern in patterns:
            if not any(fnmatchcase(block.name, pattern) for block in blocks):
                names = ", ".join(block.name for block in blocks)
                raise InputError(f"expected --blocks to name blocks of the model, got {pattern!r}: it has {names}")
        chosen = [block for block in blocks if any(fnmatchcase(block.name, pattern) for pattern in patterns)]
        return Choice(tuple(chosen), norm)
    last = {block.stage: block for block in blocks}
    if len(last) > 1:
        return Choice(tuple(last.values()), norm)
    steps = min(MOST_CHOSEN, len(blocks))
    places = {round(step * (len(blocks) - 1) / max(1, steps - 1)) for step in range(steps)}
    return Choice(tuple(blocks[place] for place in sorted(places)), norm)


def check_folder(folder: Path) -> None:
    """Check that a path can be a folder for figures, before the figures are computed, which takes minutes.

    Raises:
        InputError: The path is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"expected --out to be a folder, got the file {folder}: name another")


def write_looks(looks: Looks, choice: Choice, folder: Path) -> list[Path]:
    """Write figures, tables and facts; files of an earlier inspection in the folder are replaced.

    Args:
        folder: Folder of the files; created if it does not exist.

    Returns:
        The paths of the files, in the order of their names.
    """
    frames = all_frames(looks, choice.blocks, choice.norm, RADIUS)
    files = {f"{name}.csv": frame.to_csv(index=False, float_format="%.6g").encode() for name, frame in frames.items()}
    about = f"{looks.subject.model}, {looks.subject.checkpoint}, {looks.subject.image}"
    with drawing():
        for name, draw in figures(looks, choice).items():
            files |= {f"{name}.{kind}": data for kind, data in rendered(draw(), FIGURES[name], about).items()}
    check_folder(folder)
    for name in _known_files():
        (folder / name).unlink(missing_ok=True)
    for name, data in files.items():
        write_bytes(folder / name, data)
    write_text(folder / FACTS, json.dumps(facts(looks, choice, sorted(files)), indent=2) + "\n")
    return [folder / name for name in sorted([*files, FACTS])]


def figures(looks: Looks, choice: Choice) -> dict[str, Callable[[], Figure]]:
    """Return the drawing function of each figure that is possible for a model, by the name of the figure's files."""
    blocks, norm = choice.blocks, choice.norm
    found: dict[str, Callable[[], Figure]] = {
        "magnitudes": lambda: draw_magnitudes(looks, blocks, norm),
        "attention_distance": lambda: draw_distance(looks),
    }
    with_class = [block for block in blocks if block.attention.class_map is not None]
    if with_class:
        found["class_attention"] = lambda: draw_class_attention(looks, with_class[-1])
    found["attention_received"] = lambda: draw_received(looks, blocks)
    if looks.has_dtn:
        found["gates"] = lambda: draw_gates(looks)
    if any(block.norms[norm].kernels is not None for block in blocks):
        found["kernels"] = lambda: draw_kernels(blocks, norm, RADIUS)
        found["kernel_axes"] = lambda: draw_axis_kernels(blocks, norm, RADIUS)
    return found


def _known_files() -> list[str]:
    drawings = [f"{name}.{kind}" for name in FIGURES for kind in FORMATS]
    return [*drawings, *(f"{name}.csv" for name in TABLES), FACTS]


def facts(looks: Looks, choice: Choice, files: Sequence[str]) -> dict[str, Any]:
    """Return the facts for the inspection's JSON file: model, checkpoint, image, sizes, blocks, files and versions."""
    subject = looks.subject
    kinds = [norm.kind for _, norm in looks.norms]
    return {
        "model": subject.model,
        "checkpoint": subject.checkpoint,
        "image": subject.image,
        "image_size": list(subject.image_size),
        "seen_size": list(subject.picture.shape[:2]),
        "input_size": list(subject.input_size),
        "blocks": len(looks.blocks),
        "dtn_norms": kinds.count("DTN"),
        "ln_norms": kinds.count("LN"),
        "class_token": looks.has_class_token,
        "drawn_blocks": [block.name for block in choice.blocks],
        "drawn_norm": choice.norm,
        "notes": notes(looks, choice),
        "files": list(files),
        "versions": {"dtn-det": metadata.version("dtn-det"), "torch": str(torch.__version__)},
    }


def notes(looks: Looks, choice: Choice) -> list[str]:
    """Return sentences on what the figures cannot show of this model, each with the reason."""
    found = []
    if not looks.has_dtn:
        found.append("no gates and no kernels: every norm of the blocks is LayerNorm")
    starting = [block.title for block in choice.blocks if block.norms[choice.norm].kind == "LN"]
    if starting:
        found.append(
            f"{', '.join(starting)}: {choice.norm} is LayerNorm, so the map of DTN is that of an untrained one "
            "(gates at 0.5, kernels at their start)"
        )
    if not looks.has_class_token:
        found.append("no class token: attention_received tells how much attention each token gets from all others")
    return found
