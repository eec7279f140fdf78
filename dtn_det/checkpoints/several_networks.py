"""Choose the network that fits a model from a folder with several networks, each in a file of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from dtn_det.checkpoints.files import network_files
from dtn_det.checkpoints.read import read_checkpoint
from dtn_det.datasets.remarks import Remark
from dtn_det.errors import CheckpointError, MisfitError

Fitted = TypeVar("Fitted")
HOW = "name the file of the one that is meant in place of the folder"


def choose_network(
    files: Sequence[Path], folder: str, fit: Callable[[Mapping[str, Any], str], Fitted]
) -> tuple[Path, Fitted]:
    """Find the only network of a folder that fits a model.

    Args:
        files: The files of the networks, see :func:`dtn_det.checkpoints.files.network_files`.
        fit: Function that fits the content of a file to the model, and raises a CheckpointError if it does not fit. Its
            second argument is the path of the file.

    Raises:
        MisfitError: None of the networks fits.
        CheckpointError: Several of them fit.
    """
    fitting: list[tuple[Path, Fitted]] = []
    faults: list[CheckpointError] = []
    for file in files:
        try:
            fitting.append((file, fit(read_checkpoint(file), str(file))))
        except CheckpointError as error:
            faults.append(error)
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise CheckpointError(
            f"expected one network for the model in the folder {folder}, got {len(fitting)} that fit it "
            f"({', '.join(file.name for file, _ in fitting)}): {HOW}"
        )
    # If only the number of classes differs, and in one network alone, report that network.
    of_classes = [fault for fault in faults if isinstance(fault, MisfitError) and fault.num_classes is not None]
    if len(of_classes) == 1:
        raise of_classes[0]
    told = "; ".join(f"{file.name}: {fault}" for file, fault in zip(files, faults, strict=True))
    raise MisfitError(
        f"expected a network for the model in the folder {folder}, got {len(files)}, none of which fits it. {told}"
    )


def network_taken(file: Path, files: Sequence[Path], folder: str) -> Remark:
    """Return a remark on the network that was taken because it alone fits."""
    others = tuple(other.name for other in files if other != file)
    what = f"networks are in the folder, and {file.name} was taken, the only one that fits the model"
    return Remark("network_of_folder", what, folder, len(files), others)


def networks_beside(folder: str) -> tuple[Remark, ...]:
    """Return a remark on the networks of a folder if there are several, because without a model none can be chosen."""
    files = network_files(folder)
    if len(files) < 2:
        return ()
    what = f"networks are in the folder, and {files[0].name} is described; a command takes the one that fits its model"
    return (Remark("networks_in_folder", what, folder, len(files), tuple(file.name for file in files)),)


def check_one_network(folder: str) -> None:
    """Check that a folder holds a single network, where there is no model to choose among several.

    Raises:
        CheckpointError: The folder holds several networks.
    """
    files = network_files(folder)
    if len(files) > 1:
        raise CheckpointError(
            f"expected one network in the folder {folder}, got {len(files)} "
            f"({', '.join(file.name for file in files)}): {HOW}"
        )
