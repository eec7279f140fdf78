from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from config_catalog import CONFIGS, ROOT, resolve, shrink
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.analysis import get_model_complexity_info
from mmengine.config import Config
from mmengine.hub import get_config
from torch import nn

from dtn_det.cli.main import main
from dtn_det.cost.complexity import Complexity, config_complexity, model_complexity
from dtn_det.layers import DTN

RETINANET = "retinanet_dtn-swin-t-p4-w7_fpn_1x_coco"
MASK_RCNN = "mask-rcnn_dtn-pvt-t_fpn_1x_coco"
CASCADE = "cascade-mask-rcnn_dtn-swin-t-p4-w7_fpn_4conv1fc-giou_ms-crop-3x_coco"
SMALL = (64, 96)


@pytest.fixture(scope="module")
def retinanet() -> Complexity:
    return config_complexity(shrink(resolve(RETINANET)), SMALL)


def build(cfg: Config) -> nn.Module:
    register_all_modules()
    return MODELS.build(cfg.model).eval()


@pytest.mark.parametrize("name", [RETINANET, MASK_RCNN, CASCADE, "retinanet_dtn-pvtv2-b0_fpn_1x_coco"])
def test_dtn_minus_its_twin_is_what_the_layers_cost(name: str) -> None:
    dtn = config_complexity(shrink(resolve(name)), SMALL)
    twin = config_complexity(shrink(resolve(name.replace("_dtn-", "_"))), SMALL)
    assert dtn.total.ln_flops == twin.total.flops == twin.total.ln_flops
    assert dtn.total.ln_params == twin.total.params
    assert dtn.total.flops - twin.total.flops == dtn.dtn.total - dtn.dtn.layer_norm
    assert dtn.layers
    assert not twin.layers
    for config, result in ((resolve(name), dtn), (resolve(name.replace("_dtn-", "_")), twin)):
        assert result.total.params == sum(p.numel() for p in build(shrink(config)).parameters())
    # No part counts less than nothing, as it would if an operation belonged to two.
    assert all(min(row.params, row.flops, row.ln_params, row.ln_flops) >= 0 for row in dtn.rows)


def test_twin_costs_what_mmengine_counts(retinanet: Complexity) -> None:
    twin = build(shrink(resolve(RETINANET.replace("_dtn-", "_"))))
    theirs = get_model_complexity_info(twin, input_shape=(3, *SMALL), show_table=False, show_arch=False)
    assert retinanet.total.ln_flops == theirs["flops"]
    assert retinanet.total.ln_params == theirs["params"]


@pytest.mark.parametrize("name", ["retinanet_swin-t-p4-w7_fpn_1x_coco", "retinanet_pvt-t_fpn_1x_coco"])
def test_locality_costs_what_its_parts_cost(name: str) -> None:
    """Fused attention as much as plain attention; tokenization its norm and its linear layer."""
    plain, attention, both = (shrink(resolve(name)) for _ in range(3))
    attention.model.backbone.lsa = True
    both.model.backbone.update(spt=True, lsa=True)
    plain, attention, both = (config_complexity(cfg, SMALL) for cfg in (plain, attention, both))
    assert attention.total.flops == plain.total.flops
    assert attention.total.params > plain.total.params
    widths = [24, 48, 96, 192] if "swin" in name else [8, 16, 40, 64]
    tokens = [16 * 24, 8 * 12, 4 * 6, 2 * 3]
    added = 0
    for number, out_width, in_width, patch in zip(tokens, widths, [3, *widths], [4, 2, 2, 2], strict=False):
        features = in_width * patch**2
        shifted = 5 * features * (out_width + 5)  # the linear layer; 5 FLOPs an element for the norm
        merging = "swin" in name and in_width != 3
        old = features * (out_width + 5) if merging else features * out_width + 5 * out_width
        added += number * (shifted - old)
    assert both.total.flops - attention.total.flops == added


def test_detectors_of_mmdetection_cost_what_mmengine_counts() -> None:
    cfg = get_config("mmdet::retinanet/retinanet_r18_fpn_1x_coco.py")
    result = config_complexity(cfg, SMALL)
    cfg.model.backbone.init_cfg = None
    theirs = get_model_complexity_info(build(cfg), input_shape=(3, *SMALL), show_table=False, show_arch=False)
    assert result.total.flops == result.total.ln_flops == theirs["flops"]
    assert result.total.params == theirs["params"]
    assert {row.part for row in result.rows} >= {"backbone.layer1", "neck", "bbox_head"}


def test_layers_meet_the_grids_of_their_stages(retinanet: Complexity) -> None:
    grids = {layer.name.split(".blocks")[0]: (layer.height, layer.width, layer.channels) for layer in retinanet.layers}
    assert grids == {
        "backbone.stages.0": (16, 24, 24),
        "backbone.stages.1": (8, 12, 48),
        "backbone.stages.2": (4, 6, 96),
        "backbone.stages.3": (2, 3, 192),
    }
    # Two norms in each of 1 + 2 + 1 + 1 blocks.
    assert len(retinanet.layers) == 10
    stage = sum(x.flops.total for x in retinanet.layers if x.name.startswith("backbone.stages.1."))
    assert next(row.flops for row in retinanet.rows if (row.part, row.kind) == ("backbone.stages.1", "dtn")) == stage


def test_model_is_left_as_it_was() -> None:
    model = build(shrink(resolve(RETINANET)))
    images = torch.rand(1, 3, *SMALL)
    before = model.backbone(images)
    model_complexity(model, images)
    assert all(torch.equal(a, b) for a, b in zip(before, model.backbone(images), strict=True))
    assert "forward" not in vars(model)
    assert not any("forward" in vars(module) for module in model.modules() if isinstance(module, DTN))


def test_tables_agree(retinanet: Complexity) -> None:
    data = json.loads(json.dumps(retinanet.to_dict()))
    assert data["total"] == dataclasses.asdict(retinanet.total)
    assert len(data["layers"]) == len(retinanet.layers)
    frame = pd.read_csv(io.StringIO(retinanet.to_csv()))
    assert frame["flops"].iloc[:-1].sum() == frame["flops"].iloc[-1] == retinanet.total.flops
    markdown = retinanet.to_markdown()
    assert f"| total |  | {retinanet.total.params / 1e6:.3f} | {retinanet.total.flops / 1e9:.3f} |" in markdown
    assert markdown.count("\n| backbone.") == sum(row.part.startswith("backbone.") for row in retinanet.rows)


@pytest.fixture
def small_config(tmp_path: Path) -> str:
    path = tmp_path / "small.py"
    shrink(resolve(RETINANET)).dump(str(path))
    return str(path)


def test_command_prints_every_format(
    small_config: str, retinanet: Complexity, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = ["--shape", "64", "96"]
    assert main(["complexity", small_config, *shape, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["total"]["flops"] == retinanet.total.flops

    def count(*_: object) -> Complexity:
        print("MMDetection prints as it loads and builds")
        return retinanet

    monkeypatch.setattr("dtn_det.cost.complexity.config_complexity", count)
    assert main(["complexity", small_config, *shape, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(retinanet.to_dict()))
    assert main(["complexity", small_config, *shape, "--csv"]) == 0
    assert capsys.readouterr().out == retinanet.to_csv()
    assert main(["complexity", small_config, *shape, "--markdown"]) == 0
    assert capsys.readouterr().out.strip() == retinanet.to_markdown()
    assert main(["complexity", small_config, *shape]) == 0
    table = capsys.readouterr().out
    assert f"{retinanet.total.flops / 1e9:.3f}" in table
    assert "10 DTN layers" in table


def test_command_says_when_there_is_no_dtn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "twin.py"
    shrink(resolve(RETINANET.replace("_dtn-", "_"))).dump(str(path))
    assert main(["complexity", str(path), "--shape", "64", "64"]) == 0
    assert "No DTN layers." in capsys.readouterr().out


def test_command_names_a_config_that_is_not_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["complexity", "configs/dtn_swin/retinanet_dtn-swin-t_fpn_1x_coco.py"]) == 1
    error = capsys.readouterr().err
    assert "there is no such file; did you mean " in error
    assert "configs/dtn_swin/retinanet_dtn-swin-t-p4-w7_fpn_1x_coco.py" in error


def test_command_wants_a_file_not_a_folder(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["complexity", "configs/dtn_swin"]) == 1
    assert "dtn-det: error: expected a config file, got the folder 'configs/dtn_swin': name" in capsys.readouterr().err


def test_config_needs_a_model() -> None:
    with pytest.raises(ValueError, match="expected a config with a model, got none"):
        config_complexity(Config({"custom_imports": {}}))


def test_input_must_not_be_tiny() -> None:
    with pytest.raises(ValueError, match="expected an input of at least 32 x 32 pixels, got 16 x 64"):
        config_complexity(resolve(RETINANET), (16, 64))


def test_detector_must_be_traceable() -> None:
    class NeedsText(nn.Module):
        def forward(self, images: torch.Tensor, data_samples: list, mode: str) -> None:
            raise KeyError("text")

    with pytest.raises(ValueError, match=r"can be traced at \(64, 96\), got NeedsText \(KeyError: 'text'\)"):
        model_complexity(NeedsText(), torch.rand(1, 3, *SMALL))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "published_params", "published_flops"),
    [("mask-rcnn_dtn-swin-t-p4-w7_fpn_1x_coco", 48, 267), (CASCADE, 86, 745)],
)
def test_published_figures_of_swin(name: str, published_params: int, published_flops: int) -> None:
    """The table of the Swin authors' detection repository, at 1280 x 800."""
    result = config_complexity(Config.fromfile(CONFIGS[name]), (800, 1280))
    assert round(result.total.ln_params / 1e6) == published_params
    assert result.total.ln_flops / 1e9 == pytest.approx(published_flops, abs=1)
