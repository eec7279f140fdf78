"""No compiled loop reads or writes outside its arrays: compiled code does not notice, it only crashes now and then."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dtn_det.corruptions import corrupt
from dtn_det.corruptions.effects.blur import zoom_samples
from dtn_det.corruptions.profiles import PROFILES

CODE = """
import sys
import numpy as np
from dtn_det.corruptions import PROFILES, corrupt
rng = np.random.default_rng(0)
sizes, severities = eval(sys.argv[1])
for height, width in sizes:
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    for profile, rules in PROFILES.items():
        # Corruptions that are defined for squares get the largest one in the image.
        part = image[:min(height, width), :min(height, width)] if rules.square else image
        for name in rules.catalog.names:
            for severity in severities:
                if height * width < 90_000 or profile == "coco-c":
                    corrupt(part, name, severity, key=height, profile=profile)
print("all within bounds")
"""
SOME = ((32, 32), (33, 57), (32, 200), (97, 64), (131, 97))
ALL = ((32, 32), (33, 57), (57, 33), (32, 200), (201, 32), (64, 64), (131, 97), (224, 224), (256, 320), (593, 600))


@pytest.mark.parametrize(
    ("sizes", "severities"),
    [
        pytest.param(SOME, (1, 3, 5), id="some"),
        pytest.param(ALL, (1, 2, 3, 4, 5), id="all", marks=pytest.mark.slow),
    ],
)
def test_every_loop_stays_within_its_arrays(
    request: pytest.FixtureRequest, tmp_path: Path, sizes: object, severities: object
) -> None:
    cache = getattr(request.config, "cache", None)  # absent with -p no:cacheprovider
    # Numba tells by the times of the files what it has to compile again.
    compiled = tmp_path if cache is None else cache.mkdir("numba_boundscheck")
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(compiled)}
    command = [sys.executable, "-c", CODE, repr((sizes, severities))]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "all within bounds" in result.stdout, result.stderr[-2000:]


def test_sizes_whose_enlargement_is_too_short() -> None:
    """Snow and zoom blur on sizes where rounding makes an enlarged layer a pixel too short."""
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
