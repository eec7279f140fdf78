# How the authors of SPT and LSA (arXiv:2112.13492) train on small data, as in their code: one GPU, 128 images a batch.
_base_ = ["mmpretrain::_base_/default_runtime.py"]

batch_size = 128
max_epochs = 100
warmup_epochs = 10

train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=10)
val_cfg = dict()
test_cfg = dict()
val_evaluator = dict(type="Accuracy", topk=(1, 5))
test_evaluator = val_evaluator

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.05),
    # They let every parameter decay, norms too. Only what DTN has beside LayerNorm's parameters follows DTN's authors:
    # no decay on the gates, a tenth of the learning rate for the positional coefficients.
    paramwise_cfg=dict(
        custom_keys={
            "mean_norm_weight": dict(decay_mult=0.0),
            "var_norm_weight": dict(decay_mult=0.0),
            "pos_proj": dict(lr_mult=0.1),
        }
    ),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=True, begin=0, end=warmup_epochs, convert_to_iter_based=True),
    dict(
        type="CosineAnnealingLR",
        by_epoch=True,
        begin=warmup_epochs,
        end=max_epochs,
        T_max=max_epochs - warmup_epochs,
        eta_min=1e-5,
        convert_to_iter_based=True,
    ),
]
auto_scale_lr = dict(enable=False, base_batch_size=batch_size)
default_hooks = dict(checkpoint=dict(interval=10, max_keep_ckpts=2))
randomness = dict(seed=0)
