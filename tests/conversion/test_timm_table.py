"""The table of docs/classification.md says what becomes of timm's models."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("timm")

_SCRIPT = Path(__file__).parents[2] / "benchmarks" / "timm_conversions.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("timm_conversions", _SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its dataclasses look their module up.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "timm_conversions", module)
        spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name",
    ["beit_base_patch16_224", "cait_m36_384", "hiera_base_224", "mixer_b16_224", "mobilevit_s", "pvt_v2_b0"],
)
def test_a_row_of_the_table(name: str, script: ModuleType) -> None:
    answer = script.answer(name)
    (row,) = [line for line in script.written_table().splitlines() if line.startswith(f"| {answer.family} |")]
    if answer.norms:
        assert f"| {answer.norms} of `{name}` |" in row
    else:
        assert answer.reason in row


def test_the_table_names_its_totals(script: ModuleType) -> None:
    rows = [line.split(" | ") for line in script.written_table().splitlines() if line.startswith("| ")][1:]
    first = script.written_table().splitlines()[0]
    total, taken = (sum(int(row[column]) for row in rows) for column in (1, 2))
    assert f"of {total} models with a LayerNorm, {taken} are converted." in first


@pytest.mark.slow
def test_the_whole_table(script: ModuleType, tmp_path: Path) -> None:
    assert script.table(script.answers(tmp_path / "answers.jsonl")) == script.written_table()
