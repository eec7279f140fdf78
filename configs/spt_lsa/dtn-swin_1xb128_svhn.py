_base_ = ["./swin_1xb128_svhn.py"]

# From scratch, hence the authors' start.
model = dict(norm_cfg=dict(type="dtn", init="local"))
