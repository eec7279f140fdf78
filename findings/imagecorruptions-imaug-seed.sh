#!/usr/bin/env bash
# imagecorruptions-imaug 1.1.5: numpy.random.seed no longer makes impulse noise and glass blur repeatable.
#
# What one would expect: corrupt() has no argument for a seed and draws from NumPy's global generator, so seeding that
# before each call gives the same picture again. It does so for the other random corruptions, and imagecorruptions
# users are told to do it.
# What happens: two of the nineteen draw from generators of their own, which corrupt() seeds anew from the operating
# system. They give another picture at each call, whatever the seed of NumPy.
#
# Exits with 0 while that is so, and with 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    imagecorruptions-imaug==1.1.5 setuptools==80.10.2 numpy==2.2.6 scipy==1.15.3 scikit-image==0.25.2 \
    pillow==11.3.0 opencv-python==4.12.0.88 numba==0.61.2
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import warnings
from importlib.metadata import version

warnings.simplefilter("ignore")
import numpy as np
from imagecorruptions import corrupt, get_corruption_names

y, x = np.mgrid[:224, :224]
waves = np.stack([np.sin(x / 7 + y / 11), np.cos(x / 13 - y / 5), np.sin(y / 17 + x / 9)], axis=-1)
image = np.clip(128 + 90 * waves + np.random.default_rng(0).normal(0, 10, waves.shape), 0, 255).astype(np.uint8)


def seeded(name):
    np.random.seed(0)
    return corrupt(image, corruption_name=name, severity=3)


names = get_corruption_names("all")
changing = [name for name in names if not np.array_equal(seeded(name), seeded(name))]
print("imagecorruptions-imaug", version("imagecorruptions-imaug"))
print(f"{len(names)} corruptions, each called twice after numpy.random.seed(0); two pictures came from:", *changing)
sys.exit(0 if set(changing) == {"impulse_noise", "glass_blur"} else 1)
PYTHON
