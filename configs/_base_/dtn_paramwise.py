# Weight decay and learning rates as the authors of DTN intend them: no decay on the weight, bias and gates of any norm,
# decay on the positional coefficients, which learn at a tenth of the rate. Of the keys found in a parameter's name the
# longest alone decides, so 'pos_proj' must stay longer than 'norm' (the name is e.g. '...norm1.pos_proj.weight').
swin_paramwise_cfg = dict(
    custom_keys={
        "absolute_pos_embed": dict(decay_mult=0.0),
        "relative_position_bias_table": dict(decay_mult=0.0),
        "norm": dict(decay_mult=0.0),
        "attn.w_msa.scale": dict(decay_mult=0.0),
        "pos_proj": dict(lr_mult=0.1),
    }
)

# PVTv2 has norms whose name does not contain 'norm' (layers.0.2), hence by type. DTN is an nn.LayerNorm, pos_proj inside
# it is not.
pvt_paramwise_cfg = dict(
    norm_decay_mult=0.0,
    custom_keys={
        "pos_embed": dict(decay_mult=0.0),
        "pos_proj": dict(lr_mult=0.1),
        "attn.scale": dict(decay_mult=0.0),
    },
)

# Classifiers from scratch, as in DeiT: only matrices decay; norms, gates and biases have one axis.
deit_paramwise_cfg = dict(
    norm_decay_mult=0.0,
    bias_decay_mult=0.0,
    flat_decay_mult=0.0,
    custom_keys={
        "cls_token": dict(decay_mult=0.0),
        "pos_embed": dict(decay_mult=0.0),
        "relative_position_bias_table": dict(decay_mult=0.0),
        "pos_proj": dict(lr_mult=0.1),
        ".scale": dict(decay_mult=0.0),
    },
)
