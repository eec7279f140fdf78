# A detector small enough to train from scratch on two cores, with LayerNorm. What the data decide (window, classes,
# pipelines, length of the training) is left to the configs that inherit it.
_base_ = ["mmdet::atss/atss_r50_fpn_1x_coco.py", "./dtn_import.py"]

gn = dict(type="GN", num_groups=8, requires_grad=True)

model = dict(
    data_preprocessor=dict(pad_size_divisor=4),
    backbone=dict(
        _delete_=True,
        type="DTNSwinTransformer",
        embed_dims=32,
        depths=(1, 1, 2, 1),
        num_heads=(2, 4, 8, 16),
        mlp_ratio=2,
        drop_path_rate=0.0,
        out_indices=(0, 1, 2, 3),
        dtn_stages=(),
    ),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64, norm_cfg=gn, num_outs=4),
    bbox_head=dict(
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        anchor_generator=dict(strides=[8, 16, 32, 64], octave_base_scale=4),
    ),
)

train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = dict(num_workers=0, persistent_workers=False)

optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    optimizer=dict(type="AdamW", weight_decay=0.05),
    clip_grad=dict(max_norm=10.0),
)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(max_keep_ckpts=2))
auto_scale_lr = dict(enable=False, base_batch_size=4)
randomness = dict(seed=0)
