# A variant for a CPU: sequences of 11 to 63 tokens (`dtn-det listops --min-length 10 --max-length 64`), two blocks of
# width 64, 4,000 steps.
_base_ = ["./arena.py"]

max_tokens = 63
max_iters = 4000
warmup = 400

model = dict(
    encoder=dict(max_tokens=max_tokens, embed_dims=64, num_layers=2, num_heads=4, mlp_dims=128, drop_rate=0.0),
    head_dims=128,
)

train_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(max_tokens=max_tokens))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(max_tokens=max_tokens))
test_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(max_tokens=max_tokens))

train_cfg = dict(max_iters=max_iters, val_interval=1000)
optim_wrapper = dict(optimizer=dict(lr=2e-3), clip_grad=dict(max_norm=1.0))
param_scheduler = [
    dict(type="LinearLR", start_factor=1 / warmup, by_epoch=False, begin=0, end=warmup),
    dict(type="InverseSqrtLR", by_epoch=False, begin=warmup),
]
