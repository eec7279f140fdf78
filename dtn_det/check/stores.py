"""What a store of results holds."""

from __future__ import annotations

from pathlib import Path

from dtn_det.check.result import CheckResult
from dtn_det.errors import StoreError
from dtn_det.robustness.store.store import Store


def check_store(folder: Path) -> CheckResult:
    """Open a store and count what is left to evaluate.

    Args:
        folder: The store.
    """
    try:
        store = Store.open(folder)
        models = {name: store.model(name) for name in store.models()}
        pending = {name: len(model.pending()) for name, model in models.items()}
    except StoreError as error:
        return CheckResult(str(folder), "store", "a store that cannot be opened", problems=(str(error),))
    manifest = store.manifest
    facts = {
        "task": manifest.task,
        "data": manifest.data,
        "images": manifest.num_images,
        "selection": manifest.selection,
        "corruption": manifest.corruption,
        "conditions": len(manifest.cells),
        "models": [f"{name} ({_done(manifest.num_units, left)})" for name, left in pending.items()],
    }
    return CheckResult(str(folder), "store", "store of results", facts, manifest.remarks)


def _done(units: int, pending: int) -> str:
    return "complete" if not pending else f"{units - pending:,} of {units:,} units"
