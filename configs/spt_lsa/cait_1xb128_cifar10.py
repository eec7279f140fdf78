_base_ = ["../_base_/spt_lsa/cait.py", "../_base_/spt_lsa/cifar10.py"]

model = dict(model=dict(num_classes=_base_.num_classes))
