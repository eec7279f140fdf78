"""A small model of the families of timm that are converted: its norms see the right grid, by gradients."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from conversion_models import pass_by, wrong_cells

from dtn_det import convert_norm

timm = pytest.importorskip("timm")

_VIT = {"depth": 2, "embed_dim": 24, "num_heads": 3}
_SWIN = {"embed_dim": 16, "depths": (2, 1, 1, 1), "num_heads": (1, 2, 4, 8)}
_PYRAMID = {"embed_dims": (8, 16, 24, 32), "num_heads": (1, 2, 3, 4), "depths": (1, 1, 1, 1)}


@dataclass(frozen=True)
class Family:
    """A small model of a family.

    Attributes:
        name: Of a model of it.
        kwargs: What makes it small.
        sizes: Of images, in pixels.
        sized: Whether the model is built for one size of images, `img_size`.
        slack: Cells that a token may come from beside its own, where patches overlap.
        behind: Classes or names of the modules in a block that mix tokens before they come to its norms.
    """

    name: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    sizes: tuple[tuple[int, int], ...] = ((64, 96), (96, 64))
    sized: bool = True
    slack: int = 0
    behind: tuple[str, ...] = ()


FAMILIES = (
    Family("vit_tiny_patch16_224", {**_VIT, "patch_size": 8}),
    Family("vit_small_patch14_reg4_dinov2", {**_VIT, "patch_size": 8}),
    Family("vit_base_patch16_siglip_224", {**_VIT, "patch_size": 8}),
    Family("vit_relpos_small_patch16_224", {**_VIT, "patch_size": 8}),
    Family("samvit_base_patch16_224", {**_VIT, "patch_size": 8, "global_attn_indexes": (1,), "window_size": 3}),
    Family("vit_tiny_r_s16_p8_224", _VIT, ((128, 192), (192, 128)), slack=1),
    Family("deit_tiny_distilled_patch16_224", {**_VIT, "patch_size": 8}),
    Family("deit3_small_patch16_224", {**_VIT, "patch_size": 8}),
    Family("beit_base_patch16_224", {**_VIT, "patch_size": 8}),
    Family("eva02_tiny_patch14_224", {**_VIT, "patch_size": 8, "embed_dim": 48}),
    Family("beit3_base_patch16_224", {**_VIT, "patch_size": 8}),
    Family("cait_xxs24_224", {**_VIT, "patch_size": 8}),
    Family("convit_tiny", {"depth": 3, "embed_dim": 24, "num_heads": 3, "local_up_to_layer": 2, "patch_size": 8},
           ((64, 64), (96, 96))),
    Family("coat_lite_tiny", {"embed_dims": (16, 24, 32, 40), "serial_depths": (1, 1, 1, 1)}),
    Family("coat_tiny", {"embed_dims": (16, 16, 16, 16), "serial_depths": (1, 1, 1, 1), "parallel_depth": 1}),
    Family("crossvit_9_240", {"embed_dim": (16, 32), "depth": ((1, 1, 0),), "num_heads": (2, 2),
                              "mlp_ratio": (2, 2, 1)}, ((120, 120), (240, 240))),
    Family("davit_tiny", _PYRAMID | {"embed_dims": (16, 32, 48, 64)}, sized=False, slack=1),
    Family("edgenext_xx_small", {"dims": (8, 16, 24, 32), "depths": (2, 2, 2, 2)}, sized=False, slack=1),
    Family("efficientformer_l1", {"depths": (1, 1, 1, 1), "num_vit": 1}, ((224, 224),), sized=False, slack=1),
    Family("gcvit_xxtiny", {}, ((224, 224),), slack=1),
    Family("hieradet_small", {"embed_dim": 16, "stages": (1, 1, 2, 1), "global_att_blocks": (3,)}, sized=False,
           slack=1),
    Family("maxvit_tiny_tf_224", {}, ((224, 224),), slack=1),
    Family("maxxvit_rmlp_nano_rw_256", {}, ((256, 256),), slack=1),
    Family("caformer_s18", {}, sized=False, slack=1),
    Family("naflexvit_base_patch16_gap", {**_VIT, "patch_size": 8}, sized=False),
    Family("pit_ti_224", {}, ((96, 160), (160, 96)), slack=1),
    Family("pit_ti_distilled_224", {}, ((96, 160), (160, 96)), slack=1),
    Family("pvt_v2_b0", _PYRAMID, sized=False, slack=1),
    Family("qwen3_vit_88m", {**_VIT, "embed_dim": 48}, ((128, 192), (192, 128)), sized=False),
    Family("swin_tiny_patch4_window7_224", _SWIN),
    Family("swinv2_tiny_window8_256", _SWIN, behind=("WindowAttention",)),
    Family("swinv2_cr_tiny_224", _SWIN | {"window_size": (4, 4)}, ((128, 128), (128, 256)),
           behind=("WindowMultiHeadAttention",)),
    Family("tiny_vit_5m_224", {}, sized=False, slack=1, behind=("Attention", "local_conv")),
    Family("twins_pcpvt_small", _PYRAMID, slack=1),
    Family("twins_svt_small", _PYRAMID | {"wss": (4, 4, 4, 4)}),
    Family("volo_d1_224", {}, ((64, 96),), slack=1),
    Family("xcit_nano_12_p16_224", {"depth": 2}, ((128, 192), (192, 128)), slack=1),
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_tokens_lie_where_norms_are_told(family: Family) -> None:
    model = None
    for size in family.sizes:
        if model is None or family.sized:
            settings = {"img_size": size} if family.sized else {}
            model = convert_norm(timm.create_model(family.name, num_classes=2, **family.kwargs, **settings)).eval()
            if family.behind:
                pass_by(model, family.behind)
        assert wrong_cells(model, torch.randn(1, 3, *size), family.slack) == []
