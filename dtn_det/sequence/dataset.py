"""A ListOps file as a data set of MMEngine: `dict(type="ListOps", data_root=..., ann_file=...)`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.dataset import BaseDataset
from mmpretrain.structures import DataSample

from dtn_det.errors import InputError
from dtn_det.sequence.reading import read_listops


class ListOpsDataset(BaseDataset):  # type: ignore[misc]
    """Sequences and labels of one file; an item is what :class:`SequenceClassifier` takes.

    Args:
        ann_file: The TSV file, see :func:`~dtn_det.sequence.reading.read_listops`.
        max_tokens: Most tokens of a sequence, as for the encoder.
        **kwargs: Further arguments of MMEngine's ``BaseDataset``, such as ``data_root`` and ``indices``.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: A row that is none of ListOps, or too long; the message names file and line.
    """

    METAINFO = {"classes": tuple(map(str, range(10)))}  # noqa: RUF012

    def __init__(self, ann_file: str, max_tokens: int | None = None, **kwargs: Any) -> None:
        self.max_tokens = max_tokens
        super().__init__(ann_file, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Tokens as bytes, and the label, of each sequence."""
        rows = read_listops(Path(self.ann_file), self.max_tokens)
        found = [{"tokens": tokens, "gt_label": label} for tokens, label in rows]
        if not found:
            raise InputError(f"expected sequences in {self.ann_file}, got none behind its header: draw them again")
        return found

    def prepare_data(self, idx: int) -> dict[str, Any]:
        """``inputs``: token numbers ``(L,)``, int64; ``data_samples``: the label."""
        row = self.get_data_info(idx)
        tokens = torch.frombuffer(bytearray(row["tokens"]), dtype=torch.uint8).long()
        return {"inputs": tokens, "data_samples": DataSample().set_gt_label(row["gt_label"])}
