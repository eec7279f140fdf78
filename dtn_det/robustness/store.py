"""Results on disk: one Parquet file for each unit of images, complete or absent.

Layout of the folder::

    store.json                       StoreManifest
    images.parquet                   key and label of every image
    models/NAME/model.json           ModelManifest
    models/NAME/unit-000012.parquet  records of the images of unit 12 under every cell

A unit is written under another name, flushed and renamed, so a kill or a full disk leaves units that are complete and
none that is not, and a run that starts again repeats at most the unit it was in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtn_det._optional import require
from dtn_det.files import is_temporary, locked, write_bytes, write_json
from dtn_det.robustness.manifest import FORMAT, ModelManifest, StoreManifest, differences

if TYPE_CHECKING:
    import pyarrow

_UNIT = re.compile(r"unit-(\d{6,})\.parquet")
# What a model's folder may be called on any file system.
_UNSAFE = re.compile(r"[^A-Za-z0-9._+@=-]+")


class StoreError(ValueError):
    """A store that cannot be used as asked."""


@dataclass(frozen=True)
class Store:
    """An existing store.

    Attributes:
        folder: Where it lies.
        manifest: What all its models share.
    """

    folder: Path
    manifest: StoreManifest

    @classmethod
    def open(cls, folder: Path) -> Store:
        """Open an existing store.

        Raises:
            StoreError: There is none, it is damaged, or of another version.
        """
        path = folder / "store.json"
        if not path.is_file():
            raise StoreError(f"expected a store of results in {folder}, got no store.json there: check the path")
        values = _read_json(path)
        if values.get("format") != FORMAT:
            raise StoreError(
                f"expected a store of format {FORMAT} in {folder}, got format {values.get('format')!r}: read it with "
                "the version of dtn-det that wrote it, or evaluate again into another folder"
            )
        try:
            return cls(folder, StoreManifest.from_dict(values))
        except (TypeError, KeyError, ValueError) as error:
            raise StoreError(f"expected a manifest in {path}, got one that is damaged ({error})") from error

    @classmethod
    def create(cls, folder: Path, manifest: StoreManifest, images: pyarrow.Table) -> Store:
        """Start a store, or go on with one that was made from the same things.

        Args:
            folder: Empty, absent, or a store.
            manifest: What the run is made from.
            images: Key and label of every image, in the order of their numbers.

        Raises:
            StoreError: The folder holds something else, or a store made from other things.
        """
        path = folder / "store.json"
        if path.is_file():
            store = cls.open(folder)
            found = differences(store.manifest.to_dict(), manifest.to_dict())
            if found:
                lines = "".join(f"\n  {line}" for line in found)
                raise StoreError(
                    f"expected the store {folder} to be made from the same data and settings, got:{lines}\n"
                    "name another folder with --store, or give the options of the first run"
                )
            return store
        folder.mkdir(parents=True, exist_ok=True)
        others = [entry.name for entry in folder.iterdir() if not is_temporary(entry.name)]
        # Results of other tools may have been imported before.
        if set(others) - {"images.parquet", "aggregates"}:
            raise StoreError(f"expected {folder} to be empty or a store, got {', '.join(sorted(others)[:5])} in it")
        write_bytes(folder / "images.parquet", _parquet(images))
        # Last, for its presence says that the store is there.
        write_json(path, manifest.to_dict())
        return cls(folder, manifest)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep other processes from writing meanwhile, and clear away what killed ones left."""
        with locked(self.folder, "--store"):
            for file in self.folder.rglob(".*"):
                if is_temporary(file.name):
                    file.unlink(missing_ok=True)
            yield

    def images(self) -> pyarrow.Table:
        """Key and label of every image."""
        table: pyarrow.Table = require("pyarrow.parquet", "eval").read_table(self.folder / "images.parquet")
        return table

    def models(self) -> dict[str, ModelStore]:
        """The models that have begun, by name."""
        found = {}
        for path in sorted((self.folder / "models").glob("*/model.json")):
            model = ModelStore(self, path.parent, ModelManifest.from_dict(_read_json(path)))
            found[model.manifest.name] = model
        return found

    def model(self, name: str) -> ModelStore:
        """A model by its name.

        Raises:
            StoreError: It is not in the store.
        """
        models = self.models()
        if name not in models:
            raise StoreError(f"expected a model out of {', '.join(models) or '(none)'} in {self.folder}, got {name!r}")
        return models[name]

    def add_model(self, manifest: ModelManifest) -> ModelStore:
        """Start a model, or go on with it.

        Raises:
            StoreError: A model of this name was made from other weights or settings.
            ValueError: A model of this name is begun by a process at work.
        """
        folder = self.folder / "models" / folder_name(manifest.name)
        path = folder / "model.json"
        if path.is_file():
            found = _read_json(path)
            model = ModelStore(self, folder, ModelManifest.from_dict(found))
            lines = differences(found, manifest.to_dict())
            if not lines:
                return model
            # Alone, for the records of a run at work would otherwise come under another manifest.
            with locked(self.folder, "--store"):
                # What was begun and has nothing to show, on a full GPU for example, may be begun otherwise.
                if model.finished():
                    text = "".join(f"\n  {line}" for line in lines)
                    raise StoreError(
                        f"expected the model {manifest.name!r} of the store {self.folder} to be the same, got:{text}\n"
                        "give this one another name, or name another folder with --store"
                    )
                write_json(path, manifest.to_dict())
                return ModelStore(self, folder, manifest)
        write_json(path, manifest.to_dict())
        return ModelStore(self, folder, manifest)


@dataclass(frozen=True)
class ModelStore:
    """The records of one model.

    Attributes:
        store: What it belongs to.
        folder: Where its files lie.
        manifest: What it was made from.
    """

    store: Store
    folder: Path
    manifest: ModelManifest

    def finished(self) -> set[int]:
        """Numbers of the units that are done."""
        matches = (_UNIT.fullmatch(path.name) for path in self.folder.iterdir())
        return {int(match[1]) for match in matches if match}

    def pending(self) -> list[int]:
        """Numbers of the units that are still to be done."""
        done = self.finished()
        return [number for number in range(self.store.manifest.num_units) if number not in done]

    def write(self, number: int, records: pyarrow.Table) -> None:
        """Commit the records of a unit.

        Args:
            number: Of the unit.
            records: One row for each image and cell at least once: columns ``image`` and ``cell`` and those of the
                task.

        Raises:
            OSError: They could not be written, on a full disk for example; what was there before is still there.
        """
        path = self.folder / f"unit-{number:06d}.parquet"
        try:
            write_bytes(path, _parquet(records))
        except OSError as error:
            raise OSError(
                error.errno,
                f"expected to write {path}, got: {error.strerror}. All finished units are kept: make room and start "
                "again to continue",
            ) from error

    def read(self, number: int, columns: list[str] | None = None) -> pyarrow.Table:
        """The records of a unit.

        Raises:
            StoreError: The file is damaged.
        """
        path = self.folder / f"unit-{number:06d}.parquet"
        try:
            table: pyarrow.Table = require("pyarrow.parquet", "eval").read_table(path, columns=columns)
        except Exception as error:  # pyarrow raises its own kinds, OSError and ValueError
            raise StoreError(f"expected records in {path}, got: {error}. Delete the file and start again") from error
        return table

    def batches(self, columns: list[str] | None = None) -> Iterator[pyarrow.Table]:
        """The records of all finished units, in their order, one unit at a time."""
        for number in sorted(self.finished()):
            yield self.read(number, columns)


def folder_name(name: str) -> str:
    """What the files of a model are called: its name, as far as any file system takes it."""
    return _UNSAFE.sub("_", name)


def _parquet(table: pyarrow.Table) -> bytes:
    pyarrow = require("pyarrow", "eval")
    parquet = require("pyarrow.parquet", "eval")
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(table, sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise StoreError(f"expected JSON in {path}, got a damaged file ({error})") from error
    if not isinstance(values, dict):
        raise StoreError(f"expected a JSON object in {path}, got {type(values).__name__}")
    return values
