_base_ = ["./swin-pico-p4-w4_8e_cifar10.py"]

# From scratch, hence the authors' form of the layer and their start.
model = dict(backbone=dict(dtn_cfg=dict(init="local"), dtn_stages=(0, 1)))
