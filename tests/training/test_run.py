"""The ends of a training run, told in a line."""

from __future__ import annotations

import types
from pathlib import Path

from dtn_det.training.run import _interrupted


def test_an_interrupt_while_the_name_of_a_checkpoint_is_written(tmp_path: Path) -> None:
    """MMEngine opens `last_checkpoint` and then writes into it: it may be empty."""
    runner = types.SimpleNamespace(work_dir=str(tmp_path), epoch=0, iter=4)
    (tmp_path / "last_checkpoint").touch()
    assert _interrupted(runner) == "interrupted at epoch 1, iteration 4; continue with the same command and --resume"
    (tmp_path / "last_checkpoint").write_text("work/epoch_1.pth")
    assert "continue from epoch_1.pth with" in _interrupted(runner)
