"""Train with MMEngine's Runner; an interrupt or a checkpoint of another config ends it with a line, not a traceback."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dtn_det._optional import require
from dtn_det.checkpoints.runner import read_by_package
from dtn_det.errors import CheckpointError
from dtn_det.system.processes import interrupts_remembered

if TYPE_CHECKING:
    from mmengine.runner import Runner

INTERRUPTED = 130
"""Exit code of a program that Ctrl-C has ended, by the convention of shells."""

_ADVICE = (
    "to go on from it, take the config and the --cfg-options that it was started with, or start anew in another "
    "--work-dir"
)


def train(runner: Runner, config: str) -> int:
    """Train until the end or an interrupt.

    Args:
        runner: The config's Runner.
        config: Path of the config, for messages.

    Returns:
        The exit code: 0, or :data:`INTERRUPTED`. One of several processes does not return from an interrupt but exits
        at once, because it and the others would wait for each other.

    Raises:
        CheckpointError: The checkpoint to continue from is of another config.
    """
    try:
        with interrupts_remembered() as check:
            try:
                if runner.cfg.get("resume"):
                    _continue(runner, config)
                else:
                    read_by_package(runner, "start", "name another for load_from", runner.logger.warning)
                    runner.train()
            # The same interrupt may have ended another process first, which shows as an error in this one.
            except Exception:
                check()
                raise
    except KeyboardInterrupt:
        if runner.rank == 0:
            print(_interrupted(runner), file=sys.stderr, flush=True)
        if runner.world_size > 1:
            sys.stdout.flush()
            os._exit(INTERRUPTED)
        return INTERRUPTED
    return 0


def _continue(runner: Runner, config: str) -> None:
    """Continue from a checkpoint, after a check that all its weights fit; MMEngine itself would load those that do."""
    path = runner.cfg.get("load_from") or require("mmengine.runner", "det").find_latest_checkpoint(runner.work_dir)
    read_by_package(runner, "resume", _ADVICE, runner.logger.warning)
    try:
        runner.train()
    except ValueError as error:
        # torch's optimizers raise it if their groups of parameters (by rate and weight decay) are not those of the
        # file.
        if not str(error).startswith("loaded state dict"):
            raise
        raise CheckpointError(
            f"expected a checkpoint of {config} to go on from, got {path} of another config or other --cfg-options "
            f"({error}): {_ADVICE}"
        ) from error


def _interrupted(runner: Runner) -> str:
    # MMEngine may be stopped between opening the file and writing the name into it.
    saved = Path(runner.work_dir) / "last_checkpoint"
    name = Path(saved.read_text().strip()).name if saved.is_file() else ""
    last = f"from {name} " if name else ""
    return (
        f"interrupted at epoch {runner.epoch + 1}, iteration {runner.iter}; continue {last}with the same command and "
        "--resume"
    )


@contextmanager
def conversions_noted() -> Iterator[list[str]]:
    """Collect one line for each conversion of a model within the block, because the run has no log yet.

    Yields:
        A list, to which the lines are added.
    """
    lines: list[str] = []
    logger = logging.getLogger("dtn_det.conversion")
    handler = _Noting(lines)
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


class _Noting(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.INFO)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage().partition("\n")[0])
