# Long ListOps with the settings of the Long-Range Arena: 5,000 steps of 32 sequences, AdamW with a linear warm-up to
# 0.05 / sqrt(1000) and 0.05 / sqrt(step) behind it.
_base_ = ["mmpretrain::_base_/default_runtime.py", "../dtn_import.py"]

data_root = "data/listops/"
max_tokens = 1999
batch_size = 32
max_iters = 5000
warmup = 1000

model = dict(
    type="SequenceClassifier",
    encoder=dict(
        type="transformer",
        max_tokens=max_tokens,
        embed_dims=512,
        num_layers=6,
        num_heads=8,
        mlp_dims=2048,
        drop_rate=0.1,
    ),
    # `type="dtn"`, or any other name of docs/normalisers.md; `init` has no effect on the others.
    norm_cfg=dict(type="LN", init="local"),
    num_classes=10,
    head_dims=2048,
)

train_dataloader = dict(
    batch_size=batch_size,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(type="ListOps", data_root=data_root, ann_file="basic_train.tsv", max_tokens=max_tokens),
)
val_dataloader = dict(
    batch_size=batch_size,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="ListOps", data_root=data_root, ann_file="basic_val.tsv", max_tokens=max_tokens),
)
test_dataloader = dict(val_dataloader, dataset=dict(val_dataloader["dataset"], ann_file="basic_test.tsv"))
val_evaluator = dict(type="Accuracy", topk=1)
test_evaluator = val_evaluator

train_cfg = dict(by_epoch=False, max_iters=max_iters, val_interval=1000)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(
    optimizer=dict(type="AdamW", lr=0.05 / warmup**0.5, betas=(0.9, 0.98), eps=1e-9, weight_decay=0.1),
    # No decay on the norms' weight, bias and gates; DTN's positional coefficients learn at a tenth of the rate.
    paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys={"pos_proj": dict(lr_mult=0.1)}),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1 / warmup, by_epoch=False, begin=0, end=warmup),
    dict(type="InverseSqrtLR", by_epoch=False, begin=warmup),
]
auto_scale_lr = dict(enable=False, base_batch_size=batch_size)
default_hooks = dict(
    logger=dict(interval=50),
    checkpoint=dict(by_epoch=False, interval=1000, max_keep_ckpts=1),
)
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
