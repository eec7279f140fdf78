# Swin for small images: 16 x 16 patches in three stages with windows of 4 x 4, on images of 32 x 32 pixels.
_base_ = ["../dtn_import.py"]

model = dict(
    type="ConvertedModel",
    model=dict(
        type="ImageClassifier",
        backbone=dict(
            type="mmdet.DTNSwinTransformer",
            pretrain_img_size=32,
            patch_size=2,
            strides=(2, 2, 2),
            embed_dims=96,
            depths=(2, 6, 4),
            num_heads=(3, 6, 12),
            window_size=4,
            mlp_ratio=2,
            use_abs_pos_embed=True,  # SPT and LSA or not, as in the authors' code
            drop_path_rate=0.1,
            out_indices=(2,),
            shift_small_maps=False,
            dtn_stages=(),  # norm_cfg converts the norms of the blocks
        ),
        neck=dict(type="GlobalAveragePooling"),
        head=dict(
            type="LinearClsHead",
            in_channels=384,
            loss=dict(type="LabelSmoothLoss", label_smooth_val=0.1, mode="original"),
        ),
    ),
    norm_cfg=dict(type="LN"),
    spt=False,
    lsa=False,
)
