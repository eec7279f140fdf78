"""No compiled loop reads or writes outside its arrays: compiled code does not notice, it only crashes now and then."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numba.extending import is_jitted

from dtn_det.corruptions import corrupt
from dtn_det.corruptions.effects import frost
from dtn_det.corruptions.effects.blur import zoom_samples
from dtn_det.corruptions.profiles import PROFILES
from dtn_det.corruptions.stream import Stream

CODE = """
import sys
import numpy as np
from dtn_det.corruptions import PROFILES, corrupt
rng = np.random.default_rng(0)
for height, width in eval(sys.argv[1]):
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    for profile, rules in PROFILES.items():
        # Corruptions that are defined for squares get the largest one in the image.
        part = image[:min(height, width), :min(height, width)] if rules.square else image
        for name in rules.catalog.names:
            for severity in (1, 2, 3, 4, 5):
                if height * width < 90_000 or profile == "coco-c":
                    corrupt(part, name, severity, key=height, profile=profile)
print("all within bounds")
"""
SIZES = ((32, 32), (33, 57), (57, 33), (32, 200), (201, 32), (64, 64), (131, 97), (224, 224), (256, 320), (593, 600))


@pytest.fixture
def in_python(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Has the loops run in Python, which refuses an index outside an array as numba does when it is told to."""

    def replace() -> None:
        modules = [module for name, module in sys.modules.items() if name.startswith("dtn_det.corruptions")]
        compiled = [(module, *each) for module in modules for each in vars(module).items() if is_jitted(each[1])]
        assert len(compiled) > 40
        for module, name, loop in compiled:
            monkeypatch.setattr(module, name, loop.py_func)

    return replace


def test_every_loop_stays_within_its_arrays_and_gives_what_it_gives_in_python(in_python: Callable[[], None]) -> None:
    rng = np.random.default_rng(0)
    cases = []
    for height, width, severity in ((32, 32, 5), (33, 57, 3), (75, 32, 1)):
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        for profile, rules in PROFILES.items():
            # Corruptions that are defined for squares get the largest one in the image.
            part = image[: min(height, width), : min(height, width)] if rules.square else image
            cases += [(part, name, severity, profile) for name in rules.catalog.names]

    def corrupted() -> list[np.ndarray]:
        return [corrupt(part, *names, key="a", profile=profile, jpeg=False) for part, *names, profile in cases]

    compiled = corrupted()
    in_python()
    for case, expected, found in zip(cases, compiled, corrupted(), strict=True):
        # Fused multiplications let a few values fall on the other side of a whole number.
        difference = np.abs(expected.astype(int) - found)
        assert difference.max() <= 1, case[1:]
        assert (difference > 0).mean() < 0.01, case[1:]


@pytest.mark.parametrize("number", range(6))
def test_strokes_of_frost_stay_within_their_drawing(in_python: Callable[[], None], number: int) -> None:
    draw, _ = frost._DRAWINGS[number]
    expected = draw(Stream(0, "a", "frost", 0), (40, 64))
    in_python()
    np.testing.assert_allclose(draw(Stream(0, "a", "frost", 0), (40, 64)), expected, atol=1e-3)


@pytest.mark.slow
def test_every_loop_stays_within_its_arrays_at_all_sizes(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", CODE, repr(SIZES)]
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
