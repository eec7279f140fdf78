_base_ = ["./pvt-small_8xb128_in1k.py"]

# From scratch, hence the authors' start; stages 1 to 3, as theirs.
model = dict(backbone=dict(dtn_cfg=dict(init="local"), dtn_stages=(0, 1, 2)))
