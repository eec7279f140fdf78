"""The loop of a sweep: image by image through all cells, unit by unit to disk, over any number of processes.

Each image is decoded once and goes through all its cells in a worker process; the models run in the main process of
each rank. A unit belongs to one rank as a whole and is made of the same batches whatever the number of ranks, so the
records do not depend on it.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from dtn_det._optional import require
from dtn_det.cost.facts import ModelFacts
from dtn_det.errors import InputError, StoreError
from dtn_det.robustness.store.manifest import ModelManifest, StoreManifest
from dtn_det.robustness.store.store import ModelStore, Store
from dtn_det.system.processes import end_with_parent, interrupts_blocked, worker_died, worker_environment

if TYPE_CHECKING:
    import pyarrow


_PREFETCHED = 2
"""Items that a worker process makes before they are wanted."""


class Task(Protocol):
    """The part of a sweep that knows its task: how images are loaded, and what models make of them."""

    def loading(self, images: Sequence[int], ahead: int) -> tuple[Dataset[Any], Iterator[Any]]:
        """Return how images are loaded.

        Args:
            images: Numbers of those that :meth:`evaluate` will get, in this order.
            ahead: Most items that are asked for before :meth:`evaluate` takes them; 0 without worker processes.

        Returns:
            What makes the items, in worker processes, and the indices that it is given, one an image. They are drawn
            one at a time, no earlier than ``ahead`` demands.
        """

    def evaluate(self, items: Iterator[Any], names: Sequence[str]) -> Mapping[str, pyarrow.Table]:
        """The records of one unit's images for each of the models."""


@dataclass(frozen=True)
class Rank:
    """This process among those of the run.

    Attributes:
        number: From 0.
        count: Number of processes.
        barrier: Waits for all of them.
    """

    number: int = 0
    count: int = 1
    barrier: Callable[[], None] = lambda: None

    @property
    def is_first(self) -> bool:
        """Return whether this process writes what is written once."""
        return self.number == 0


@dataclass(frozen=True)
class Swept:
    """The models that a sweep has evaluated, and where their records are.

    Attributes:
        store: Where the records are.
        names: The models, in the order in which the user named them.
    """

    store: Store
    names: tuple[str, ...]


def current_rank() -> Rank:
    """The rank that mmengine's launcher gave this process; the only one without a launcher."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return Rank()
    return Rank(torch.distributed.get_rank(), torch.distributed.get_world_size(), _barrier)


def _barrier() -> None:
    """Wait for all processes.

    Raises:
        ConnectionError: One of them has ended.
    """
    try:
        torch.distributed.barrier()
    except RuntimeError as error:
        raise ConnectionError(
            "expected all processes of the run to go on, got one that ended: its message says why. Finished units are "
            "kept: mend that and start again"
        ) from error


def open_models(
    folder: Path,
    manifest: StoreManifest,
    images: pyarrow.Table,
    models: Sequence[ModelManifest],
    facts: Sequence[Callable[[], ModelFacts]],
    rank: Rank,
) -> list[ModelStore]:
    """Let the first process make the store and the models that are not there; the others see that they fit.

    Args:
        folder: Folder of the store.
        manifest: What the run is made from.
        images: See :meth:`Store.create`.
        models: What each model is made from.
        facts: For each model, what computes the facts that reports tell besides; called where there are none yet.
        rank: This process.

    Raises:
        StoreError: The store or one of the models was made from other things.
        ValueError: Another process is about to begin the store.
    """
    if not rank.is_first:
        rank.barrier()
    store = Store.create(folder, manifest, images)
    opened = [store.add_model(model) for model in models]
    if rank.is_first:
        opened = [
            model if model.manifest.facts else model.with_facts(compute())
            for model, compute in zip(opened, facts, strict=True)
        ]
        rank.barrier()
    return opened


def run_sweep(
    store: Store,
    models: Sequence[ModelStore],
    task: Task,
    *,
    workers: int,
    on_unit: Callable[[int, Mapping[str, pyarrow.Table]], None] = lambda number, records: None,
    rank: Rank | None = None,
) -> None:
    """Evaluate every unit that is not in the store yet.

    Args:
        store: Where the records go. One rank keeps it locked.
        models: Models of the store that are evaluated.
        task: Loads the images and evaluates them.
        workers: Processes of each rank that load and corrupt images; 0 does it in the main process.
        on_unit: Called after each unit of this rank was committed, with its number and records.
        rank: This process.

    Raises:
        ValueError: Another process writes this store.
        StoreError: Another process has begun a model of the same name meanwhile.
        OSError: A unit could not be written, or a worker or another process died; finished units are kept.
    """
    rank = current_rank() if rank is None else rank
    with ExitStack() as stack:
        stack.enter_context(_reporting_worker_deaths())
        if rank.is_first:
            stack.enter_context(store.writing())
            _check_unchanged(store, models)
        rank.barrier()
        # All ranks must see the same list, so none may commit before every one has read it.
        pending = {model.manifest.name: set(model.pending()) for model in models}
        rank.barrier()
        numbers = sorted(set().union(*pending.values()))[rank.number :: rank.count]
        items = _items(task, [image for n in numbers for image in store.manifest.unit(n)], workers)
        by_name = {model.manifest.name: model for model in models}
        for number in numbers:
            names = [name for name in by_name if number in pending[name]]
            unit = itertools.islice(items, len(store.manifest.unit(number)))
            records = task.evaluate(unit, names)
            for name in names:
                by_name[name].write(number, records[name])
            on_unit(number, records)
        rank.barrier()


def _check_unchanged(store: Store, models: Sequence[ModelStore]) -> None:
    for model in models:
        if store.model(model.manifest.name).manifest != model.manifest:
            raise StoreError(
                f"expected the model {model.manifest.name!r} of the store {store.folder} as this run began it, got one "
                "that another run has begun since: give this one another name"
            )


def _items(task: Task, images: Sequence[int], workers: int) -> Iterator[Any]:
    """The images of a list, loaded ahead by worker processes."""
    dataset, requests = task.loading(images, _PREFETCHED * workers)
    loader: DataLoader[Any] = DataLoader(
        dataset,
        sampler=requests,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=_PREFETCHED if workers else None,
        worker_init_fn=_prepare_worker,
        # A forked child of a process that has run OpenMP threads hangs at its first parallel loop.
        multiprocessing_context="spawn" if workers else None,
    )
    with worker_environment(), interrupts_blocked():
        items = iter(loader)
    yield from items


@contextmanager
def _reporting_worker_deaths() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not worker_died(error):
            raise
        raise ChildProcessError(
            f"expected worker processes to live, got one that died ({error}): memory is short, perhaps. Finished units "
            "are kept: start again with fewer --workers, and in a container with more shared memory (--shm-size)"
        ) from error


def _prepare_worker(worker: int) -> None:
    """Keep each worker to its own core, and let it not outlive this process."""
    import cv2

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    end_with_parent()


# Processes only wait for each other, at the end for the slowest one; the usual half hour may not do.
_WAIT_SECONDS = 7 * 24 * 3600


@contextmanager
def joined(launcher: str, device: str | None) -> Iterator[tuple[Rank, torch.device]]:
    """Join the processes that a launcher started, by mmengine's rules.

    Args:
        launcher: ``none``, ``pytorch`` (torchrun), ``slurm`` or ``mpi``.
        device: Where models run, such as ``cpu`` or ``cuda``; None for a GPU where there is one.

    Yields:
        This process, and its device: of several GPUs, the one of its local rank.

    Raises:
        ValueError: A device that is not there, or a launcher that needs GPUs or another environment.
    """
    chosen = pick_device(device)
    if launcher != "none":
        _join(launcher, chosen)
    try:
        if chosen == torch.device("cuda"):
            chosen = torch.device("cuda", torch.cuda.current_device())
        yield current_rank(), chosen
    finally:
        if launcher != "none":
            torch.distributed.destroy_process_group()


def pick_device(name: str | None) -> torch.device:
    """The device of a name.

    Raises:
        ValueError: There is none of that name.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise InputError(f"expected a device such as cpu, cuda or cuda:1, got {name!r}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"expected a device of this machine, got {name!r} where torch sees {torch.cuda.device_count()} GPUs: "
            "take --device cpu, or run `dtn-det doctor`"
        )
    if device.type not in ("cpu", "cuda"):
        try:
            torch.zeros(1, device=device).item()
        # Each backend that is not there has its own kind.
        except Exception as error:
            reason = str(error).partition("\n")[0]
            raise InputError(
                f"expected a device of this machine, got {name!r}, with which torch cannot compute ({reason}): take "
                "--device cpu"
            ) from error
    return device


def _join(launcher: str, device: torch.device) -> None:
    if launcher == "pytorch" and "RANK" not in os.environ:
        raise InputError("expected --launcher pytorch under torchrun, got no RANK: torchrun --nproc-per-node N -m ...")
    if device.type == "cuda":
        require("mmengine.dist", "det").init_dist(launcher, backend="gloo", timeout=_WAIT_SECONDS)
    elif launcher == "pytorch":
        # mmengine's start-up needs a GPU for each process.
        torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=_WAIT_SECONDS))
    else:
        raise InputError(f"expected GPUs with --launcher {launcher}, got the device {device}: start it with torchrun")
