#!/usr/bin/env bash
# mmengine 0.10.7: in a checkpoint of a training with EMAHook, `ema_state_dict` holds the weights that are NOT averaged.
#
# What one would expect: `state_dict` are the weights that the optimizer moved, and `ema_state_dict` their exponential
# moving average, as timm's `state_dict` and `state_dict_ema` are.
# What happens: the hook exchanges the two while the file is written, so that `state_dict` is the average, which every
# loader then takes, and `ema_state_dict` holds the optimizer's weights under `module.`.
#
# Exits with 0 while that is so, and with 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 mmengine==0.10.7 numpy==2.2.6 setuptools==81.0.0
cat >"$folder/try.py" <<'PYTHON'
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import DataLoader


class Model(BaseModel):
    """One weight that gradient descent takes from 0 towards 1."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, *inputs, mode="tensor"):
        return {"loss": (self.weight - 1).square().sum()}


with tempfile.TemporaryDirectory() as folder:
    model = Model()
    runner = Runner(
        model,
        folder,
        train_dataloader=DataLoader([[torch.zeros(1)]] * 4),
        train_cfg={"by_epoch": True, "max_epochs": 1},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1}},
        custom_hooks=[{"type": "EMAHook", "momentum": 0.1}],
        default_hooks={"logger": None, "checkpoint": {"type": "CheckpointHook", "interval": 1}},
        log_level="ERROR",
    )
    runner.train()
    file = torch.load(Path(folder) / "epoch_1.pth", map_location="cpu", weights_only=False)

trained = model.weight.item()
under_state, under_ema = file["state_dict"]["weight"].item(), file["ema_state_dict"]["module.weight"].item()
print("mmengine", version("mmengine"), "torch", torch.__version__)
print(f"weight after four steps of the optimizer: {trained:.4f}")
print(f"in the file under state_dict: {under_state:.4f}, under ema_state_dict: {under_ema:.4f}")
swapped = under_ema == trained and 0 < under_state < trained
print("ema_state_dict holds the optimizer's weight" if swapped else "ema_state_dict holds the average")
sys.exit(0 if swapped else 1)
PYTHON
"$folder/venv/bin/python" "$folder/try.py" 2>/dev/null
