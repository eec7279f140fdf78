"""The READMEs of the classifiers' configs agree with their configs, and with the sources of published numbers."""

from __future__ import annotations

import re

import pytest
from classifier_catalog import CONFIGS, DTN_CONFIGS, FOLDERS, ROOT, SL_CONFIGS, build, resolve
from parameter_counts import count_parameters

DATA = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "svhn": "SVHN", "tiny-imagenet": "Tiny-ImageNet"}
# One of each model at full size; the parameters of the others are those of the same layers.
BUILT = [name for name in CONFIGS if name.endswith("cifar10") or re.search("(swin|vit|pvt)-tiny", name)]


def rows(folder: str) -> dict[str, list[str]]:
    text = (ROOT / "configs" / folder / "README.md").read_text()
    found = re.findall(r"^\| \[([^\]]+)\]\(\./([^)]+)\.py\) \| (.*) \|$", text, flags=re.MULTILINE)
    assert all(name == link for name, link, _ in found)
    assert len(found) == len({name for name, _, _ in found})
    return {name: cells.split(" | ") for name, _, cells in found}


@pytest.mark.parametrize("name", BUILT)
def test_readme_has_the_parameters(name: str) -> None:
    count = count_parameters(lambda: build(resolve(name), initialised=False))
    assert rows(CONFIGS[name].parent.name)[name][-3] == f"{count / 1e6:.2f}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_readme_lists_every_config_once(folder: str) -> None:
    configs = {name for name, path in CONFIGS.items() if path.parent.name == folder}
    found = rows(folder)
    assert {*found} == configs
    for name, (norm, *others, _parameters, _published, measured) in found.items():
        assert norm == ("DTN" if name in DTN_CONFIGS else "LN")
        assert others == ([] if folder == "dtn_imagenet" else [DATA[name.rpartition("_")[2]]])
        assert measured == "not measured here"


@pytest.mark.parametrize("folder", FOLDERS)
def test_readme_names_what_is_there(folder: str) -> None:
    text = (ROOT / "configs" / folder / "README.md").read_text()
    for path in re.findall(r"(?:configs|tools)/\S+\.(?:py|sh)", text):
        assert (ROOT / path).is_file(), path
    for path in re.findall(r"\]\((\.\./\.\./[^)]+)\)", text):
        assert (ROOT / "configs" / folder / path).resolve().exists(), path
    for heading in ("Description", "Usage", "Results", "Citation"):
        assert f"\n## {heading}\n" in text
    assert "dtn-det[det,cls]" in text


def test_published_numbers_give_the_gains_of_the_abstract() -> None:
    """On average 2.96 on Tiny-ImageNet, and 4.08 for Swin."""
    published = {name: cells[-2] for name, cells in rows("spt_lsa").items()}
    assert {value for name, value in published.items() if name in DTN_CONFIGS} == {"not published"}
    gains = {
        name: float(published[name]) - float(published[name.removeprefix("sl-")])
        for name in SL_CONFIGS
        if name.endswith("tiny-imagenet")
    }
    assert sum(gains.values()) / len(gains) == pytest.approx(2.96, abs=0.005)
    assert gains["sl-swin_1xb128_tiny-imagenet"] == pytest.approx(4.08)
