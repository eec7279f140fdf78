"""DTN models by name, as timm creates, saves and loads its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dtn_det.layers import DTN, TokenBatchNorm

timm = pytest.importorskip("timm")

import dtn_det.timm as dtn_timm  # noqa: E402

_SMALL = {"img_size": 32, "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 5}


def small(**kwargs: Any) -> Any:
    return timm.create_model("dtn_vit_small_patch16_224", **{**_SMALL, **kwargs}).eval()


def test_every_name_is_listed_and_has_a_base() -> None:
    names = timm.list_models("dtn_*")
    assert set(names) == {f"dtn_{base}" for base in dtn_timm.BASES} | {"dtn_converted"}
    assert set(dtn_timm.BASES) <= set(timm.list_models())


@pytest.mark.parametrize("base", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "pvt_v2_b0", "levit_128s"])
def test_models_run_at_their_size(base: str) -> None:
    model = timm.create_model(f"dtn_{base}", num_classes=7).eval()
    norms = [module for module in model.modules() if isinstance(module, DTN)]
    assert norms
    assert all(norm.init == "local" for norm in norms)
    with torch.no_grad():
        assert model(torch.randn(1, 3, 224, 224)).shape == (1, 7)


def test_options_are_those_of_a_config() -> None:
    model = small(norm_cfg={"type": "bn", "layers": "blocks"})
    assert sum(isinstance(module, TokenBatchNorm) for module in model.modules()) == 6
    assert sum(isinstance(module, TokenBatchNorm) for module in small(norm_cfg="bn").modules()) == 4
    with pytest.raises(ValueError, match=r"expected norm_cfg to be a config or a name, got 3: write norm_cfg='dtn'"):
        small(norm_cfg=3)
    swin = timm.create_model("dtn_converted", base="deit_tiny_patch16_224", depth=1, norm_cfg={"layers": "blocks"})
    assert sum(isinstance(module, DTN) for module in swin.modules()) == 2


def test_a_folder_of_safetensors_gives_the_model_again(tmp_path: Path) -> None:
    model = small(norm_cfg={"layers": "blocks"})
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    timm.models.save_for_hf(model, str(tmp_path), safe_serialization=True)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architecture"] == "dtn_vit_small_patch16_224"
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again(x), model(x))
    other = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=3)
    assert other(x).shape == (2, 3)


def test_pretrained_starts_from_the_weights_of_layer_norm(tmp_path: Path) -> None:
    base = timm.create_model("vit_small_patch16_224", **_SMALL).eval()
    torch.save(base.state_dict(), tmp_path / "weights.pth")
    model = small(pretrained=True, pretrained_cfg_overlay={"file": str(tmp_path / "weights.pth"), "num_classes": 5})
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = base(x)
        assert (model(x) - expected).abs().max() < 0.02 * expected.abs().max()
    assert next(module for module in model.modules() if isinstance(module, DTN)).init == "layernorm"


@pytest.mark.parametrize(
    ("base", "kwargs"),
    [
        ("vit_small_patch16_224", _SMALL),
        ("swin_tiny_patch4_window7_224", {"depths": (1, 1), "embed_dim": 24, "num_heads": (1, 2)}),
        ("pvt_v2_b0", {}),
        ("levit_128s", {}),
    ],
)
@pytest.mark.parametrize("out_indices", [None, (0, 1)])
def test_features_of_a_folder(
    base: str, kwargs: dict[str, Any], out_indices: tuple[int, ...] | None, tmp_path: Path
) -> None:
    model = timm.create_model(f"dtn_{base}", **kwargs).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    timm.models.save_for_hf(model, str(tmp_path), safe_serialization=True)
    wanted = {} if out_indices is None else {"out_indices": out_indices}
    features = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, features_only=True, **wanted).eval()
    x = torch.randn(2, 3, *([32, 32] if "img_size" in kwargs else [224, 224]))
    with torch.no_grad():
        indices = features.feature_info.out_indices if out_indices is None else out_indices
        expected = model.forward_intermediates(x, indices=list(indices), intermediates_only=True)
        for found, wanted_map in zip(features(x), expected, strict=True):
            first = found if found.shape == wanted_map.shape else found.movedim(-1, 1)  # Swin's are (B, H, W, C)
            torch.testing.assert_close(first, wanted_map)
