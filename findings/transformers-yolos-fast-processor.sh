#!/usr/bin/env bash
# transformers 4.53.3: YOLOS has other scores and classes with its fast image processor than with its slow one.
#
# What one would expect: `AutoImageProcessor.from_pretrained(..., use_fast=True)` is a faster way to the same detections.
# What happens: YOLOS is trained, like DETR, with a softmax over its classes and "no object", which is the last logit.
# The slow processor takes the softmax and leaves "no object" out, one detection a query. The fast one takes a sigmoid of
# each logit and returns the best pairs of query and class, with "no object" among the classes. A query that found
# nothing with a score of 0.02 becomes a detection of a class that does not exist, with a score of 0.98, and AP falls
# without an error. The slow processor of the same package gives the detections of the training.
#
# Exits with 0 while that is so, and with 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.12.1 torchvision==0.27.1 transformers==4.53.3 numpy==2.2.6 pillow==11.3.0
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
import transformers
from transformers import YolosImageProcessor, YolosImageProcessorFast
from transformers.models.yolos.modeling_yolos import YolosObjectDetectionOutput

transformers.logging.set_verbosity_error()
# Two queries and the logits of two classes and of "no object": the first query found the first class, the second none.
logits = torch.tensor([[[2.0, -1.0, 0.0], [0.0, 0.0, 4.0]]])
boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.2], [0.3, 0.3, 0.1, 0.1]]])
outputs = YolosObjectDetectionOutput(logits=logits, pred_boxes=boxes)
print("transformers", transformers.__version__)
best = {}
for kind in (YolosImageProcessor, YolosImageProcessorFast):
    (found,) = kind().post_process_object_detection(outputs, threshold=0.0, target_sizes=[(100, 100)])
    pairs = [(int(label), round(float(score), 3)) for label, score in zip(found["labels"], found["scores"])]
    print(f"{kind.__name__}: (class, score) {pairs}")
    best[kind] = pairs
softmax = [(int(one.argmax()), round(float(one.max()), 3)) for one in logits.softmax(-1)[0, :, :2]]
print(f"softmax without 'no object': {softmax}")
same = best[YolosImageProcessor] == softmax == [(0, 0.844), (0, 0.018)]
sys.exit(0 if same and best[YolosImageProcessorFast][0] == (2, 0.982) else 1)
PYTHON
