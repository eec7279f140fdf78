"""READMEs, metafiles and the model index name every config, and nothing that is not there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from config_catalog import CONFIGS, DTN_CONFIGS, FOLDERS, ROOT, resolve
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules

METAFILES = sorted((ROOT / "configs").glob("*/metafile.yml"))


def read_models(metafile: Path) -> list[dict[str, Any]]:
    return yaml.safe_load(metafile.read_text())["Models"]


def test_model_index_imports_every_metafile() -> None:
    index = yaml.safe_load((ROOT / "model-index.yml").read_text())
    assert sorted(index["Import"]) == [str(path.relative_to(ROOT)) for path in METAFILES]
    assert {path.parent.name for path in METAFILES} >= set(FOLDERS)


@pytest.mark.parametrize("metafile", METAFILES, ids=lambda path: path.parent.name)
def test_metafile_names_every_config_of_its_folder(metafile: Path) -> None:
    content = yaml.safe_load(metafile.read_text())
    models = content["Models"]
    configs = {str(path.relative_to(ROOT)): path.stem for path in metafile.parent.glob("*.py")}
    assert {model["Config"]: model["Name"] for model in models} == configs
    assert len(models) == len(configs)
    collections = {collection["Name"] for collection in content["Collections"]}
    for model in models:
        assert model["In Collection"] in collections
        assert (ROOT / model["README"]).is_file()


@pytest.mark.parametrize("folder", FOLDERS)
def test_metafile_agrees_with_the_configs(folder: str) -> None:
    for model in read_models(ROOT / "configs" / folder / "metafile.yml"):
        cfg = resolve(model["Name"])
        metadata = model["Metadata"]
        assert metadata["Epochs"] == cfg.train_cfg.max_epochs
        assert cfg.optim_wrapper.optimizer.type in metadata["Training Techniques"]
        amp = cfg.optim_wrapper.type == "AmpOptimWrapper"
        assert ("Mixed Precision Training" in metadata["Training Techniques"]) == amp
        norm = "Dynamic Token Normalization" if model["Name"] in DTN_CONFIGS else "Layer Normalization"
        assert norm in metadata["Architecture"]
        assert ("Locality Self-Attention" in metadata["Architecture"]) == cfg.model.backbone.get("lsa", False)
        assert ("Shifted Patch Tokenization" in metadata["Architecture"]) == cfg.model.backbone.get("spt", False)


@pytest.mark.parametrize("name", [name for name in CONFIGS if name.startswith("retinanet")])
def test_metafile_has_the_parameters_of_the_detector(name: str) -> None:
    register_all_modules()
    cfg = resolve(name)
    metafile = CONFIGS[name].parent / "metafile.yml"
    (metadata,) = [model["Metadata"] for model in read_models(metafile) if model["Name"] == name]
    assert metadata["Parameters"] == sum(p.numel() for p in MODELS.build(cfg.model).parameters())


@pytest.mark.parametrize("folder", FOLDERS)
def test_readme_lists_every_config_once(folder: str) -> None:
    text = (ROOT / "configs" / folder / "README.md").read_text()
    rows = re.findall(r"^\| \[([^\]]+)\]\(\./([^)]+)\.py\) \| (LN|DTN) \|", text, flags=re.MULTILINE)
    assert sorted(name for name, _, _ in rows) == sorted(p.stem for p in (ROOT / "configs" / folder).glob("*.py"))
    assert all(name == link and (norm == "DTN") == (name in DTN_CONFIGS) for name, link, norm in rows)
    for path in re.findall(r"configs/\S+\.py", text):
        assert (ROOT / path).is_file(), path
    for heading in ("Description", "Usage", "Results", "Citation"):
        assert f"\n## {heading}\n" in text
