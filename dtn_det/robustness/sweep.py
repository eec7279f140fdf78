"""The loop of a sweep over its parts, which are shared among the processes (ranks) of a run.

A part is a unit of images under all cells (a cell is a corruption at a severity), or, for models that adapt while they
are tested, all images under some cells: see ``classification/by_cell.py``.

A :class:`Task` decides how images are loaded and evaluated. There is one for classifiers and one for detectors. In both
tasks, a worker process decodes each image of a unit once and makes its version for every cell: see ``images.py`` in the
task's folder. The models run in the main process of each rank. A part belongs to one rank and is evaluated in the same
batches whatever the number of ranks, so the records do not depend on that number.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from dtn_det.robustness.store import ModelStore, Store
from dtn_det.robustness.store.manifest import ModelManifest, StoreManifest
from dtn_det.system.processes import end_with_parent, interrupts_blocked, worker_died, worker_environment

if TYPE_CHECKING:
    import pyarrow


_PREFETCHED = 2
"""Number of blocks of items that each worker process makes ahead of the evaluation."""


class Task(Protocol):
    """The part of a sweep that depends on its task: how images are loaded and how models are evaluated on them."""

    def block_size(self, ahead: int) -> int:
        """Return how many items a worker process makes and passes to the evaluation together, as a block.

        Args:
            ahead: How many blocks the worker processes make ahead of :meth:`evaluate`; 0 without worker processes.
        """

    def loading(self, requests: Iterable[int], ahead: int) -> tuple[Dataset[Any], Iterator[Any]]:
        """Return how images are loaded.

        Args:
            requests: Numbers of what :meth:`evaluate` will get, in this order: see :meth:`Parts.requests`.
            ahead: How many items the worker processes make ahead of :meth:`evaluate`; 0 without worker processes.

        Returns:
            The dataset, whose items the worker processes make, and an iterator over the indices of these items, one for
            each request. Each index is drawn at most ``ahead`` items before :meth:`evaluate` asks for its item.
        """

    def evaluate(self, items: Iterator[Any], names: Sequence[str]) -> Mapping[str, pyarrow.Table]:
        """Return the records of one part for each of the named models."""


class Parts(Protocol):
    """The parts of a sweep, of which each is evaluated and written as a whole."""

    def size(self, number: int) -> int:
        """Return the number of items of a part."""

    def requests(self, number: int) -> Iterable[int]:
        """Return a number for each item of a part, from which :meth:`Task.loading` knows what to load."""

    def pending(self, model: ModelStore) -> Iterable[int]:
        """Return the numbers of the parts that a model still lacks."""

    def write(self, model: ModelStore, number: int, records: pyarrow.Table) -> None:
        """Write the records of a part, whole or not at all."""

    def finish(self, model: ModelStore) -> None:
        """Complete a model in the store, all of whose parts are written."""


@dataclass(frozen=True)
class Units:
    """The units of images of a store, as :class:`Parts`."""

    manifest: StoreManifest

    def size(self, number: int) -> int:
        """Return the number of images of a unit."""
        return len(self.manifest.unit(number))

    def requests(self, number: int) -> Iterable[int]:
        """Return the numbers of the images of a unit."""
        return self.manifest.unit(number)

    def pending(self, model: ModelStore) -> Iterable[int]:
        """See :class:`Parts`."""
        return model.pending()

    def write(self, model: ModelStore, number: int, records: pyarrow.Table) -> None:
        """See :class:`Parts`."""
        model.write(number, records)

    def finish(self, model: ModelStore) -> None:
        """Do nothing, because units are written as they remain."""


@dataclass(frozen=True)
class Rank:
    """The number of this process among all processes of the run.

    Attributes:
        number: Number of this process, from 0.
        count: Number of processes.
        barrier: Function that waits until all processes have called it.
    """

    number: int = 0
    count: int = 1
    barrier: Callable[[], None] = lambda: None

    @property
    def is_first(self) -> bool:
        """Return whether this process does the writing that is done once per run."""
        return self.number == 0


@dataclass(frozen=True)
class Swept:
    """The models that a sweep has evaluated, and the store of their records.

    Attributes:
        names: Names of the models, in the order in which the user named them.
    """

    store: Store
    names: tuple[str, ...]


def current_rank() -> Rank:
    """Return the rank of this process in torch's process group; without a group, the only rank of the run."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return Rank()
    return Rank(torch.distributed.get_rank(), torch.distributed.get_world_size(), _barrier)


def _barrier() -> None:
    """Wait for all processes.

    Raises:
        ConnectionError: One of the processes has ended.
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
    """Open or create the store and the models of a run, and check that their manifests are of this run.

    The first process opens or creates the store, and then all other processes open it.

    Args:
        facts: For each model, a function that computes the facts for reports. It is called only if the store has no
            facts of the model yet.

    Raises:
        StoreError: The manifest of the store or of one of the models differs from the manifest of this run.
        ValueError: Another run is creating the store at this moment.
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
    parts: Parts | None = None,
) -> None:
    """Evaluate every part that is not in the store yet.

    Args:
        store: Where the records go. The first rank keeps it locked.
        workers: Processes of each rank that load and corrupt images; with 0 the main process does it.
        on_unit: Called with the number and the records of each part that this rank has written.
        parts: The parts of the sweep; None for the units of the store.

    Raises:
        ValueError: Another process is writing to this store.
        StoreError: Since this run opened its models, another run has begun a model of the same name.
        OSError: A part could not be written, or a worker or another process died; finished parts are kept.
    """
    rank = current_rank() if rank is None else rank
    parts = Units(store.manifest) if parts is None else parts
    with ExitStack() as stack:
        stack.enter_context(_reporting_worker_deaths())
        if rank.is_first:
            stack.enter_context(store.writing())
            _check_unchanged(store, models)
        rank.barrier()
        # All ranks must read the same list of pending parts, so no rank may commit a part before all have read the
        # list.
        pending = {model.manifest.name: set(parts.pending(model)) for model in models}
        rank.barrier()
        numbers = sorted(set().union(*pending.values()))[rank.number :: rank.count]
        items = _items(task, itertools.chain.from_iterable(map(parts.requests, numbers)), workers)
        by_name = {model.manifest.name: model for model in models}
        for number in numbers:
            names = [name for name in by_name if number in pending[name]]
            records = task.evaluate(itertools.islice(items, parts.size(number)), names)
            for name in names:
                parts.write(by_name[name], number, records[name])
            on_unit(number, records)
        rank.barrier()
        if rank.is_first:
            for model in models:
                parts.finish(model)


def _check_unchanged(store: Store, models: Sequence[ModelStore]) -> None:
    for model in models:
        if store.model(model.manifest.name).manifest != model.manifest:
            raise StoreError(
                f"expected the model {model.manifest.name!r} of the store {store.folder} as this run began it, got one "
                "that another run has begun since: give this one another name"
            )


def _items(task: Task, requests: Iterable[int], workers: int) -> Iterator[Any]:
    """Yield the items that are requested, which worker processes make ahead."""
    size = task.block_size(_PREFETCHED * workers)
    dataset, indices = task.loading(requests, _PREFETCHED * workers * size)
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_sampler=iter(lambda: list(itertools.islice(indices, size)), []),
        collate_fn=list,
        num_workers=workers,
        prefetch_factor=_PREFETCHED if workers else None,
        worker_init_fn=_prepare_worker,
        # A forked child of a process that has run OpenMP threads hangs at its first parallel loop.
        multiprocessing_context="spawn" if workers else None,
    )
    with worker_environment(), interrupts_blocked():
        blocks = iter(loader)
    yield from itertools.chain.from_iterable(blocks)


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
    """Limit a worker process to one thread, and end it as soon as its parent ends."""
    import cv2

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    end_with_parent()


# At the end all processes wait for the slowest one, which may take longer than torch's default of half an hour.
_WAIT_SECONDS = 7 * 24 * 3600


@contextmanager
def joined(launcher: str, device: str | None) -> Iterator[tuple[Rank, torch.device]]:
    """Join the processes that a launcher started, as mmengine does.

    Args:
        launcher: ``none``, ``pytorch`` (torchrun), ``slurm`` or ``mpi``.
        device: Where models run, such as ``cpu`` or ``cuda``; None for a GPU where there is one.

    Yields:
        The rank of this process, and its device. With several GPUs, this is the GPU whose number is the local rank.

    Raises:
        ValueError: The device does not exist, or the launcher needs GPUs or environment variables that are not set.
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
    """Return the device with this name. Without a name, return a GPU if there is one, else the CPU.

    Raises:
        ValueError: This machine has no such device.
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
        # Each missing backend raises another class of error.
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
