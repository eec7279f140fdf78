"""Compare the attention windows of checkpoints and models, by their tables of relative positions.

The shapes of SwinV2's weights do not depend on its windows. Only these tables, which models compute themselves, show
the windows that a checkpoint was trained with. timm does not save the tables, but files from Microsoft and from old
timm releases have them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dtn_det.checkpoints.timm_layout import is_timm_model, timm_name
from dtn_det.datasets.remarks import Remark, agreeing
from dtn_det.errors import CheckpointError

_TABLE = "relative_coords_table"
_INDEX = "relative_position_index"
# Tables with smaller differences count as equal. Half precision changes entries by up to 0.004. Tables for windows of
# 12 and 13 tokens, the closest sizes in use, differ by 0.03.
_TOLERANCE = 0.01


@dataclass(frozen=True)
class Windows:
    """The comparison of the tables of relative positions in a file and in a model.

    Attributes:
        others: Names of tables whose shape differs from the model's.
        there: Window of the first of these tables in the file: height and width, or only the number of tokens.
        here: Window of the same table in the model.
        scaled: Names of coordinate tables with the model's shape but other values, as in a model that was pretrained
            with other windows before it was fine-tuned.
        numbered: Names of index tables with the model's shape but other values.
    """

    others: tuple[str, ...] = ()
    there: tuple[int, ...] = ()
    here: tuple[int, ...] = ()
    scaled: tuple[str, ...] = ()
    numbered: tuple[str, ...] = ()

    def check(self, model: nn.Module, source: str, advice: str) -> None:
        """Check that the file has the windows of the model.

        Args:
            advice: What the user can do if timm has no model with the file's windows, as the end of a sentence.

        Raises:
            CheckpointError: The file has other windows.
        """
        if not self.others:
            return
        other = _of_window(model, self.here, self.there)
        raise CheckpointError(
            f"expected weights for windows of {_written(self.here)} tokens, which the model has, got {source} with "
            f"{self.others[0]} of a model with windows of {_written(self.there)}, for which its position biases were "
            f"trained: {f'name timm:{other}' if other else advice}"
        )

    def remarks(self, source: str) -> tuple[Remark, ...]:
        """Return remarks on the tables of the file that differ from the model's."""
        found = []
        if self.others:
            what = agreeing(
                len(self.others),
                "{table|tables} of relative positions {is that|are those} of a model with windows of "
                f"{_written(self.there)} tokens; the model has {_written(self.here)}, so outputs are others at first",
            )
            found.append(Remark("other_windows", what, source, len(self.others), self.others[:3]))
        for names, kind in ((self.scaled, "coordinates"), (self.numbered, "indices")):
            if names:
                reason = "as after a pretraining with other windows (pretrained_window_sizes); " * (
                    kind == "coordinates"
                )
                what = agreeing(
                    len(names),
                    f"{{table|tables}} of the {kind} of relative positions {{has|have}} other values than in the "
                    f"model, {reason}the model keeps its own, so outputs are others than those of the file's model",
                )
                found.append(Remark("other_positions", what, source, len(names), names[:3]))
        return tuple(found)


def compare_windows(state: Mapping[str, Tensor], model: nn.Module) -> Windows:
    """Compare the tables of relative positions in a state dict with the tables that a model computes but does not save.

    Args:
        state: Names and tensors, in the names of the model.
    """
    of_file = {name: value for name, value in state.items() if name.endswith((_TABLE, _INDEX)) and not value.is_meta}
    if not of_file:
        return Windows()
    saved = model.state_dict().keys()
    # Some wrappers add their name in `named_buffers()` but not in state dicts, so all ends of names are tried.
    own = {
        name: value
        for buffer, value in model.named_buffers(remove_duplicate=False)
        if buffer.endswith((_TABLE, _INDEX)) and not value.is_meta
        for name in _ends(buffer)
    }
    pairs = {name: (value, own[name]) for name, value in of_file.items() if name in own and name not in saved}
    others = tuple(name for name, (there, here) in pairs.items() if there.shape != here.shape)
    values = tuple(name for name, pair in pairs.items() if name not in others and not _close(*pair))
    there, here = map(_window, pairs[others[0]]) if others else ((), ())
    return Windows(
        others,
        there,
        here,
        scaled=tuple(name for name in values if name.endswith(_TABLE)),
        numbered=tuple(name for name in values if name.endswith(_INDEX)),
    )


def _ends(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[first:]) for first in range(len(parts))]


def _close(there: Tensor, here: Tensor) -> bool:
    return bool(torch.allclose(there.cpu().double(), here.cpu().double(), rtol=0.0, atol=_TOLERANCE))


def _window(table: Tensor) -> tuple[int, ...]:
    """Return a table's window: (height, width), or (tokens,) for an index table of a non-square window."""
    if table.ndim == 4:  # coordinates: 1 x (2H - 1) x (2W - 1) x 2
        return (table.shape[1] + 1) // 2, (table.shape[2] + 1) // 2
    tokens = table.shape[0] if table.ndim else 0
    side = math.isqrt(tokens)
    return (side, side) if side * side == tokens else (tokens,)


def _written(window: tuple[int, ...]) -> str:
    return " x ".join(map(str, window))


def _of_window(model: nn.Module, here: tuple[int, ...], there: tuple[int, ...]) -> str:
    """Return the name of the same timm model with the windows ``there``; empty if timm has no such model."""
    name = timm_name(model)
    other = re.sub(rf"window{here[0]}(?!\d)", f"window{there[0]}", name)
    return other if other != name and is_timm_model(other) else ""
