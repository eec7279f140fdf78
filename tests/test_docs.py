"""Every command of the pages in docs/ is one that exists, and their Python runs."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dtn_det.cli.main import build_parser

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", flags=re.M | re.S)
PAGES = sorted((ROOT / "docs").glob("*.md"))


def blocks(language: str) -> list[tuple[str, str]]:
    return [(page.name, text) for page in PAGES for found, text in BLOCK.findall(page.read_text()) if found == language]


def commands() -> list[tuple[str, str]]:
    """The calls of `dtn-det`, also through torchrun."""
    lines = [(page, line.strip()) for page, text in blocks("bash") for line in text.splitlines()]
    found = [(page, line.replace("torchrun --nproc-per-node 8 -m dtn_det.cli.main", "dtn-det")) for page, line in lines]
    return [(page, line) for page, line in found if line.startswith("dtn-det ")]


@pytest.mark.parametrize(("page", "command"), commands())
def test_commands_are_understood(page: str, command: str) -> None:
    arguments = shlex.split(command, comments=True)[1:]
    assert build_parser(arguments).parse_args(arguments).command == arguments[0]
    # Configs that pages name lie where they say; variables stand for several.
    for path in re.findall(r"configs/[\w./-]+\.py", command):
        assert (ROOT / path).is_file(), path


@pytest.mark.parametrize(("page", "code"), blocks("python"))
def test_python_runs(
    page: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    # What a block writes must not stay in the project.
    monkeypatch.chdir(tmp_path)
    exec(compile(code, page, "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out


class Boxes(SimpleNamespace):
    """Stands for the results of other libraries: two objects, whose ids may be chosen by a mask."""

    def __init__(self) -> None:
        boxes, scores, ids = np.array([[1, 2, 3, 4], [5, 6, 7, 8]]), np.array([0.5, 0.25]), np.array([18, 12])
        super().__init__(xyxy=boxes, conf=scores, cls=ids, confidence=scores, class_id=ids, boxes=self)

    def __getitem__(self, kept: Any) -> Boxes:
        found = Boxes()
        for key in ("xyxy", "conf", "cls", "confidence", "class_id"):
            setattr(found, key, getattr(self, key)[kept])
        return found


def test_detectors_of_libraries_that_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class Model:
        names = ("dog",)

        def __init__(self, *weights: str) -> None: ...

        def predict(self, images: list[Any], **options: Any) -> Any:
            seen.extend(images)
            # RF-DETR returns a list for several images alone.
            return Boxes() if "threshold" in options and len(images) == 1 else [Boxes() for _ in images]

    for name, values in {
        "ultralytics": {"YOLO": Model},
        "rfdetr": {"RFDETRBase": Model},
        "rfdetr.assets": {},
        "rfdetr.assets.coco_classes": {"COCO_CLASSES": {18: "dog"}},
    }.items():
        module = ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
    images = [np.arange(24, dtype=np.uint8).reshape(2, 4, 3)] * 2
    found: dict[str, Any] = {}
    for _, code in blocks("py"):
        exec(code, found)
    for count in (1, 2):
        for one in found["Yolo"]()(images[:count]), found["RfDetr"]()(images[:count]):
            assert len(one) == count
            assert one[0]["boxes"][0].tolist() == [1, 2, 3, 4]
            assert one[0]["scores"][0] == 0.5
            assert one[0]["category_ids"][0] == 18
    assert len(found["RfDetr"]()(images)[0]["scores"]) == 1
    # Ultralytics takes BGR, RF-DETR RGB.
    np.testing.assert_array_equal(seen[0], images[0][..., ::-1])
    np.testing.assert_array_equal(seen[1], images[0])


def test_param_groups_are_those_of_the_configs() -> None:
    engine = pytest.importorskip("mmengine")
    optim = pytest.importorskip("mmengine.optim")
    (code,) = [text for _, text in blocks("python") if "param_groups = " in text]
    found: dict[str, Any] = {}
    exec(code, found)
    cfg = engine.Config.fromfile(ROOT / "configs" / "_base_" / "dtn_paramwise.py")
    settings = {"type": "AdamW", "lr": found["rate"], "weight_decay": found["decay"]}
    wrapper = optim.build_optim_wrapper(
        found["model"], {"optimizer": settings, "paramwise_cfg": cfg.deit_paramwise_cfg.to_dict()}
    )
    wanted = {id(group["params"][0]): group for group in wrapper.optimizer.param_groups}
    for group, (name, parameter) in zip(found["param_groups"], found["model"].named_parameters(), strict=True):
        same = wanted[id(parameter)]
        assert group["lr"] == pytest.approx(same["lr"]), name
        assert group["weight_decay"] == same["weight_decay"], name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target
