"""Load checkpoints into models. A model is changed only after a file has been read, unwrapped and found to fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import nn

from dtn_det.checkpoints.backbone_keys import rename_backbone, whose_names
from dtn_det.checkpoints.files import network_files, transformers_class
from dtn_det.checkpoints.fit import Fit, check_floating_point, compare_weights, with_tied_names
from dtn_det.checkpoints.parametrizations import check_parametrizations
from dtn_det.checkpoints.read import read_checkpoint
from dtn_det.checkpoints.several_networks import choose_network, network_taken
from dtn_det.checkpoints.state_dict import StateDict
from dtn_det.checkpoints.structure import build_advice
from dtn_det.checkpoints.timm_layout import in_own_layout, timm_name, with_biases
from dtn_det.checkpoints.trained_config import trained_options
from dtn_det.checkpoints.two_networks import WeightsKind
from dtn_det.checkpoints.weights import Weights, find_weights
from dtn_det.checkpoints.windows import compare_windows
from dtn_det.datasets.remarks import Remark, agreeing
from dtn_det.errors import CheckpointError, MisfitError
from dtn_det.layers.options import EXTRA_STATE, CarriesOptions, describe_options, other_options, unpack_options
from dtn_det.layers.token_norm import TokenNorm

OptionsPolicy = Literal["take", "keep", "refuse"]
"""What to do if the layers of a checkpoint were trained with other options than the model's layers have.

``'take'`` gives the model the options of the checkpoint, ``'keep'`` keeps the options of the model, and ``'refuse'``
raises an error.
"""

NORM_OF_THE_MODEL = "name the model or the config that it was trained with"


@dataclass(frozen=True)
class Loaded:
    """The weights of a checkpoint under the names of a model, and the decisions that led to them.

    Attributes:
        facts: Decisions that change results, by name, for the manifest of a store.
        remarks: Decisions as sentences for people.
    """

    content: Mapping[str, Any]
    state: StateDict
    facts: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[Remark, ...] = ()


def load_weights(
    model: nn.Module, source: str, *, weights: WeightsKind | None = None, advice: str = NORM_OF_THE_MODEL
) -> Loaded:
    """Load all weights of a model and the options of its norms from a checkpoint, for an evaluation.

    Args:
        model: The model, or wrappers with the model as ``module``. It stays unchanged if the checkpoint does not fit.
        source: Path or URL, see :func:`dtn_det.checkpoints.read.read_checkpoint`.
        weights: ``'ema'`` or ``'plain'``, for a checkpoint with both. With None, the average is taken if there is one.
            For a file of mmcv's EMAHook, None means the weights under the names of the model.
        advice: What the user can do if the checkpoint does not fit, as the end of a sentence.

    Raises:
        CheckpointError: The file cannot be read or does not fit. The message lists what does not fit and the likely
            cause.
    """
    model = inner_model(model)
    loaded = fit_weights(model, read_checkpoint(source), source, weights=weights, advice=advice)
    model.load_state_dict(loaded.state, strict=False)
    return loaded


def fit_weights(
    model: nn.Module,
    content: Mapping[str, Any],
    source: str,
    *,
    weights: WeightsKind | None = None,
    advice: str = NORM_OF_THE_MODEL,
    options: OptionsPolicy = "take",
    partial: bool = False,
) -> Loaded:
    """Find all weights of a model in the content of a checkpoint, without loading them.

    If the source is a folder with several networks, the network that fits is read and used instead of the content.

    Args:
        model: The model; left unchanged, except that ``options='take'`` sets the options of its layers.
        weights: See :func:`load_weights`.
        advice: See :func:`load_weights`.
        options: What to do if the options of layers differ.
        partial: Accept weights that do not fit, or whose model has other attention windows. Missing and unexpected
            names are then neither checked nor reported.

    Raises:
        CheckpointError: The weights do not fit, their model has other attention windows, or options differ with
            ``options='refuse'``.
    """

    def fit_content(content: Mapping[str, Any], source: str) -> Loaded:
        return _fit_content(model, content, source, weights, advice, options, partial)

    files = network_files(source)
    if not files:
        return fit_content(content, source)
    file, loaded = choose_network(files, source, fit_content)
    remark = network_taken(file, files, source)
    return replace(loaded, facts={**loaded.facts, "network": file.name}, remarks=(remark, *loaded.remarks))


def _fit_content(
    model: nn.Module,
    content: Mapping[str, Any],
    source: str,
    weights: WeightsKind | None,
    advice: str,
    options: OptionsPolicy,
    partial: bool,
) -> Loaded:
    model = inner_model(model)
    own = model.state_dict()
    found = find_weights(own, content, source, weights)
    check_floating_point(found.state, own, architecture(model), source)
    state, fit, renamed = in_names_of(model, found.state, own, source)
    if not (fit or partial):
        _check_parts(fit, found, source)
        raise misfit(fit, model, source, advice, found.state)
    windows = compare_windows(found.state, model)
    if not partial:
        windows.check(model, source, advice)
    taken = with_options(model, state, content, source, options, advice)
    left_out = () if partial else _left_out(fit, found, source)
    return Loaded(
        content,
        taken.state,
        {**found.fact(), **taken.facts},
        (*found.remarks(source), *renamed, *left_out, *windows.remarks(source), *taken.remarks),
    )


def _check_parts(fit: Fit, found: Weights, source: str) -> None:
    """Check that no name that the model lacks belongs to a parametrization."""
    try:
        check_parametrizations({name: found.state[name] for name in fit.unexpected if name in found.state})
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from None


def in_names_of(
    model: nn.Module, state: StateDict, own: StateDict, source: str
) -> tuple[StateDict, Fit, tuple[Remark, ...]]:
    """Compare weights with a model, after renaming them if they are in the layout of another library.

    Two kinds of renaming are tried. If the model has a Swin or PVT of MMDetection, this package renames weights in the
    names of the authors or timm. If the model is timm's, timm's own ``checkpoint_filter_fn`` renames them.

    Renamed weights are used in these cases:

    * all of them fit,
    * only the number of classes differs,
    * more of the model's names are found than before, and this package renamed the weights,
    * more of the model's names are found than before, timm renamed the weights, and the file merely lacks some of them,
      such as a classifier.

    Args:
        state: Names and tensors without wrappers.

    Returns:
        The weights, the comparison with the model, and remarks on what was renamed.

    Raises:
        CheckpointError: The weights of a Swin cannot be converted to MMDetection's order of channels.
    """
    buffers = [name for name, _ in model.named_buffers()]
    fit = compare_weights(state, own, buffers)
    if not (fit.missing or fit.unexpected):
        return state, fit, ()
    before = {name: value for name, value in state.items() if name not in fit.left_out}
    told: tuple[Remark, ...] = ()
    try:
        backbone = rename_backbone(before, own)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from None
    if backbone is not None:
        renamed, kind, names = backbone.state, "renamed_backbone", backbone.renamed
        what = (
            f"weights of the backbone have the names of {backbone.what} and were renamed and ordered as MMDetection's"
        )
    elif (found := in_own_layout(model, before)) is not None:
        if found.biases:
            return state, replace(fit, biases=found.biases), ()
        renamed, kind = found.state, "renamed_by_timm"
        names = tuple(name for name, value in found.state.items() if value is not before.get(name))
        told = found.remarks(source)
        what = f"weights are in another layout and were renamed by checkpoint_filter_fn of {type(model).__module__}"
    else:
        return state, fit, ()
    renamed = with_tied_names(renamed, own)
    then = compare_weights(renamed, own, buffers)
    lacks = backbone is None and then.lacks_only and then.known > fit.known
    if not (then or lacks) and then.num_classes is None and (backbone is None or then.known <= fit.known):
        return state, fit, ()
    check_floating_point(renamed, own, architecture(model), source)
    remark = (Remark(kind, what, source, len(names), names[:3]),) if names else ()
    return renamed, replace(then, left_out=fit.left_out), (*remark, *told)


def inner_model(model: nn.Module) -> nn.Module:
    """Return the model inside wrappers for several processes, test-time augmentation or ``torch.compile``."""
    while True:
        inner = getattr(model, "module", None) or getattr(model, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def misfit(fit: Fit, model: nn.Module, source: str, advice: str, state: StateDict | None = None) -> MisfitError:
    """Return the error to raise for a checkpoint that does not fit.

    Args:
        fit: The comparison of the checkpoint with the model.
        advice: What the user can do, as the end of a sentence.
        state: Names and tensors of the checkpoint, with which a detector's backbone is compared; None to skip this.
    """
    if state is not None and (known := _of_backbone(state, model, source)) is not None:
        return MisfitError(
            f"expected the weights of {architecture(model)} in {source}, got {known} of its backbone alone, as "
            "classifiers have them, without its neck and head. Name a checkpoint of the whole detector; training "
            'starts from this file with init_cfg=dict(type="Pretrained", checkpoint=FILE) in the backbone of the config'
        )
    kind = transformers_class(source)
    if kind is not None and not type(model).__module__.startswith("transformers"):
        return MisfitError(
            f"expected the weights of {architecture(model)} in {source}, got those of {kind} of Hugging Face's "
            f"transformers: {fit.problems()}. Name hf:FOLDER as the model to evaluate it as it is"
        )
    cause = fit.cause()
    if not cause and (whose := whose_names(fit.unexpected)):
        cause = f"The file has names as {whose} has them."
    if _lacks_classifier(fit, model):
        cause, advice = "The file has no classifier: it gives features.", "name a checkpoint with a trained classifier"
    if fit.biases and (other := with_biases(model)):
        advice = f"name timm:{other}"
    if fit.image_channels is not None:
        advice += (
            "; to evaluate a model of such images, name python:MODULE:FUNCTION, whose function returns the model and a "
            "function that makes its input from RGB images"
        )
    advice = _to_build(fit, model, source) or fit.advice() or advice[:1].upper() + advice[1:]
    return MisfitError(
        f"expected the weights of {architecture(model)} in {source}, got others: {fit.problems()}. "
        f"{cause}{' ' if cause else ''}{advice}",
        fit.num_classes,
    )


def _of_backbone(state: StateDict, model: nn.Module, source: str) -> str | None:
    """Return how many weights of a detector's backbone a checkpoint has, if it has no other part; else None."""
    backbone = getattr(model, "backbone", None)
    others = [f"{name}." for name, _ in model.named_children() if name == "neck" or name.endswith("_head")]
    own_others = {name for name in model.state_dict() if name.startswith(tuple(others))} if others else set()
    if not isinstance(backbone, nn.Module) or not own_others or own_others & set(state):
        return None
    own = backbone.state_dict()
    inner = {name.removeprefix("backbone."): value for name, value in state.items()}
    try:
        _, fit, _ = in_names_of(backbone, inner, own, source)
    except CheckpointError:
        return None
    # Backbones resize their tables of positions when they load a file.
    whole = fit.known > len(own) // 2 and len(fit.unexpected) <= len(own) // 4 and fit.positions_alone
    return f"{fit.known:,} of the {len(own):,} weights" if whole else None


def _lacks_classifier(fit: Fit, model: nn.Module) -> bool:
    """Return whether a checkpoint lacks the whole classifier of a model, which may have two heads, and nothing else."""
    settings = getattr(model, "pretrained_cfg", None)
    names = settings.get("classifier") if isinstance(settings, Mapping) else None
    if names is None and type(model).__name__ == "ImageClassifier":
        names = "head"
    starts = tuple(f"{name}." for name in ((names,) if isinstance(names, str) else names or ()))
    lacking = {start for start in starts for name in fit.missing if name.startswith(start)}
    return bool(starts) and fit.lacks_only and lacking == {*starts} and all(n.startswith(starts) for n in fit.missing)


def _to_build(fit: Fit, model: nn.Module, source: str) -> str:
    """Return advice on building the timm model that fits the file; empty if the arguments for it are not known."""
    number = fit.head_rows or getattr(model, "num_classes", None)
    if fit.structure is None or not fit.structure.arguments or not timm_name(model) or not isinstance(number, int):
        return ""
    return build_advice(timm_name(model), number, source, fit.structure.arguments)


def with_options(
    model: nn.Module,
    state: StateDict,
    content: Mapping[str, Any],
    source: str,
    policy: OptionsPolicy,
    advice: str = NORM_OF_THE_MODEL,
) -> Loaded:
    """Compare the options of a model's layers, both norms and others, with the options in a checkpoint.

    A checkpoint has options in its extra state. Without an extra state, the options of norms are taken from the config
    within the checkpoint.

    Args:
        model: The model; ``'take'`` sets the options of its layers.
        state: Names and tensors, in the names of the model.
        advice: What the user can do if options must not differ, as the end of a sentence.

    Returns:
        The state dict, with facts and remarks on options that differ. With ``'keep'`` the state dict lacks these
        options, so that the layers do not warn about them again.

    Raises:
        CheckpointError: With ``'take'``, the weights are of another norm. With ``'refuse'``, options differ.
    """
    of_config = trained_options(content)
    state = dict(state)
    counted: Counter[tuple[str, str, str, str]] = Counter()
    for prefix, layer in _layers_by_key(model).items():
        found = unpack_options(state.get(prefix + EXTRA_STATE))
        if found is None and isinstance(layer, TokenNorm):
            found = of_config
        own = layer.options()
        others = {} if found is None else other_options(own, found)
        if not others:
            continue
        before = {name: own[name] for name in others}
        if policy == "refuse" or (layer.class_key in others and policy == "take"):
            raise CheckpointError(
                f"expected the {layer.class_key}s of the model in {source}, got {describe_options(others)} where the "
                f"model has {describe_options(before)}: {advice}"
            )
        if policy == "take":
            layer.take_options(others)
        else:
            state.pop(prefix + EXTRA_STATE, None)
        counted[layer.class_key, type(layer).__name__, describe_options(others), describe_options(before)] += 1
    facts: dict[str, str] = {}
    for word, kind, told, _ in counted if policy == "take" else ():
        facts[f"{word} options"] = "; ".join(filter(None, (facts.get(f"{word} options"), f"{kind} {told}")))
    remarks = tuple(_options_remark(source, *key, count, policy) for key, count in counted.items())
    return Loaded(content, state, facts, remarks)


def _layers_by_key(model: nn.Module) -> dict[str, CarriesOptions]:
    """Return the layers that have options, each under the prefix of its names in the model's state dict.

    The prefix may differ from the path of the module, because some wrappers leave their own name out of state dicts.
    """
    layers = [module for module in model.modules() if isinstance(module, CarriesOptions)]
    places = {id(value): name for name, value in model.state_dict(keep_vars=True).items()} if layers else {}
    found = {}
    for layer in layers:
        for name, parameter in layer.named_parameters():
            if id(parameter) in places:
                found[places[id(parameter)].removesuffix(name)] = layer
                break
    return found


def _options_remark(
    source: str, word: str, kind: str, found: str, own: str, count: int, policy: OptionsPolicy
) -> Remark:
    if policy == "take":
        take = agreeing(count, f"{{{word} {kind} takes|{word}s {kind} take}}")
        trained = agreeing(count, "{it was|they were} trained")
        what = f"{take} {found} from it, with which {trained}; the model was built with {own}"
    else:
        keep = agreeing(count, f"{{{word} {kind} keeps|{word}s {kind} keep}}")
        what = f"{keep} {own} of the model; it was trained with {found}, so outputs are others at first"
    return Remark("norm_options", what, source, count)


def _left_out(fit: Fit, found: Weights, source: str) -> tuple[Remark, ...]:
    others = tuple(filter(None, (found.named.other, *found.named.aside)))
    names = (*fit.left_out, *(name for name in found.named.left_out if not name.startswith(others)))
    if not names:
        return ()
    what = agreeing(
        len(names),
        "{weight|weights} that the model does not have, of training or of what is around it, {was|were} left out",
    )
    return (Remark("weights_left_out", what, source, len(names), names[:3]),)


def architecture(model: nn.Module) -> str:
    """Return the name of a model for messages: its class, and the class of the model that it wraps."""
    inner = getattr(model, "backbone", None) or getattr(model, "model", None)
    name = type(model).__name__
    return f"{name} with {type(inner).__name__}" if isinstance(inner, nn.Module) else name
