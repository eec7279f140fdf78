_base_ = ["./vit-pico-p4_3e_cifar10.py"]

# The first 10 of 12 blocks in the paper, hence the first 3 of 4.
model = dict(norm_cfg=dict(type="dtn"))
