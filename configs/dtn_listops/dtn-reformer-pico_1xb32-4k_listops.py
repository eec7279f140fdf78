_base_ = ["./reformer-pico_1xb32-4k_listops.py"]

model = dict(norm_cfg=dict(type="dtn"))
