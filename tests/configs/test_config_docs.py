"""The READMEs of the detectors' configs name every config, and nothing that is not there."""

from __future__ import annotations

import re

import pytest
from config_catalog import CONFIGS, DTN_CONFIGS, FOLDERS, ROOT, resolve
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from parameter_counts import count_parameters


def rows(folder: str) -> dict[str, list[str]]:
    """The cells of the README's table, by the name of the config."""
    text = (ROOT / "configs" / folder / "README.md").read_text()
    found = re.findall(r"^\| \[([^\]]+)\]\(\./([^)]+)\.py\) \| (.*) \|$", text, flags=re.MULTILINE)
    assert all(name == link for name, link, _ in found)
    assert len(found) == len({name for name, _, _ in found})
    return {name: cells.split(" | ") for name, _, cells in found}


@pytest.mark.parametrize("folder", FOLDERS)
def test_readme_lists_every_config_once(folder: str) -> None:
    found = rows(folder)
    assert {*found} == {path.stem for path in (ROOT / "configs" / folder).glob("*.py")}
    for name, (norm, schedule, crops, *_) in found.items():
        cfg = resolve(name)
        assert norm == ("DTN" if name in DTN_CONFIGS else "LN")
        assert schedule == f"{cfg.train_cfg.max_epochs // 12}x"
        assert crops == ("yes" if "RandomChoice" in str(cfg.train_dataloader.dataset.pipeline) else "no")
    text = (ROOT / "configs" / folder / "README.md").read_text()
    for path in re.findall(r"configs/\S+\.py", text):
        assert (ROOT / path).is_file(), path
    for heading in ("Description", "Usage", "Results", "Citation"):
        assert f"\n## {heading}\n" in text


@pytest.mark.parametrize("name", [name for name in CONFIGS if name.startswith("retinanet")])
def test_readme_has_the_parameters_of_the_detector(name: str) -> None:
    register_all_modules()
    count = count_parameters(lambda: MODELS.build(resolve(name).model))
    assert rows(CONFIGS[name].parent.name)[name][3] == f"{count / 1e6:.1f}"
