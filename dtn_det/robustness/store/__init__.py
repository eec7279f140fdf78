"""Results on disk: one Parquet file for each unit of images. Each file is complete or absent.

Layout of the folder::

    store.json                       StoreManifest
    images.parquet                   key and label, or annotations, of every image
    models/NAME/model.json           ModelManifest
    models/NAME/unit-000012.parquet  records of the images of unit 12 under every cell (corruption and severity)
    models/NAME/block-0003.parquet   until the end of a sweep cell by cell, records of all images under some cells

A unit is written under another name, flushed and renamed, so a kill or a full disk never leaves a part of a unit. A run
that is started again repeats at most the unit that was interrupted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dtn_det.cost.facts import ModelFacts
from dtn_det.errors import StoreError
from dtn_det.robustness.store.files import (
    bad_images_of,
    check_name,
    check_rows,
    folder_name,
    parquet_bytes,
    read_json,
    read_parquet,
)
from dtn_det.robustness.store.manifest import FORMAT, ModelManifest, StoreManifest, differences
from dtn_det.system.files import advice, is_temporary, locked, write_bytes, write_json

if TYPE_CHECKING:
    import pyarrow

_POLICY = "bad_images"
_UNIT = re.compile(r"unit-(\d{6,})\.parquet")
_BLOCK = re.compile(r"block-(\d{4,})\.parquet")


@dataclass(frozen=True)
class Store:
    """An existing store.

    Attributes:
        manifest: The data and conditions that all its models share.
    """

    folder: Path
    manifest: StoreManifest

    @classmethod
    def open(cls, folder: Path) -> Store:
        """Open an existing store.

        Raises:
            StoreError: There is no store, it is damaged, or its format is of another version.
        """
        path = folder / "store.json"
        if not path.is_file():
            raise StoreError(f"expected a store of results in {folder}, got no store.json there: check the path")
        values = read_json(path)
        if values.get("format") != FORMAT:
            raise StoreError(
                f"expected a store of format {FORMAT} in {folder}, got format {values.get('format')!r}: read it with "
                "the version of dtn-det that wrote it, or evaluate again into another folder"
            )
        try:
            return cls(folder, StoreManifest.from_dict(values))
        except (TypeError, KeyError, ValueError) as error:
            raise StoreError(
                f"expected a manifest in {path}, got one that is damaged ({error}): put back a copy of it, or evaluate "
                "again into another folder"
            ) from error

    @classmethod
    def check(cls, folder: Path) -> None:
        """Check before a run that a folder is a store or can become one.

        Raises:
            StoreError: The folder holds something else, is a file, or is a store that cannot be opened.
        """
        if (folder / "store.json").is_file():
            cls.open(folder)
        elif folder.is_dir():
            others = {entry.name for entry in folder.iterdir() if not is_temporary(entry.name)}
            # A run that is killed as it begins leaves `images.parquet`. Importing results of other tools makes
            # `aggregates`.
            others -= {"images.parquet", "aggregates"}
            if others:
                raise StoreError(
                    f"expected {folder} to be empty or a store, got {', '.join(sorted(others)[:5])} in it: name "
                    "another folder with --store"
                )
        elif folder.exists():
            raise StoreError(f"expected --store to be a folder, got the file {folder}: name another")

    @classmethod
    def create(cls, folder: Path, manifest: StoreManifest, images: pyarrow.Table) -> Store:
        """Create a store, or open one whose manifest agrees with this run's.

        Args:
            folder: A folder that is empty, absent or a store.
            images: Key and label, or annotations, of every image, in the order of their numbers.

        Raises:
            StoreError: The folder holds something else, or a store whose manifest differs.
            ValueError: Another process is creating a store there at this moment.
        """
        cls.check(folder)
        path = folder / "store.json"
        if not path.is_file():
            with locked(folder, "--store"):
                # Checked again, because another process may have created a store meanwhile.
                cls.check(folder)
                if not path.is_file():
                    write_bytes(folder / "images.parquet", parquet_bytes(images))
                    # Written last, because its presence marks an existing store.
                    write_json(path, manifest.to_dict())
        store = cls.open(folder)._with_policy_of(manifest)
        found = differences(store.manifest.to_dict(), manifest.to_dict())
        if found:
            lines = "".join(f"\n  {line}" for line in found)
            raise StoreError(
                f"expected the store {folder} to be made from the same data and settings, got:{lines}\n"
                "name another folder with --store, or give the options of the first run"
            )
        store._mend_images(images)
        return store

    def _with_policy_of(self, manifest: StoreManifest) -> Store:
        """Adopt this run's policy on bad images if no image has been left out so far; return the store."""
        old, new = self.manifest.protocol.get(_POLICY), manifest.protocol.get(_POLICY)
        if old == new or None in (old, new) or self._has_bad_images():
            return self
        changed = replace(self.manifest, protocol={**self.manifest.protocol, _POLICY: str(new)})
        if differences(changed.to_dict(), manifest.to_dict()):
            return self
        write_json(self.folder / "store.json", changed.to_dict())
        return Store(self.folder, changed)

    def _has_bad_images(self) -> bool:
        """Return whether an image was left out of the finished units of a model."""
        models = self.models().values()
        blocks = (read_parquet(path, ["image"]) for model in models for path in model.blocks().values())
        units = (model.read(number, ["image"]) for model in models for number in model.finished())
        return any(map(bad_images_of, (*blocks, *units)))

    def with_other_labels(self, manifest: StoreManifest, images: pyarrow.Table) -> Store:
        """Replace the labels or annotations of the images in the store, and keep all records.

        Args:
            manifest: The new manifest, which holds the hash of the replaced labels.

        Returns:
            The store with the new manifest.

        Raises:
            ValueError: Another process is writing to this store.
        """
        with locked(self.folder, "--store"):
            write_bytes(self.folder / "images.parquet", parquet_bytes(images))
            write_json(self.folder / "store.json", manifest.to_dict())
        return Store(self.folder, manifest)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep other processes from writing within the block. First, remove unfinished files of killed processes."""
        with locked(self.folder, "--store"):
            for file in self.folder.rglob(".*"):
                if is_temporary(file.name) and file.is_file():
                    file.unlink(missing_ok=True)
            yield

    def images(self) -> pyarrow.Table:
        """Read the list of images: see :meth:`create`.

        Raises:
            StoreError: The file of the list is damaged or absent.
        """
        path = self.folder / "images.parquet"
        try:
            table: pyarrow.Table = read_parquet(path)
        except Exception as error:  # pyarrow raises errors of its own kinds, OSError and ValueError
            raise StoreError(
                f"expected the list of images in {path}, got: {error}. Start the run again, which writes it anew"
            ) from error
        return table

    def _mend_images(self, images: pyarrow.Table) -> None:
        """Write the list of images again if its file is damaged; the manifests agree, so the images are the same."""
        try:
            sound = self.images().equals(images)
        except StoreError:
            sound = False
        if not sound:
            write_bytes(self.folder / "images.parquet", parquet_bytes(images))

    def models(self) -> dict[str, ModelStore]:
        """Return the models in the store, finished or not, by name.

        Raises:
            StoreError: A manifest is damaged, or two models have the same name.
        """
        found: dict[str, ModelStore] = {}
        for path in sorted((self.folder / "models").glob("*/model.json")):
            model = ModelStore(self, path.parent, _model_manifest(path))
            name = model.manifest.name
            if name in found:
                raise StoreError(
                    f"expected models of different names, got {name!r} in {found[name].folder} and in {path.parent}: "
                    "delete one of the two folders"
                )
            found[name] = model
        return found

    def model(self, name: str) -> ModelStore:
        """Return the model with this name.

        Raises:
            StoreError: The store has no such model.
        """
        models = self.models()
        if name not in models:
            raise StoreError(f"expected a model out of {', '.join(models) or '(none)'} in {self.folder}, got {name!r}")
        return models[name]

    def add_model(self, manifest: ModelManifest) -> ModelStore:
        """Add a model to the store, or return the model with the same manifest.

        A model with the same name and a different manifest is replaced if it has no finished unit.

        Raises:
            StoreError: A model of this name has finished units, from other weights or settings.
            ValueError: A model of this name has another manifest, and another process is writing to the store.
        """
        check_name(manifest.name)
        model = self.models().get(manifest.name)
        folder = self.folder / "models" / folder_name(manifest.name) if model is None else model.folder
        path = folder / "model.json"
        if model is not None:
            lines = differences(model.manifest.to_dict(), manifest.to_dict())
            if not lines:
                return model
            # The manifest is replaced under the lock, so that no records of another running process get this manifest.
            with locked(self.folder, "--store"):
                # A model without finished units, on a full GPU for example, may be begun again with other settings.
                if model.finished() or model.blocks():
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
        manifest: The weights and settings that the records depend on.
    """

    store: Store
    folder: Path
    manifest: ModelManifest

    def with_facts(self, facts: ModelFacts) -> ModelStore:
        """Write facts into the model's manifest, and return the model's store with these facts. Records stay valid."""
        manifest = replace(self.manifest, facts=facts)
        write_json(self.folder / "model.json", manifest.to_dict())
        return replace(self, manifest=manifest)

    def finished(self) -> set[int]:
        """Return the numbers of the units whose records are written."""
        matches = (_UNIT.fullmatch(path.name) for path in self.folder.iterdir() if path.is_file())
        numbers = {int(match[1]) for match in matches if match}
        return {number for number in numbers if number < self.store.manifest.num_units}

    def blocks(self) -> dict[int, Path]:
        """Return the files of the blocks that a sweep cell by cell has finished, by number: see ``store/blocks.py``."""
        matches = ((_BLOCK.fullmatch(path.name), path) for path in self.folder.iterdir() if path.is_file())
        return {int(match[1]): path for match, path in matches if match}

    def pending(self) -> list[int]:
        """Return the numbers of the units that are still to be evaluated."""
        done = self.finished()
        return [number for number in range(self.store.manifest.num_units) if number not in done]

    def write(self, number: int, records: pyarrow.Table) -> None:
        """Write the records of a unit.

        Args:
            records: One row for each image and cell: columns ``image`` and ``cell`` and the columns of the task. An
                image without rows is named with the reason under :data:`BAD_IMAGES` in the metadata.

        Raises:
            OSError: The records could not be written, on a full disk for example. All earlier files are kept.
        """
        self.write_records(f"unit-{number:06d}.parquet", records)

    def write_records(self, name: str, records: pyarrow.Table) -> None:
        """Write a file of records: see :meth:`write`."""
        path = self.folder / name
        try:
            write_bytes(path, parquet_bytes(records))
        except OSError as error:
            raise OSError(
                f"expected to write {path}, got: {error.strerror}. All finished units are kept: {advice(error)}"
            ) from error

    def read(self, number: int, columns: list[str] | None = None) -> pyarrow.Table:
        """Read the records of a unit, and check that they have one row for each of its images and each cell.

        Args:
            columns: Names of the columns to return; all if None.

        Raises:
            StoreError: The file is damaged, or rows are missing, repeated or of other images.
        """
        path = self.folder / f"unit-{number:06d}.parquet"
        wanted = None if columns is None else list(dict.fromkeys((*columns, "image", "cell")))
        try:
            table: pyarrow.Table = read_parquet(path, wanted)
            check_rows(table, self.store.manifest.unit(number), range(len(self.store.manifest.cells)))
            return table if columns is None else table.select(columns)
        except Exception as error:  # pyarrow raises errors of its own kinds, OSError and ValueError
            raise StoreError(f"expected records in {path}, got: {error}. Delete the file and start again") from error

    def batches(self, columns: list[str] | None = None) -> Iterator[pyarrow.Table]:
        """Yield the records of all finished units in the order of their numbers, one unit at a time."""
        for number in sorted(self.finished()):
            yield self.read(number, columns)


def _model_manifest(path: Path) -> ModelManifest:
    try:
        return ModelManifest.from_dict(read_json(path))
    except (TypeError, KeyError) as error:
        raise StoreError(
            f"expected a manifest in {path}, got one that is damaged ({error}): put back a copy of it, or delete the "
            f"folder {path.parent} and evaluate the model again"
        ) from error
