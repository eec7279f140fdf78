"""Properties of models on which conversions depend: tokens outside the grid, the kind of input, the order of tokens."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import nn

from dtn_det.errors import InputError

_PREFIX_ATTRIBUTES = ("num_prefix_tokens", "num_extra_tokens")
# Names of parameters of timm, mmpretrain and Hugging Face that become tokens before the grid, or behind it (YOLOS).
_PREFIX_PARAMETERS = re.compile(
    r"(cls|class|dist|distillation|reg|register|storage)_tokens?_?(?P<stage>\d+)?$|class_embedding$"
)
_SUFFIX_PARAMETERS = re.compile(r"detection_tokens$")

_WORDS = frozenset({"input_ids", "token_ids", "decoder_input_ids"})
_IMAGES = frozenset({"pixel_values", "image", "images", "img", "imgs", "pixel_values_videos"})
_FRAMES = ("num_frames", "frames_per_clip", "tubelet_size", "temporal_patch_size")
_OTHER_TOKENS = re.compile(r"cross_?att|encoder_att|multihead_attn|src_attn")

# Classes of models and blocks in which tokens are not in the row-major order of a grid. The keys say what the classes
# do to the tokens.
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

# Argument of Qwen2-VL and its successors: the grids of the images whose patches are packed into one row.
_PACKED = "grid_thw"
_PACKS = "puts the patches of several images into one row, block by block"


@dataclass(frozen=True)
class ExtraTokens:
    """How many tokens of a model lie outside its grid.

    Attributes:
        prefix: Number of class, distillation and register tokens; they stand before the grid.
        suffix: Number of detection tokens; they stand behind the grid.
    """

    prefix: int = 0
    suffix: int = 0

    @property
    def total(self) -> int:
        """Number of tokens outside the grid, before and behind it."""
        return self.prefix + self.suffix

    def __str__(self) -> str:
        kinds = ((self.prefix, "prefix"), (self.suffix, "suffix"))
        return " and ".join(f"{number} {kind} token{'s' * (number != 1)}" for number, kind in kinds if number)


def extra_tokens(host: nn.Module) -> ExtraTokens:
    """Return how many tokens of a model lie outside the grid.

    The number of prefix tokens comes from an attribute if the model has one for it, else from the shapes of the token
    parameters.
    """
    prefix = suffix = 0
    for name, parameter in host.named_parameters():
        last = name.rpartition(".")[2]
        number = parameter.shape[-2] if parameter.dim() > 1 else 1
        found = _PREFIX_PARAMETERS.search(last)
        if found is not None:
            # Numbered parameters belong to stages or branches (CoaT, CrossViT), each of which has its own tokens.
            prefix = max(prefix, number) if found["stage"] else prefix + number
        elif _SUFFIX_PARAMETERS.search(last):
            suffix += number
    said = (getattr(module, name, None) for module in host.modules() for name in _PREFIX_ATTRIBUTES)
    return ExtraTokens(next((number for number in said if type(number) is int), prefix), suffix)


def reads(modules: dict[str, nn.Module], name: str) -> str | None:
    """Return what the tokens of a module represent, if that is not an image.

    The answer comes from the nearest module around it whose `forward` has an argument named for words or images, such
    as `input_ids` or `pixel_values`.

    Returns:
        `'text'` or `'text and image together'`; None for images, or if no module around it has such an argument.
    """
    for path in (*ancestors(name), ""):
        names = frozenset(arguments(modules[path]))
        if names & (_WORDS | _IMAGES):
            if not names & _WORDS:
                return None
            return "text and image together" if names & _IMAGES else "text"
    return None


def reads_images(modules: dict[str, nn.Module]) -> bool:
    """Return whether some module takes images, judged by the names of its arguments."""
    return any(_IMAGES & set(arguments(module)) for module in modules.values())


def arguments(module: nn.Module) -> tuple[str, ...]:
    """Return the names of the arguments of a module's `forward`, without `self`."""
    if "forward" in module.__dict__:
        return tuple(inspect.signature(module.forward).parameters)
    return _names(type(module).forward)[1:]


@functools.cache
def _names(function: Callable[..., object]) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)


def attends_to_others(block: nn.Module) -> bool:
    """Return whether a block also attends to tokens of another module, as in a decoder whose tokens are queries."""
    return any(_OTHER_TOKENS.search(name) for name, _ in block.named_children())


def check_order(model: nn.Module, grid_is_given: bool = False) -> None:
    """Check that the tokens of a model stay in the order of their grid.

    Args:
        grid_is_given: True if the user gives the grid. Models of videos are then accepted, because their frames can
            form one grid. Models that rearrange their tokens are refused in any case.

    Raises:
        InputError: The model is known to rearrange its tokens, or it reads videos.
    """
    found = rearranges(model)
    if found is not None:
        kind, deed = found
        raise InputError(
            f"expected tokens in the order of their grid, got {_part(kind, model)}, which {deed}: DTN has no grid "
            f"there; choose another model{_or_within(model)}"
        )
    if not grid_is_given and reads_frames(model):
        raise InputError(
            f"expected a model of single images, got {type(model).__name__}, which reads videos: its tokens are no "
            "grid of one image; choose another model, or pass grid= to convert_norm"
        )


def check_images_apart(model: nn.Module, norm: str) -> None:
    """Check that a model keeps the tokens of different images apart, as a norm with statistics over an image requires.

    Raises:
        InputError: The model packs the patches of several images into one row ``(N, C)``.
    """
    packing = _packing(model)
    if packing is not None:
        raise InputError(
            f"expected the tokens of each image apart, got {_part(packing, model)}, which {_PACKS}: {norm} takes "
            f"statistics over the tokens of an image; choose another model{_or_within(model)}"
        )


def _part(kind: str, model: nn.Module) -> str:
    return kind if kind == type(model).__name__ else f"{kind} of {type(model).__name__}"


def _or_within(model: nn.Module) -> str:
    """Return the end of an error message: it suggests norms within tokens if the model has a LayerNorm to convert."""
    has_norms = any(isinstance(module, nn.LayerNorm) for module in model.modules())
    return " or a norm within tokens (ln, gn, rmsnorm, scalenorm, dyt)" if has_norms else ""


def rearranges(model: nn.Module) -> tuple[str, str] | None:
    """Return the name of a class that changes the order of tokens, and what the class does; None if there is none."""
    kinds = {base.__name__ for kind in _kinds(model) for base in kind.__mro__}
    for deed, names in _REARRANGING.items():
        for name in names:
            if name in kinds:
                return name, deed
    packing = _packing(model)
    return None if packing is None else (packing, _PACKS)


def _packing(model: nn.Module) -> str | None:
    """Return the name of a module class that takes the patches of several images in one row; None if there is none."""
    kinds = (type(module) for module in model.modules())
    return next((kind.__name__ for kind in kinds if _PACKED in _names(kind.forward)), None)


def reads_frames(model: nn.Module) -> bool:
    """Return whether a model reads videos. Each of its tokens belongs to one of several frames, or spans several."""
    if any(issubclass(kind, nn.Conv3d) for kind in _kinds(model)):
        return True
    configs = (module.__dict__.get("config") for module in model.modules())
    return any(
        type(getattr(config, name, None)) in (int, list, tuple)
        for config in configs
        if config is not None
        for name in _FRAMES
    )


def hides_later_tokens(model: nn.Module) -> bool:
    """Return whether some attention of a model is causal, as in decoders of text."""
    if any(getattr(module, name, False) is True for module in model.modules() for name in ("is_causal", "is_decoder")):
        return True
    config = getattr(model, "config", None)
    return any(getattr(config, name, False) is True for name in ("is_decoder", "is_encoder_decoder"))


def _kinds(model: nn.Module) -> set[type[nn.Module]]:
    return {type(module) for module in model.modules()}


def ancestors(name: str) -> Iterator[str]:
    """Yield the paths of all modules that contain a module, the nearest first, without the model itself."""
    while "." in name:
        name = name.rpartition(".")[0]
        yield name
