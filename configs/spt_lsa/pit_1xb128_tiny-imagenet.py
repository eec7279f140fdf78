_base_ = ["../_base_/spt_lsa/pit.py", "../_base_/spt_lsa/tiny_imagenet.py"]

model = dict(model=dict(num_classes=_base_.num_classes, img_size=64, patch_size=4, stride=4))
