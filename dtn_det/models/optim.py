"""Weight decay and learning rates of DTN's parameters."""

from typing import Any

PARAMWISE_CFG: dict[str, Any] = {
    "norm_decay_mult": 0.0,
    "custom_keys": {
        # Longest match first, and a match switches the other rules off: this one also has to survive a base config
        # with a key "norm", which would take the kernels for norm weights.
        "pos_proj": {"lr_mult": 0.1, "decay_mult": 1.0},
        "pos_embed": {"decay_mult": 0.0},
        "relative_position_bias_table": {"decay_mult": 0.0},
    },
}
"""``paramwise_cfg`` for ``optim_wrapper``: what the authors of DTN meant to decay.

No weight decay on the weight and bias of any norm, on DTN's gates and on position tables (``pos_embed`` is part of
``absolute_pos_embed``). DTN's kernels, ``pos_proj``, decay and learn at a tenth of the rate; the released code means
to do the same and its test of the name never holds. It serves LayerNorm backbones unchanged.
"""
