"""What is known of the models that are converted: their extra tokens, what they read, and what they do to tokens."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

_PREFIX_ATTRIBUTES = ("num_prefix_tokens", "num_extra_tokens")
# Parameters of timm, mmpretrain and Hugging Face that become tokens in front of the grid, and behind it (YOLOS).
_PREFIX_PARAMETERS = re.compile(
    r"(cls|class|dist|distillation|reg|register|storage)_tokens?(_\d+)?$|class_embedding$|^cls$"
)
_SUFFIX_PARAMETERS = re.compile(r"detection_tokens$")

_WORDS = frozenset({"input_ids", "token_ids", "decoder_input_ids"})
_IMAGES = frozenset({"pixel_values", "image", "images", "img", "imgs", "pixel_values_videos"})
_FRAMES = ("num_frames", "frames_per_clip", "tubelet_size", "temporal_patch_size")
_OTHER_TOKENS = re.compile(r"cross_?att|encoder_att|multihead_attn|src_attn")

# Classes whose tokens are no grid in row-major order where the norms of their blocks see them, by what they do to them.
_REARRANGING = {
    "unfolds its maps into patches": (
        *("MobileVitBlock", "MobileVitV2Block"),  # timm
        *("MobileViTLayer", "MobileViTV2Layer"),  # Hugging Face
        "MobileViTBlock",  # mmpretrain
    ),
    "pools its tokens inside its blocks": (
        *("MultiScaleVit", "CSATv2"),  # timm
        "MViT",  # mmpretrain
    ),
    "sorts its tokens by windows": (
        *("Hiera", "Nest"),  # timm
        *("HieraModel", "HieraEncoder"),  # Hugging Face
        "HiViT",  # mmpretrain
    ),
    "has tokens within tokens": ("TNT", "TransformerInTransformer"),
    "drops and shuffles its tokens": (
        "ViTMAEEmbeddings",  # Hugging Face
        *("MAEViT", "MAEHiViT", "MILANViT", "MFFViT", "MixMIMTransformer", "iTPNHiViT"),  # mmpretrain
    ),
    "gathers its tokens in groups": ("GroupViTStage",),
}


@dataclass(frozen=True)
class ExtraTokens:
    """Tokens of a model that have no place in its grid.

    Attributes:
        prefix: Class, distillation and register tokens, which stand before the grid.
        suffix: Detection tokens, which stand behind it.
    """

    prefix: int = 0
    suffix: int = 0

    @property
    def total(self) -> int:
        """Both together."""
        return self.prefix + self.suffix

    def __str__(self) -> str:
        kinds = ((self.prefix, "prefix"), (self.suffix, "suffix"))
        return " and ".join(f"{number} {kind} token{'s' * (number != 1)}" for number, kind in kinds if number)


def extra_tokens(host: nn.Module) -> ExtraTokens:
    """The tokens beyond the grid that a model says it has: by an attribute, else by the parameters that become them."""
    prefix = suffix = 0
    for name, parameter in host.named_parameters():
        last = name.rpartition(".")[2]
        number = parameter.shape[-2] if parameter.dim() > 1 else 1
        if _PREFIX_PARAMETERS.search(last):
            prefix = max(prefix, number) if re.search(r"_\d+$", last) else prefix + number
        elif _SUFFIX_PARAMETERS.search(last):
            suffix += number
    said = (getattr(module, name, None) for module in host.modules() for name in _PREFIX_ATTRIBUTES)
    return ExtraTokens(next((number for number in said if type(number) is int), prefix), suffix)


def reads(modules: dict[str, nn.Module], name: str) -> str | None:
    """What the module at a path reads, if it is no image.

    The nearest module around it that takes words or images by name tells: `input_ids` or `pixel_values`.

    Args:
        modules: All modules of a model by path.
        name: Path of one of them.

    Returns:
        `'text'`, `'text and image together'`, or None: an image, or something that no name tells.
    """
    for path in (*_around(name), ""):
        arguments = _arguments(modules[path])
        if arguments & (_WORDS | _IMAGES):
            if not arguments & _WORDS:
                return None
            return "text and image together" if arguments & _IMAGES else "text"
    return None


def reads_images(modules: dict[str, nn.Module]) -> bool:
    """Whether a module takes images by name."""
    return any(_arguments(module) & _IMAGES for module in modules.values())


def _arguments(module: nn.Module) -> frozenset[str]:
    return frozenset(inspect.signature(module.forward).parameters)


def attends_to_others(block: nn.Module) -> bool:
    """Whether a block attends to the tokens of another module too, as decoders do, whose own tokens are queries."""
    return any(_OTHER_TOKENS.search(name) for name, _ in block.named_children())


def rearranges(model: nn.Module) -> tuple[str, str] | None:
    """Class and deed of a module that is known to take tokens out of the order of their grid."""
    kinds = {kind.__name__ for module in model.modules() for kind in type(module).__mro__}
    for deed, names in _REARRANGING.items():
        for name in names:
            if name in kinds:
                return name, deed
    return None


def reads_frames(model: nn.Module) -> bool:
    """Whether a model reads videos: its tokens are those of several images, or of boxes in time."""
    configs = (getattr(module, "config", None) for module in model.modules())
    names_frames = any(type(getattr(config, name, None)) in (int, list) for config in configs for name in _FRAMES)
    return names_frames or any(isinstance(module, nn.Conv3d) for module in model.modules())


def _around(name: str) -> Iterator[str]:
    """Paths of the modules around one, the nearest first, without the model itself."""
    while "." in name:
        name = name.rpartition(".")[0]
        yield name
