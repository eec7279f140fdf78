"""Which of timm's models does `convert_norm` take, and why not the others? Plans all that have a LayerNorm.

python benchmarks/timm_conversions.py [--answers work_dirs/timm_conversions.jsonl] [--write]

Models are built on the meta device, without weights. Answers are kept in a file, one model a line, and a run that was
stopped goes on where it was. `--write` puts the table into docs/classification.md.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest import mock

import timm
import torch
from torch import nn
from tqdm import tqdm

from dtn_det.conversion.hosts.traits import rearranges
from dtn_det.conversion.plan import plan_norms
from dtn_det.errors import NoNormToConvertError

DOCUMENT = Path(__file__).parents[1] / "docs" / "classification.md"
START, END = "<!-- timm -->", "<!-- end -->"


@dataclass(frozen=True)
class Answer:
    """What becomes of a model.

    Attributes:
        model: Its name in timm.
        family: The module of timm that defines it; None if the model has no LayerNorm.
        norms: How many norms become DTN.
        reason: Why none does; empty for converted models.
    """

    model: str
    family: str | None
    norms: int = 0
    reason: str = ""


def model_names() -> list[str]:
    """The names of timm's own models."""
    return [name for name in timm.list_models() if not name.startswith("dtn_")]


@contextmanager
def _without_initialisation() -> Iterator[None]:
    """Weights on the meta device have no values, and drawing them takes most of the time."""
    names = ("trunc_normal_", "normal_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "uniform_")
    patches = [mock.patch.object(nn.init, name, lambda tensor, *args, **kwargs: tensor) for name in names]
    patches.append(mock.patch("timm.layers.weight_init._trunc_normal_", lambda tensor, *args: tensor))
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        mock.patch.stopall()


def answer(name: str) -> Answer:
    """Plan the conversion of a model of timm."""
    with warnings.catch_warnings(), torch.device("meta"), _without_initialisation():
        warnings.simplefilter("ignore")
        model = timm.create_model(name)
    if not any(isinstance(module, nn.LayerNorm) for module in model.modules()):
        return Answer(name, None)
    family = type(model).__module__.rpartition(".")[2]
    rearranging = rearranges(model)
    if rearranging is not None:
        return Answer(name, family, reason=f"{rearranging[0]} {rearranging[1]}")
    try:
        return Answer(name, family, len(plan_norms(model).replaced))
    except NoNormToConvertError as error:
        return Answer(name, family, reason=", ".join(sorted({f"norm {reason}" for _, reason in error.plan.kept})))


def answers(path: Path) -> list[Answer]:
    """All answers, from a file and to it."""
    known = {}
    if path.exists():
        known = {line["model"]: Answer(**line) for line in map(json.loads, path.read_text().splitlines())}
    path.parent.mkdir(parents=True, exist_ok=True)
    names = model_names()
    with path.open("a") as file:
        for name in tqdm([name for name in names if name not in known], unit="model", mininterval=10):
            known[name] = answer(name)
            file.write(json.dumps(asdict(known[name])) + "\n")
            file.flush()
    return [known[name] for name in names if known[name].family is not None]


def table(found: Iterable[Answer]) -> str:
    """The answers as a table of Markdown, one row a family."""
    families: dict[str, list[Answer]] = defaultdict(list)
    for one in found:
        families[str(one.family)].append(one)
    total = sum(map(len, families.values()))
    converted = sum(one.norms > 0 for members in families.values() for one in members)
    release = importlib.metadata.version("timm")
    lines = [
        f"timm {release}: of {total} models with a LayerNorm, {converted} are converted.",
        "",
        "| family | models | converted models | DTN norms of the first | why others are not converted |",
        "|---|---|---|---|---|",
    ]
    for family, members in sorted(families.items()):
        taken = [one for one in members if one.norms]
        first = f"{taken[0].norms} of `{taken[0].model}`" if taken else ""
        reasons = "; ".join(sorted({one.reason for one in members if one.reason}))
        lines.append(f"| {family} | {len(members)} | {len(taken)} | {first} | {reasons} |")
    return "\n".join(lines)


def written_table() -> str:
    """The table that stands in the document."""
    return DOCUMENT.read_text().split(START)[1].split(END)[0].strip()


def write_table(text: str) -> None:
    """Put a table into the document, in the place of the one that is there."""
    before, rest = DOCUMENT.read_text().split(START)
    DOCUMENT.write_text(f"{before}{START}\n{text}\n{END}{rest.split(END)[1]}")


def main() -> None:
    """Print the table, or write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=Path, default=Path("work_dirs/timm_conversions.jsonl"), metavar="FILE")
    parser.add_argument("--write", action="store_true", help="put the table into docs/classification.md")
    options = parser.parse_args()
    text = table(answers(options.answers))
    if options.write:
        write_table(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
