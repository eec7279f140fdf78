"""READMEs and metafiles of the classifiers agree with their configs, and with the sources of published numbers."""

from __future__ import annotations

import functools
import re
from typing import Any

import pytest
import yaml
from classifier_catalog import CONFIGS, DTN_CONFIGS, FOLDERS, ROOT, SL_CONFIGS, build, resolve

DATA = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "svhn": "SVHN", "tiny-imagenet": "Tiny-ImageNet"}
# One of each model at full size; the parameters of the others are those of the same layers.
BUILT = [name for name in CONFIGS if name.endswith("cifar10") or re.search("(swin|vit|pvt)-tiny", name)]


@functools.cache
def models(folder: str) -> list[dict[str, Any]]:
    return yaml.safe_load((ROOT / "configs" / folder / "metafile.yml").read_text())["Models"]


def metadata(name: str) -> dict[str, Any]:
    (found,) = [model["Metadata"] for model in models(CONFIGS[name].parent.name) if model["Name"] == name]
    return found


def rows(folder: str) -> dict[str, list[str]]:
    text = (ROOT / "configs" / folder / "README.md").read_text()
    found = re.findall(r"^\| \[([^\]]+)\]\(\./([^)]+)\.py\) \| (.*) \|$", text, flags=re.MULTILINE)
    assert all(name == link for name, link, _ in found)
    assert len(found) == len({name for name, _, _ in found})
    return {name: cells.split(" | ") for name, _, cells in found}


@pytest.mark.parametrize("name", CONFIGS)
def test_metafile_agrees_with_the_config(name: str) -> None:
    cfg, said = resolve(name), metadata(name)
    assert said["Epochs"] == cfg.train_cfg.max_epochs
    assert cfg.optim_wrapper.optimizer.type in said["Training Techniques"]
    assert ("EMA" in said["Training Techniques"]) == ("custom_hooks" in cfg)
    assert said["Training Data"] == ("ImageNet-1k" if name.endswith("in1k") else DATA[name.rpartition("_")[2]])
    norm = "Dynamic Token Normalization" if name in DTN_CONFIGS else "Layer Normalization"
    assert norm in said["Architecture"]
    for part in ("Shifted Patch Tokenization", "Locality Self-Attention"):
        assert (part in said["Architecture"]) == (name in SL_CONFIGS)


@pytest.mark.parametrize("name", BUILT)
def test_metafile_has_the_parameters(name: str) -> None:
    assert metadata(name)["Parameters"] == sum(parameter.numel() for parameter in build(resolve(name)).parameters())


@pytest.mark.parametrize("folder", FOLDERS)
def test_readme_lists_every_config_once(folder: str) -> None:
    configs = {name for name, path in CONFIGS.items() if path.parent.name == folder}
    found = rows(folder)
    assert {*found} == configs
    for name, (norm, *others, parameters, _, measured) in found.items():
        assert norm == ("DTN" if name in DTN_CONFIGS else "LN")
        assert others == ([] if folder == "dtn_imagenet" else [metadata(name)["Training Data"]])
        assert parameters == f"{metadata(name)['Parameters'] / 1e6:.2f}"
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
