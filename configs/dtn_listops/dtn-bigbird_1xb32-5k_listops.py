_base_ = ["./bigbird_1xb32-5k_listops.py"]

model = dict(norm_cfg=dict(type="dtn"))
