_base_ = ["./swin_1xb128_cifar100.py"]

# From scratch, hence the authors' start.
model = dict(norm_cfg=dict(type="dtn", init="local"))
