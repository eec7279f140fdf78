_base_ = ["./swin-tiny_8xb128_in1k.py"]

# From scratch, hence the authors' start.
model = dict(backbone=dict(dtn_cfg=dict(init="local"), dtn_stages=(0, 1, 2, 3)))
