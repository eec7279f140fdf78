"""MMEngine's Runner with this package's reader of checkpoints: files run no code, and weights are compared first.

An interrupt or a checkpoint of another config ends a training with one line instead of a traceback.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dtn_det._optional import require
from dtn_det.checkpoints.fit import OWN_BUFFERS
from dtn_det.checkpoints.fresh_norms import FreshNorm, describe_fresh_norms, find_fresh_norms
from dtn_det.checkpoints.load import fit_weights, inner_model
from dtn_det.checkpoints.read import is_readable, read_checkpoint
from dtn_det.checkpoints.two_networks import WeightsKind
from dtn_det.checkpoints.weights import COPIES, PRUNED, WEIGHT_NORM
from dtn_det.datasets.remarks import Remark, tell
from dtn_det.errors import CheckpointError
from dtn_det.layers.options import CarriesOptions
from dtn_det.system.processes import interrupts_remembered
from dtn_det.training.averages import save_averages_by_outer_names

if TYPE_CHECKING:
    from mmengine.runner import Runner

Purpose = Literal["test", "start", "resume"]

INTERRUPTED = 130
"""Exit code of a program that Ctrl-C has ended, by the convention of shells."""

_ADVICE = (
    "to go on from it, take the config and the --cfg-options that it was started with, or start anew in another "
    "--work-dir"
)


def train(runner: Runner, config: str, weights: WeightsKind | None = None) -> int:
    """Train until the end or an interrupt.

    Args:
        weights: Which weights of ``load_from`` to start from, see :func:`dtn_det.checkpoints.load.load_weights`.

    Returns:
        The exit code: 0, or :data:`INTERRUPTED`. In a distributed run, an interrupted process exits immediately instead
        of returning, because the processes would wait for each other.

    Raises:
        CheckpointError: The checkpoint to continue from is of another config.
    """
    save_averages_by_outer_names(runner)
    try:
        with interrupts_remembered() as check:
            try:
                if runner.cfg.get("resume"):
                    _continue(runner, config)
                else:
                    read_by_package(runner, "start", "name another for load_from", runner.logger.warning, weights)
                    runner.train()
            # The interrupt may have ended another process first, which causes an error in this one.
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
    """Continue from a checkpoint if all its weights fit; MMEngine itself would load only the weights that fit."""
    path = runner.cfg.get("load_from") or require("mmengine.runner", "det").find_latest_checkpoint(runner.work_dir)
    content = read_checkpoint(path) if path and is_readable(path) else None
    if content is not None:
        _check_resumable(runner, content, path)
    read_by_package(runner, "resume", _ADVICE, runner.logger.warning, content=content)
    try:
        runner.train()
    except ValueError as error:
        # torch's optimizers raise this error if their groups of parameters (by rate and weight decay) differ from the
        # groups in the file.
        if not str(error).startswith("loaded state dict"):
            raise
        raise CheckpointError(
            f"expected a checkpoint of {config} to go on from, got {path} of another config or other --cfg-options "
            f"({error}): {_ADVICE}"
        ) from error


def _interrupted(runner: Runner) -> str:
    # MMEngine may be stopped after opening the file and before writing the name into it.
    saved = Path(runner.work_dir) / "last_checkpoint"
    name = Path(saved.read_text().strip()).name if saved.is_file() else ""
    last = f"from {name} " if name else ""
    return (
        f"interrupted at epoch {runner.epoch + 1}, iteration {runner.iter}; continue {last}with the same command and "
        "--resume"
    )


def read_by_package(
    runner: Runner,
    purpose: Purpose,
    advice: str,
    say: Callable[[str], None],
    weights: WeightsKind | None = None,
    content: Mapping[str, Any] | None = None,
) -> None:
    """Have a Runner load its checkpoint through :mod:`dtn_det.checkpoints`.

    * ``test``: all weights must fit, and norms take the options that they were trained with.
    * ``start``, training from the weights of another training: weights that fit are loaded and all other weights are
      logged, as in MMEngine. A file of which no weight fits is refused. Norms keep their own options, with a warning if
      the file has different options.
    * ``resume``: all weights must fit, and the options must be the same.

    URLs whose schemes only MMEngine supports, such as ``torchvision://``, are loaded by MMEngine.

    Args:
        runner: The Runner, whose ``load_checkpoint`` is replaced.
        advice: What the user can do if the weights do not fit, as the end of a sentence.
        say: Called with each line that the user should see.
        weights: See :func:`dtn_det.checkpoints.load.load_weights`.
        content: Content of the checkpoint if it has been read already.
    """
    by_mmengine = runner.load_checkpoint

    def load_checkpoint(filename: str, *args: Any, **options: Any) -> dict[str, Any]:
        if not is_readable(filename):
            return by_mmengine(filename, *args, **options)
        read = read_checkpoint(filename) if content is None else content
        given, remarks = _load(runner, str(filename), read, purpose, advice, weights)
        if runner.rank == 0:
            tell(remarks, say)
        runner._has_loaded = True
        runner.logger.info(f"Load checkpoint from {filename}")
        return given

    runner.load_checkpoint = load_checkpoint


def _load(
    runner: Runner, source: str, content: Mapping[str, Any], purpose: Purpose, advice: str, weights: WeightsKind | None
) -> tuple[dict[str, Any], tuple[Remark, ...]]:
    model = inner_model(runner.model)
    remarks: tuple[Remark, ...] = ()
    fresh: tuple[FreshNorm, ...] = ()
    if purpose == "resume":
        # MMEngine's EMAHook restores both kinds of weights itself, so `ema_state_dict` is left out of the comparison.
        if not isinstance(content.get("state_dict"), Mapping):
            raise CheckpointError(
                f"expected a checkpoint of MMEngine's training to go on from, got {source} without a 'state_dict': "
                "start from its weights with --cfg-options load_from=FILE"
            )
        plain = {**content, "ema_state_dict": None}
        loaded = fit_weights(model, plain, source, advice=advice, options="refuse")
        remarks = tuple(remark for remark in loaded.remarks if remark.kind in (PRUNED, WEIGHT_NORM, COPIES))
        same = set(loaded.state) == set(content["state_dict"])
        given = dict(content) if same else {**content, "state_dict": loaded.state}
    elif purpose == "test":
        loaded = fit_weights(model, content, source, weights=weights, advice=advice)
        given, remarks = _for_hooks(content, loaded.state, weights), loaded.remarks
    else:
        for layer in model.modules():
            if isinstance(layer, CarriesOptions):
                layer.keeps_options = True
        loaded = fit_weights(model, content, source, weights=weights, options="keep", partial=True)
        own_shapes = {name: value.shape for name, value in model.state_dict().items() if hasattr(value, "shape")}
        if not any(own_shapes.get(name) == getattr(value, "shape", None) for name, value in loaded.state.items()):
            # Raises with the cause, because a training that takes nothing from the file is not what the user asked for.
            fit_weights(model, content, source, weights=weights, advice=advice)
        given, remarks = _for_hooks(content, loaded.state, weights), loaded.remarks
        fresh = find_fresh_norms(model, loaded.state)
        told, warnings = describe_fresh_norms(fresh, "init='layernorm' among the options of the norms")
        for line in told:
            runner.logger.info(f"{source}: {line}, as it has none of theirs")
        for line in warnings:
            runner.logger.warning(line)
    runner.call_hook("after_load_checkpoint", checkpoint=given)
    # MMEngine would warn of buffers that the model computes itself and the file lacks.
    # Parameters of norms that begin anew were told above.
    anew = frozenset().union(*(one.added for one in fresh))
    own = {name: value for name, value in model.state_dict().items() if name.endswith(OWN_BUFFERS[:-1]) or name in anew}
    require("mmengine.runner.checkpoint", "det").load_state_dict(
        model, {**own, **given["state_dict"]}, strict=False, logger="current"
    )
    return given, remarks


def _check_resumable(runner: Runner, content: Mapping[str, Any], source: str) -> None:
    """Check that a checkpoint has all that a training continues with, besides the weights."""
    meta = content.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    lacking = [f"meta.{key}" for key in ("epoch", "iter") if key not in meta]
    wanted = ("message_hub", "optimizer", *(("param_schedulers",) if runner.param_schedulers else ()))
    lacking += [key for key in wanted if key not in content]
    if lacking and isinstance(content.get("state_dict"), Mapping):
        raise CheckpointError(
            f"expected a checkpoint of MMEngine's training to go on from, got {source} without {', '.join(lacking)}, "
            "as published weights are: start from its weights with --cfg-options load_from=FILE"
        )


def _for_hooks(content: Mapping[str, Any], state: dict[str, Any], weights: WeightsKind | None) -> dict[str, Any]:
    """Return the checkpoint for hooks.

    MMEngine's EMAHook chooses between the kinds of weights if there is an ``ema_state_dict``. So the result has one
    only if the user chose no kind and no name has changed.
    """
    given = {**content, "state_dict": state}
    before = content.get("state_dict")
    if weights is not None or not isinstance(before, Mapping) or set(before) != set(state):
        given.pop("ema_state_dict", None)
    return given


@contextmanager
def conversions_noted() -> Iterator[list[str]]:
    """Collect in a list one line for each conversion of a model within the block, because the run has no log yet."""
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
