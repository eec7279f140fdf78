_base_ = ["./transformer-pico_1xb32-4k_listops.py"]

model = dict(norm_cfg=dict(type="dtn"))
