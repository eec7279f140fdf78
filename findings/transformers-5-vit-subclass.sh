#!/usr/bin/env bash
# transformers 5.24.0: a subclass of ViTModel does not get the weights of a folder that ViTModel has saved.
#
# What one would expect: `class Own(ViTModel): pass` reads a folder of ViTModel as ViTModel does, as it did in 4.x and as
# a subclass of ViTForImageClassification does.
# What happens: the saved names are the old ones, which the class is to translate, and a class of another name does not
# translate them. 32 of 40 tensors keep random values; from_pretrained says so in a log line and returns the model. A
# folder that the subclass has saved itself reads well.
#
# Exits with 0 while that is so, and with 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 transformers==5.24.0 safetensors==0.8.0 numpy==2.2.6
cat >"$folder/try.py" <<'PYTHON'
import sys
import tempfile
from importlib.metadata import version

import torch
from transformers import ViTConfig, ViTForImageClassification, ViTModel
from transformers.utils import logging

logging.set_verbosity_error()
logging.disable_progress_bar()


class OwnModel(ViTModel):
    pass


class OwnClassifier(ViTForImageClassification):
    pass


def missing(saved, read):
    """How many of how many tensors are missing, and whether the weights are those that were saved."""
    sizes = {"hidden_size": 16, "intermediate_size": 32, "image_size": 32, "patch_size": 16}
    torch.manual_seed(0)
    model = saved(ViTConfig(num_hidden_layers=2, num_attention_heads=2, **sizes))
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        again, told = read.from_pretrained(folder, output_loading_info=True)
    same = all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    return len(told["missing_keys"]), len(model.state_dict()), same


print("transformers", version("transformers"), "torch", torch.__version__)
seen = {}
for saved, read in (
    (ViTModel, ViTModel),
    (ViTModel, OwnModel),
    (OwnModel, OwnModel),
    (ViTForImageClassification, OwnClassifier),
):
    count, total, same = seen[saved, read] = missing(saved, read)
    print(f"{saved.__name__} read as {read.__name__}: {count} of {total} missing, weights {'kept' if same else 'lost'}")
lost = [pair for pair, (count, _, same) in seen.items() if count or not same]
sys.exit(0 if lost == [(ViTModel, OwnModel)] and seen[ViTModel, OwnModel] == (32, 40, False) else 1)
PYTHON
"$folder/venv/bin/python" "$folder/try.py"
