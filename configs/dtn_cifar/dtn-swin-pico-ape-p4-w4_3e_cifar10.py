_base_ = ["./swin-pico-ape-p4-w4_3e_cifar10.py"]

model = dict(backbone=dict(dtn_cfg=dict(init="local"), dtn_stages=(0, 1)))
