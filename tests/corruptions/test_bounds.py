"""No compiled loop reads or writes outside its arrays: compiled code does not notice, it only crashes now and then."""

import os
import subprocess
import sys

CODE = """
import numpy as np
from dtn_det.corruptions import ALL, PROFILES, corrupt
rng = np.random.default_rng(0)
sizes = [(32, 32), (33, 57), (57, 33), (32, 200), (201, 32), (64, 64), (131, 97), (224, 224), (256, 320), (593, 600)]
for height, width in sizes:
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    for profile in PROFILES:
        for name in ALL:
            for severity in (1, 2, 3, 4, 5):
                if height * width < 90_000 or profile == "coco-c":
                    corrupt(image, name, severity, key=height, profile=profile)
print("all within bounds")
"""


def test_every_loop_stays_within_its_arrays(tmp_path):
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=False)
    assert "all within bounds" in result.stdout, result.stderr[-2000:]


def test_sizes_whose_enlargement_is_too_short():
    """Snow and zoom blur on sizes where rounding makes an enlarged layer a pixel too short."""
    import numpy as np

    from dtn_det.corruptions import corrupt
    from dtn_det.corruptions.effects.blur import zoom_samples
    from dtn_det.corruptions.profiles import PROFILES

    found = 0
    for name, position in (("snow", 2), ("zoom_blur", None)):
        for severity in (1, 2, 3, 4, 5):
            parameters = PROFILES["coco-c"].parameters(name, severity)
            factors = parameters if position is None else parameters[position : position + 1]
            short = [n for n in range(32, 700) if any(len(zoom_samples(n, f, centred=False)[0]) < n for f in factors)]
            for size in short[:3]:
                found += 1
                image = np.full((size, size, 3), 100, np.uint8)
                first, again = (corrupt(image, name, severity, profile="coco-c") for _ in range(2))
                assert np.array_equal(first, again)
    assert found
