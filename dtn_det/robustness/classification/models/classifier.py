"""The interface of all classifiers from any library: 8-bit images in, logits out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dtn_det.cost.facts import ModelFacts
from dtn_det.cost.flops import forward_flops
from dtn_det.datasets.remarks import Remark, counted
from dtn_det.errors import InputError
from dtn_det.robustness.pixel_values import check_unit_range
from dtn_det.robustness.store.manifest import ModelManifest, hash_weights
from dtn_det.system.processes import worker_died


@dataclass(frozen=True)
class View:
    """The form in which a worker prepares a corrupted image for a model. Models with equal views share the image.

    Attributes:
        size: Height and width to which an image of another size is resized; None to resize no image.
        interpolation: Resampling filter of Pillow: ``nearest``, ``bilinear``, ``bicubic`` or ``lanczos``.
    """

    size: tuple[int, int] | None = None
    interpolation: str = "bilinear"

    def of(self, side: int) -> View:
        """Return the view for square images with this side. Views that do not resize such images become equal."""
        return View() if self.size in (None, (side, side)) else self


@dataclass(frozen=True)
class Classifier:
    """A model that can be evaluated.

    Attributes:
        name: Name of the model in the store and in reports.
        source: The model as the user named it.
        network: The module that holds the weights.
        forward: Function from images to logits, ``(N, classes)``. The images are ``(N, 3, H, W)`` uint8 RGB on the
            network's device, and not contiguous in memory.
        view: The form of the images that workers prepare for the model.
        protocol: The settings that results depend on besides weights and images.
        versions: Versions of the libraries that the model needs.
        training: How the model was trained, if known, and which of several sets of weights was loaded.
        num_classes: Number of logits for each image; None if the model does not state it.
        class_names: Names of the classes in the order of the logits; empty if checkpoint and config hold none.
        class_order: How the training numbered class folders: ``'sorted'`` or ``'natural'``, see
            :data:`dtn_det.datasets.folders.label_maps.CLASSES`; empty if unknown.
        remarks: What was decided when the checkpoint was read.
    """

    name: str
    source: str
    network: nn.Module
    forward: Callable[[Tensor], Tensor]
    view: View
    protocol: Mapping[str, str]
    versions: Mapping[str, str] = field(default_factory=dict)
    training: Mapping[str, str] = field(default_factory=dict)
    num_classes: int | None = None
    class_names: tuple[str, ...] = ()
    class_order: str = ""
    remarks: tuple[Remark, ...] = ()

    def logits(self, images: Tensor) -> object:
        """Run the model on images: see :attr:`forward`. The result is not checked: see :func:`check_logits`.

        Raises:
            ValueError: The model raises an error; the message names the model and the error.
            torch.OutOfMemoryError: The accelerator's memory is full.
        """
        try:
            return self.forward(images)
        except torch.OutOfMemoryError:
            raise
        # Third-party model code may raise anything.
        except (Exception, SystemExit) as error:
            if worker_died(error):
                raise
            channels = self._image_channels()
            if channels is not None and channels != images.shape[1]:
                raise InputError(
                    f"expected a model of RGB images, got {self.name!r}, whose first convolution takes "
                    f"{counted(channels, 'channel')}: name python:MODULE:FUNCTION, whose function returns the model "
                    "and a function that makes its input from RGB images"
                ) from error
            raise InputError(
                f"expected the model {self.name!r} to answer to images of shape {tuple(images.shape)}, got "
                f"{type(error).__name__}: {error}: mend it, or name another. What is finished is kept"
            ) from error

    def _image_channels(self) -> int | None:
        """Return the number of input channels of the first convolution; None if there is none."""
        first = next((layer for layer in self.network.modules() if isinstance(layer, nn.Conv2d)), None)
        return None if first is None else first.in_channels

    def manifest(self, protocol: Mapping[str, str], versions: Mapping[str, str]) -> ModelManifest:
        """Return the model's manifest for a store."""
        return ModelManifest(
            name=self.name,
            source=self.source,
            weights_hash=hash_weights(self.network.state_dict()),
            num_parameters=sum(parameter.numel() for parameter in self.network.parameters()),
            protocol={**self.protocol, **protocol},
            versions={**versions, **self.versions},
        )

    def facts(self, side: int) -> ModelFacts:
        """Return the FLOPs for one image and the training of the model, for reports.

        Args:
            side: Side of the corrupted images in pixels.
        """
        height, width = self.view.of(side).size or (side, side)
        device = next((weights.device for weights in self.network.parameters()), None)
        flops = forward_flops(
            self.network, self.forward, torch.zeros(1, 3, height, width, dtype=torch.uint8, device=device)
        )
        return ModelFacts(flops, "" if flops is None else f"{height}x{width}", self.training)


class Normalizer:
    """Normalises 8-bit images as a network expects them, on the device of the images.

    Args:
        mean: Mean of each channel, for images in [0, 1].
        std: Standard deviation of each channel, for images in [0, 1].
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean = torch.tensor(mean).view(1, -1, 1, 1)
        self.std = torch.tensor(std).view(1, -1, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        """Return images, ``(N, C, H, W)`` uint8, scaled to [0, 1] and normalised, as float32."""
        scaled = images.contiguous().float().div_(255)
        return scaled.sub_(self.mean.to(images.device)).div_(self.std.to(images.device))


def check_logits(logits: object, num_images: int, num_classes: int, name: str) -> Tensor:
    """Check that a model's output is a tensor with one real number for each image and class, and return it.

    Raises:
        ValueError: The output is something else.
    """
    if not isinstance(logits, Tensor):
        raise InputError(
            f"expected the model {name!r} to return a tensor of logits, got {type(logits).__name__}: wrap it"
        )
    if tuple(logits.shape) != (num_images, num_classes):
        raise InputError(
            f"expected {num_classes} logits for each of {counted(num_images, 'image')} from the model {name!r}, got "
            f"the shape {tuple(logits.shape)}: name a model for this data set, or number the classes as it does with "
            "--classes"
        )
    if logits.is_complex():
        raise InputError(f"expected real logits from the model {name!r}, got {logits.dtype}: convert them in it")
    return logits


def channel_values(given: Mapping[str, Any], known: Mapping[str, Any], channels: int) -> dict[str, tuple[float, ...]]:
    """Return the ``mean`` and ``std`` that normalise a model's input, with a value for each channel.

    Args:
        given: The user's ``mean`` and ``std``, each with a value for each channel or one for all; None to use timm's
            values.
        known: timm's settings for the model. A missing mean is 0, and a missing standard deviation is 1.

    Raises:
        InputError: The number of values is neither 1 nor the number of channels. A value is not finite, or a ``std`` is
            not positive. The values are for pixels from 0 to 255.
    """
    neutral = {"mean": (0.0,), "std": (1.0,)}
    chosen = {name: known.get(name) or neutral[name] if one is None else one for name, one in given.items()}
    wrong = [name for name, one in chosen.items() if not isinstance(one, list | tuple) or len(one) not in (1, channels)]
    if wrong:
        own = {f"timm's {len(chosen[name])}" if given[name] is None else f"{name}={given[name]!r}" for name in wrong}
        passed = " and ".join(f"{name}=({', '.join(name[0] * channels)}{',' * (channels == 1)})" for name in wrong)
        raise InputError(
            f"expected {' and '.join(wrong)} of {counted(channels, 'value')} for a model of "
            f"{counted(channels, 'channel')}, got {' and '.join(sorted(own))}: pass {passed}, "
            f"{'those' if len(wrong) > 1 else 'that'} of your training"
        )
    values = {name: tuple(map(float, one)) * (channels if len(one) == 1 else 1) for name, one in chosen.items()}
    if not all(math.isfinite(one) for of_one in values.values() for one in of_one) or min(values["std"]) <= 0:
        raise InputError(
            f"expected mean and std of finite numbers, std above 0, got {values['mean']} and {values['std']}: pass "
            "those of your training, of values from 0 to 1"
        )
    check_unit_range(values["mean"], values["std"], "for this model", "pass")
    return values
