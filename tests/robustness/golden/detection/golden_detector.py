"""A small Mask R-CNN, as the golden store of detections was made with it."""

# ruff: noqa: C408
custom_imports = dict(allow_failed_imports=False, imports=["dtn_det"])
data_root = "data/"
default_scope = "mmdet"
model = dict(
    _scope_="mmdet",
    backbone=dict(
        attn_drop_rate=0.0,
        convert_weights=True,
        depths=[1, 2, 1, 1],
        drop_path_rate=0.2,
        drop_rate=0.0,
        dtn_cfg=dict(init="layernorm"),
        dtn_stages=(0, 1, 2, 3),
        embed_dims=24,
        init_cfg=None,
        mlp_ratio=4,
        num_heads=[3, 6, 12, 24],
        out_indices=(0, 1, 2, 3),
        patch_norm=True,
        qk_scale=None,
        qkv_bias=True,
        type="DTNSwinTransformer",
        window_size=7,
        with_cp=False,
    ),
    data_preprocessor=dict(
        bgr_to_rgb=True,
        mean=[123.675, 116.28, 103.53],
        pad_mask=True,
        pad_size_divisor=32,
        std=[58.395, 57.12, 57.375],
        type="DetDataPreprocessor",
    ),
    neck=dict(in_channels=[24, 48, 96, 192], num_outs=5, out_channels=16, type="FPN"),
    roi_head=dict(
        bbox_head=dict(
            bbox_coder=dict(
                target_means=[0.0, 0.0, 0.0, 0.0], target_stds=[0.1, 0.1, 0.2, 0.2], type="DeltaXYWHBBoxCoder"
            ),
            fc_out_channels=16,
            in_channels=16,
            loss_bbox=dict(loss_weight=1.0, type="L1Loss"),
            loss_cls=dict(loss_weight=1.0, type="CrossEntropyLoss", use_sigmoid=False),
            num_classes=3,
            reg_class_agnostic=False,
            roi_feat_size=7,
            type="Shared2FCBBoxHead",
        ),
        bbox_roi_extractor=dict(
            featmap_strides=[4, 8, 16, 32],
            out_channels=16,
            roi_layer=dict(output_size=7, sampling_ratio=0, type="RoIAlign"),
            type="SingleRoIExtractor",
        ),
        mask_head=dict(
            conv_out_channels=16,
            in_channels=16,
            loss_mask=dict(loss_weight=1.0, type="CrossEntropyLoss", use_mask=True),
            num_classes=3,
            num_convs=4,
            type="FCNMaskHead",
        ),
        mask_roi_extractor=dict(
            featmap_strides=[4, 8, 16, 32],
            out_channels=16,
            roi_layer=dict(output_size=14, sampling_ratio=0, type="RoIAlign"),
            type="SingleRoIExtractor",
        ),
        type="StandardRoIHead",
    ),
    rpn_head=dict(
        anchor_generator=dict(ratios=[0.5, 1.0, 2.0], scales=[8], strides=[4, 8, 16, 32, 64], type="AnchorGenerator"),
        bbox_coder=dict(target_means=[0.0, 0.0, 0.0, 0.0], target_stds=[1.0, 1.0, 1.0, 1.0], type="DeltaXYWHBBoxCoder"),
        feat_channels=16,
        in_channels=16,
        loss_bbox=dict(loss_weight=1.0, type="L1Loss"),
        loss_cls=dict(loss_weight=1.0, type="CrossEntropyLoss", use_sigmoid=True),
        type="RPNHead",
    ),
    test_cfg=dict(
        rcnn=dict(mask_thr_binary=0.5, max_per_img=30, nms=dict(iou_threshold=0.5, type="nms"), score_thr=0.0),
        rpn=dict(max_per_img=32, min_bbox_size=0, nms=dict(iou_threshold=0.7, type="nms"), nms_pre=32),
    ),
    train_cfg=dict(
        rcnn=dict(
            assigner=dict(
                ignore_iof_thr=-1,
                match_low_quality=True,
                min_pos_iou=0.5,
                neg_iou_thr=0.5,
                pos_iou_thr=0.5,
                type="MaxIoUAssigner",
            ),
            debug=False,
            mask_size=28,
            pos_weight=-1,
            sampler=dict(add_gt_as_proposals=True, neg_pos_ub=-1, num=32, pos_fraction=0.25, type="RandomSampler"),
        ),
        rpn=dict(
            allowed_border=-1,
            assigner=dict(
                ignore_iof_thr=-1,
                match_low_quality=True,
                min_pos_iou=0.3,
                neg_iou_thr=0.3,
                pos_iou_thr=0.7,
                type="MaxIoUAssigner",
            ),
            debug=False,
            pos_weight=-1,
            sampler=dict(add_gt_as_proposals=False, neg_pos_ub=-1, num=32, pos_fraction=0.5, type="RandomSampler"),
        ),
        rpn_proposal=dict(max_per_img=32, min_bbox_size=0, nms=dict(iou_threshold=0.7, type="nms"), nms_pre=32),
    ),
    type="MaskRCNN",
)
test_dataloader = dict(
    batch_size=1,
    dataset=dict(
        _scope_="mmdet",
        ann_file="coco.json",
        backend_args=None,
        data_prefix=dict(img="images/"),
        data_root="data/",
        metainfo=dict(classes=("disc", "square", "bar")),
        pipeline=[
            dict(backend_args=None, type="LoadImageFromFile"),
            dict(keep_ratio=True, scale=(64, 64), type="Resize"),
            dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
            dict(meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"), type="PackDetInputs"),
        ],
        test_mode=True,
        type="CocoDataset",
    ),
    drop_last=False,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(_scope_="mmdet", shuffle=False, type="DefaultSampler"),
)
