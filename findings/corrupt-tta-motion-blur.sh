#!/usr/bin/env bash
# corrupt-tta 0.1.7: motion blur is the same at severities 2, 3 and 4.
#
# What one would expect: five severities of motion blur, each stronger than the one before, as in ImageNet-C, whose
# table (radius, sigma) = (10, 3), (15, 5), (15, 8), (15, 12), (20, 15) the package repeats.
# What happens: its blur is a line of equal weights that takes the radius and never reads the sigma. The radius is 15 at
# severities 2, 3 and 4, so that with the same random numbers all three give one and the same picture.
#
# Exits with 0 while that is so, and with 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    corrupt-tta==0.1.7 numpy==2.2.6 scipy==1.15.3 scikit-image==0.25.2 pillow==11.3.0 opencv-python==4.12.0.88
"$folder/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
from corrupt_tta import corrupt

y, x = np.mgrid[:224, :224]
waves = np.stack([np.sin(x / 7 + y / 11), np.cos(x / 13 - y / 5), np.sin(y / 17 + x / 9)], axis=-1)
image = np.clip(128 + 90 * waves + np.random.default_rng(0).normal(0, 10, waves.shape), 0, 255).astype(np.uint8)

blurred = {}
for severity in range(1, 6):
    np.random.seed(0)  # the same direction of motion each time
    blurred[severity] = corrupt(image, severity=severity, corruption_name="motion_blur")

print("corrupt-tta", version("corrupt-tta"))
for severity, picture in blurred.items():
    change = np.sqrt(np.square(picture - image).mean())
    print(f"severity {severity}: root mean square change {change:.3f} grey levels")
same = np.array_equal(blurred[2], blurred[3]) and np.array_equal(blurred[3], blurred[4])
others = np.array_equal(blurred[1], blurred[2]) or np.array_equal(blurred[4], blurred[5])
print("severities 2, 3 and 4 are one picture" if same else "severities 2, 3 and 4 differ")
sys.exit(0 if same and not others else 1)
PYTHON
