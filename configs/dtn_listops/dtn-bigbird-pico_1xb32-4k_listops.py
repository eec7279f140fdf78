_base_ = ["./bigbird-pico_1xb32-4k_listops.py"]

model = dict(norm_cfg=dict(type="dtn"))
