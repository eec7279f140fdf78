"""Parts for configs that train on sequences: the classifier, the data set and the learning-rate schedule.

``dict(type="SequenceClassifier", encoder=..., norm_cfg=...)``, ``dict(type="ListOps", data_root=..., ann_file=...)``
and ``dict(type="InverseSqrtLR", begin=...)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from mmengine.dataset import BaseDataset
from mmengine.model import BaseModel
from mmengine.optim import _ParamScheduler
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from dtn_det.conversion.config import convert
from dtn_det.errors import InputError
from dtn_det.sequence.encoders import CLASS_TOKEN, PADDING, Sizes, build_encoder, check_integers
from dtn_det.sequence.listops import NUM_CLASSES, read_listops

Mode = Literal["tensor", "loss", "predict"]
# MMEngine's value of `end` for a scheduler that never ends.
INF = int(1e9)


class SequenceClassifier(BaseModel):  # type: ignore[misc]
    """An encoder and two linear layers on the class token's output, as in the Long-Range Arena.

    The class token comes first and is part of the sequence: norms with statistics over tokens include the class token,
    but not the padding. All inputs are padded to the same length, so that outputs do not depend on the padding of a
    batch.

    Args:
        encoder: ``type`` and options of :func:`~dtn_det.sequence.encoders.build_encoder`, with the fields of
            :class:`~dtn_det.sequence.encoders.Sizes`.
        norm_cfg: The norms of the blocks, see :func:`dtn_det.conversion.config.convert`; None or ``type='LN'`` for
            LayerNorm.
        head_dims: Number of channels between the two linear layers.
        data_preprocessor: As in MMEngine's ``BaseModel``.

    Raises:
        InputError: The config does not fit.
    """

    def __init__(
        self,
        encoder: Mapping[str, Any],
        norm_cfg: Mapping[str, Any] | None = None,
        num_classes: int = NUM_CLASSES,
        head_dims: int = 2048,
        data_preprocessor: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(data_preprocessor)
        check_integers(num_classes=num_classes, head_dims=head_dims)
        options = dict(encoder)
        if "type" not in options:
            raise InputError(f"expected encoder with a type, got {options}: write encoder=dict(type='bigbird', ...)")
        name = options.pop("type")
        sizes = Sizes(**{key: options.pop(key) for key in list(options) if key in Sizes.__dataclass_fields__})
        built = build_encoder(name, sizes, **options)
        norm = dict(norm_cfg or {})
        if norm:
            norm.setdefault("grid", "sequence")
        self.encoder = convert(built.model, norm)
        self.length = built.length
        self.max_tokens = sizes.max_tokens
        self.head = nn.Sequential(nn.Linear(built.width, head_dims), nn.ReLU(), nn.Linear(head_dims, num_classes))

    def init_weights(self) -> None:
        """Do nothing: transformers initialised the weights when it built the model."""

    def forward(
        self, inputs: Tensor | Sequence[Tensor], data_samples: Sequence[DataSample] | None = None, mode: Mode = "tensor"
    ) -> Tensor | dict[str, Tensor] | list[DataSample]:
        """Classify sequences.

        Args:
            inputs: Token numbers ``(B, L)``, padded with 0, or ``B`` tensors ``(L,)`` of any lengths.
            data_samples: Samples with labels; predictions are added to them.
            mode: ``'tensor'`` for logits ``(B, num_classes)``, ``'loss'`` for the cross entropy, ``'predict'`` for
                samples with predictions.

        Raises:
            InputError: A sequence is too long or empty.
            ValueError: The mode is unknown.
        """
        logits = self._logits(inputs)
        if mode == "tensor":
            return logits
        if mode == "loss" and data_samples is not None:
            labels = torch.cat([sample.gt_label for sample in data_samples]).to(logits.device)
            return {"loss": F.cross_entropy(logits, labels)}
        if mode == "predict":
            samples = [DataSample() for _ in logits] if data_samples is None else list(data_samples)
            scores = logits.float().softmax(dim=1)
            for sample, score in zip(samples, scores, strict=True):
                sample.set_pred_score(score).set_pred_label(score.argmax())
            return samples
        raise InputError(f"expected mode tensor, predict, or loss with data_samples, got {mode!r}")

    def _logits(self, inputs: Tensor | Sequence[Tensor]) -> Tensor:
        tokens = self._pad(inputs)
        mask = tokens != PADDING
        positions = torch.arange(self.length, device=tokens.device).expand_as(tokens)
        # Without position_ids, some encoders number positions from another value than 0, or skip padding.
        output = self.encoder(input_ids=tokens, attention_mask=mask.long(), position_ids=positions)
        return self.head(output.last_hidden_state[:, 0])

    def _pad(self, inputs: Tensor | Sequence[Tensor]) -> Tensor:
        """Put the class token before each sequence and padding after it; return ``(B, self.length)``."""
        if isinstance(inputs, Tensor):
            sequences = inputs
        else:
            sequences = nn.utils.rnn.pad_sequence(list(inputs), batch_first=True, padding_value=PADDING)
        counts = (sequences != PADDING).sum(1)
        if not torch.equal(
            sequences != PADDING, torch.arange(sequences.shape[1], device=counts.device) < counts[:, None]
        ):
            raise InputError("expected padding behind the tokens of a sequence, got 0 among them: number tokens from 1")
        shortest, longest = int(counts.min()), int(counts.max())
        if shortest < 1 or longest > self.max_tokens:
            raise InputError(
                f"expected sequences of 1 to {self.max_tokens} tokens, got some of {shortest} to {longest}: raise "
                "max_tokens of the encoder, or leave them out"
            )
        first = sequences.new_full((len(sequences), 1), CLASS_TOKEN)
        tokens = torch.cat([first, sequences[:, :longest]], dim=1)
        return F.pad(tokens, (0, self.length - tokens.shape[1]), value=PADDING)


class ListOpsDataset(BaseDataset):  # type: ignore[misc]
    """The sequences and labels of one file, as items for :class:`SequenceClassifier`.

    Args:
        ann_file: The TSV file, see :func:`~dtn_det.sequence.listops.read_listops`.
        max_tokens: Largest number of tokens in a sequence; use the same value for the encoder.
        **kwargs: Further arguments of MMEngine's ``BaseDataset``, such as ``data_root`` and ``indices``.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: A row is not in the ListOps format, or too long. The message contains the file and the line.
    """

    METAINFO = {"classes": tuple(map(str, range(10)))}  # noqa: RUF012

    def __init__(self, ann_file: str, max_tokens: int | None = None, **kwargs: Any) -> None:
        self.max_tokens = max_tokens
        super().__init__(ann_file, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the tokens (as bytes) and the label of each sequence."""
        rows = read_listops(Path(self.ann_file), self.max_tokens)
        found = [{"tokens": tokens, "gt_label": label} for tokens, label in rows]
        if not found:
            raise InputError(f"expected sequences in {self.ann_file}, got none behind its header: draw them again")
        return found

    def prepare_data(self, idx: int) -> dict[str, Any]:
        """Return ``inputs``, the token numbers ``(L,)`` as int64, and ``data_samples`` with the label."""
        row = self.get_data_info(idx)
        tokens = torch.frombuffer(bytearray(row["tokens"]), dtype=torch.uint8).long()
        return {"inputs": tokens, "data_samples": DataSample().set_gt_label(row["gt_label"])}


class InverseSqrtLR(_ParamScheduler):  # type: ignore[misc]
    """A learning rate inversely proportional to the square root of the step: ``lr * sqrt(begin / step)``.

    The schedule starts at ``begin``, where a linear warm-up ends. There the rate is ``lr``, as set in the optimizer.

    Args:
        begin: Step of the run at which the schedule starts, at least 1. Shorter runs never start it.
        end: Step at which the schedule ends.
        **kwargs: Further arguments of MMEngine's schedulers.

    Raises:
        ValueError: ``begin`` is below 1.
    """

    def __init__(self, optimizer: Any, begin: int, end: int = INF, **kwargs: Any) -> None:
        if begin < 1:
            raise InputError(f"expected begin of at least 1, the last step of a warm-up, got {begin}")
        super().__init__(optimizer, "lr", begin, max(end, begin + 1), **kwargs)

    def _get_value(self) -> list[float]:
        if self.last_step == 0:
            return [group["lr"] for group in self.optimizer.param_groups]
        # `last_step` counts from `begin` on.
        step = self.begin + self.last_step
        factor = ((step - 1) / step) ** 0.5
        return [group["lr"] * factor for group in self.optimizer.param_groups]
