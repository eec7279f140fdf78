_base_ = ["./vit-tiny-p16_8xb128_in1k.py"]

model = dict(model=dict(model_name="vit_base_patch16_224"))
