_base_ = ["../_base_/spt_lsa/vit.py", "../_base_/spt_lsa/svhn.py"]

model = dict(model=dict(num_classes=_base_.num_classes))
