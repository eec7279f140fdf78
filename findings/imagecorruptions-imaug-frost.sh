#!/usr/bin/env bash
# imagecorruptions-imaug 1.1.5: frost is weaker than with imagecorruptions 1.1.2, which it stands in for.
#
# What one would expect: the fork installs the same module and promises the same corruptions on current libraries, so
# that numbers of COCO-C that were measured with the one can be compared with numbers measured with the other.
# What happens: both ship six textures of frost. imagecorruptions 1.0.0 to 1.1.2 draws one of the first five, and so
# COCO-C and ImageNet-C were made; the fork draws one of all six. The sixth is much darker than the others, so frost is
# some 7 per cent weaker in the mean, at every severity.
#
# Exits with 0 while that is so, and with 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/measure.py" <<'PYTHON'
import json
import sys
import warnings
from importlib.metadata import version

warnings.simplefilter("ignore")
import cv2
import numpy as np
from imagecorruptions import corrupt

# A generated image with the brightness of a photograph.
y, x = np.mgrid[:224, :224]
waves = np.stack([np.sin(x / 7 + y / 11), np.cos(x / 13 - y / 5), np.sin(y / 17 + x / 9)], axis=-1)
image = np.clip(115 + 60 * waves + np.random.default_rng(0).normal(0, 10, waves.shape), 0, 255).astype(np.uint8)

read, names = cv2.imread, []


def imread(path, *options):
    names.append(str(path).rpartition("/")[2])
    return read(path, *options)


cv2.imread = imread
np.random.seed(0)
changes = [
    np.sqrt(np.square(corrupt(image, corruption_name="frost", severity=3).astype(float) - image).mean())
    for _ in range(600)
]
print(f"{sys.argv[1]} {version(sys.argv[1])}: {len(set(names))} textures in 600 draws: {', '.join(sorted(set(names)))}")
print(f"  root mean square change at severity 3: {np.mean(changes):.1f} +- {np.std(changes) / 600**0.5:.1f} grey levels")
print(json.dumps([len(set(names)), np.mean(changes)]), file=open(sys.argv[2], "w"))
PYTHON
old="imagecorruptions==1.1.2 setuptools==80.10.2 numpy==1.26.4 scipy==1.12.0 scikit-image==0.22.0 pillow==10.4.0"
old="$old opencv-python==4.10.0.84"
new="imagecorruptions-imaug==1.1.5 setuptools==80.10.2 numpy==2.2.6 scipy==1.15.3 scikit-image==0.25.2 pillow==11.3.0"
new="$new opencv-python==4.12.0.88 numba==0.61.2"
for pins in "$old" "$new"; do
    name=${pins%%==*}
    python3 -m venv "$folder/$name"
    # shellcheck disable=SC2086  # one requirement a word
    "$folder/$name/bin/pip" install --quiet --disable-pip-version-check $pins
    "$folder/$name/bin/python" "$folder/measure.py" "$name" "$folder/$name.json"
done
python3 - "$folder" <<'PYTHON'
import json
import sys

five, six = (json.load(open(f"{sys.argv[1]}/{name}.json")) for name in ("imagecorruptions", "imagecorruptions-imaug"))
print(f"the fork's frost is {six[1] / five[1]:.3f} times as strong")
sys.exit(0 if (five[0], six[0]) == (5, 6) and six[1] < 0.97 * five[1] else 1)
PYTHON
