_base_ = ["../_base_/spt_lsa/t2t.py", "../_base_/spt_lsa/tiny_imagenet.py"]

model = dict(model=dict(backbone=dict(img_size=64, num_splits=3), head=dict(num_classes=_base_.num_classes)))
