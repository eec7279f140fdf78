_base_ = ["./atss_swin-nano_fpn_24e_bccd.py"]

# From scratch, hence the authors' form of the layer and their start.
model = dict(backbone=dict(dtn_cfg=dict(init="local"), dtn_stages=(0, 1, 2, 3)))
