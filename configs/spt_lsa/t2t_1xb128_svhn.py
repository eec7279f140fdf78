_base_ = ["../_base_/spt_lsa/t2t.py", "../_base_/spt_lsa/svhn.py"]

model = dict(model=dict(head=dict(num_classes=_base_.num_classes)))
