_base_ = ["../_base_/spt_lsa/swin.py", "../_base_/spt_lsa/tiny_imagenet.py"]

model = dict(
    model=dict(
        backbone=dict(pretrain_img_size=64, patch_size=4, strides=(4, 2, 2)), head=dict(num_classes=_base_.num_classes)
    )
)
