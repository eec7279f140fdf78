"""What the tests of corrupted folders share."""

from __future__ import annotations

import pytest

from dtn_det.corrupted_folders import writing
from dtn_det.corrupted_folders.worker import write_image


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the images of a tree in this process: for tests that are about other things than processes."""
    monkeypatch.setattr(
        writing, "write_images", lambda job, images, workers: (write_image(job, image) for image in images)
    )
