# With absolute positions, without which so small a Swin does not know where its windows lie, and fewer epochs.
# `--cfg-options model.backbone.spt=True model.backbone.lsa=True` adds the options for small data.
_base_ = ["./swin-pico-p4-w4_8e_cifar10.py"]

max_epochs = 3

model = dict(backbone=dict(use_abs_pos_embed=True))
# The scales of Locality Self-Attention are no weights that should decay.
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys={"attn.scale": dict(decay_mult=0.0), "w_msa.scale": dict(decay_mult=0.0)})
)
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(end=max_epochs, T_max=max_epochs)
