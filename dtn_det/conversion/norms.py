"""`convert_norm` replaces LayerNorm by another norm in any built model."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from dtn_det.conversion.grid_memory import BlockGrid, Grid, GridMemory, PassHooks
from dtn_det.conversion.grids import GiveGrid, GiveSequence, RecordInput, RecordMask, RecordOutput, RestoreOrder
from dtn_det.conversion.hosts.traits import ExtraTokens, arguments, extra_tokens
from dtn_det.conversion.patch_layout import RecordLayout, tells_layout
from dtn_det.conversion.placement import VerifyPlaces, code_from_outside
from dtn_det.conversion.plan import (
    GridFunction,
    Groups,
    Layers,
    NormPlan,
    NormSite,
    check_across_tokens,
    plan_norms,
    some_names,
)
from dtn_det.conversion.spt_lsa import put
from dtn_det.layers import DTN, from_layer_norm
from dtn_det.layers.token_norm import TokenNorm
from dtn_det.layers.token_norms.factory import token_norm_class

_LOGGER = logging.getLogger(__name__)


def convert_norm(
    model: nn.Module,
    norm: str = "dtn",
    *,
    layers: Layers = "authors",
    num_groups: Groups = "heads",
    grid: Grid | GridFunction | str | None = None,
    **options: Any,
) -> nn.Module:
    """Replace LayerNorm in a built model of timm, mmpretrain, MMDetection or Hugging Face, keeping its weights.

    The model is changed in place. LeViT has no LayerNorm: there, the BatchNorm behind the first linear layer of each
    branch is replaced.

    DTN (Shao et al., arXiv:2112.02624) needs the grid of the tokens. Hooks find the grid in the input ``(B, H, W, C)``
    of the norm or of its block, in arguments of the block, or in the output of the patch embedding. The arguments are
    ``feat_size``, ``size``, ``hw_shape``, ``input_dimensions``, ``height`` and ``width``. So images need not be square,
    and their size may change from call to call. Prefix tokens are normalised by the statistics of LayerNorm.

    The replaced norms are logged at level INFO; :func:`plan_norms` returns them without changing the model.

    Args:
        model: Any model whose blocks are elements of lists of modules and contain an attention each.
        norm: Name of the new norm, see :func:`dtn_det.layers.build_token_norm`.
        layers: ``'authors'``: the norms of the blocks that DTN's authors convert. These are the first 10 of 12 blocks
            of a ViT, all stages but the last of PVT and other pyramids, and all blocks of Swin and of sequence models.
            ``'blocks'``: the norms of all blocks. Otherwise a regular expression to search for in the path of a norm,
            or a function of path and norm that returns whether to replace it.
        num_groups: ``'heads'``: as many groups as the attention of the block has heads. Otherwise a number, or a
            function of path and norm that returns it.
        grid: Grid of the tokens, for models in which hooks cannot find it: ``(H, W)``, or a function that returns it
            for a number of tokens. ``'sequence'``: the tokens are sequences, which are grids of ``1 x L``; tokens that
            the model's ``attention_mask`` excludes take no part in the statistics.
        **options: Further arguments of the new norm. DTN's ``init`` is ``'layernorm'`` by default, which almost
            preserves the outputs of the model. To train from scratch, choose ``init='local'``, the authors'
            initialisation.

    Returns:
        The same model.

    Raises:
        NoNormToConvertError: The model has no norm to replace.
        InputError: The model has no grid for the new norm, a norm to replace was converted before, groups do not divide
            a width, or an argument does not fit.

    Example:
        >>> model = convert_norm(timm.create_model("vit_small_patch16_224", pretrained=True), "dtn")
    """
    plan = plan_norms(model, norm, layers=layers, num_groups=num_groups, grid=grid)
    if options.get("over") == "image":
        check_across_tokens(model, norm, grid)
    norms = {site: _new_norm(model.get_submodule(site.name), site, norm, options) for site in plan.replaced}
    for site, module in norms.items():
        put(model, site.name, module)
    _add_hooks(model, plan, grid)
    keep_start_of_norms(model)
    _LOGGER.info("%s", plan)
    if plan.unlike:
        reasons = dict(plan.kept)
        _LOGGER.warning(
            "%s keeps %d more norms than usual, %s, of which the first %s",
            plan.model,
            len(plan.unlike),
            some_names(plan.unlike),
            reasons[plan.unlike[0]],
        )
    return model


class LinearTokenNorm(nn.Module):
    """A linear layer followed by a norm: LeViT's linear layer with another norm than BatchNorm.

    Args:
        linear: A linear layer from ``C`` to ``D`` channels.
        bn: The norm of ``D`` channels. The attribute keeps the name of the BatchNorm that the norm replaces.
    """

    def __init__(self, linear: nn.Linear, bn: nn.Module) -> None:
        super().__init__()
        self.linear = linear
        self.bn = bn

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, N, C)`` to ``(B, N, D)``; ``N`` is a square, as everywhere in LeViT."""
        return self.bn(self.linear(x))


def _new_norm(old: nn.Module, site: NormSite, name: str, options: dict[str, Any]) -> nn.Module:
    if token_norm_class(name) is DTN:
        options = {"init": "layernorm", **options}
    if isinstance(old, nn.LayerNorm):
        return from_layer_norm(old, name, site.num_groups, **options)
    linear, batch_norm = cast("nn.Linear", old.linear), cast("nn.BatchNorm1d", old.bn)
    like = nn.LayerNorm(site.width, eps=batch_norm.eps, device=linear.weight.device, dtype=linear.weight.dtype)
    like.load_state_dict({"weight": batch_norm.weight, "bias": batch_norm.bias})
    like.train(batch_norm.training).requires_grad_(batch_norm.weight.requires_grad)
    return LinearTokenNorm(linear, from_layer_norm(like, name, site.num_groups, **options))


def _add_hooks(model: nn.Module, plan: NormPlan, grid: Grid | GridFunction | str | None) -> None:
    memory = GridMemory()
    if grid == "sequence":
        _watch_mask(model, memory, plan)
        for site in plan.replaced:
            norm = model.get_submodule(site.name)
            norm.register_forward_pre_hook(GiveSequence(site.name, memory), with_kwargs=True)
        return
    sites = [site for site in plan.replaced if isinstance(model.get_submodule(site.name), DTN)]
    if not sites:
        return
    fixed = None if isinstance(grid, str) else grid
    modules = dict(model.named_modules())
    inside = tuple(f"{path}." for path in plan.blocks)
    outside = {path: module for path, module in modules.items() if not f"{path}.".startswith(inside)}
    hosts, padded = _watch_embeddings(modules, outside, memory, sites, plan.blocks, fixed is None)
    blocks: dict[str, BlockGrid] = {}
    extras = {path: extra_tokens(model.get_submodule(path)) for path in hosts}
    for site in sites:
        if site.block is not None and site.block not in blocks and fixed is None:
            # The grid that a block receives is kept until the call of the block ends.
            block, target = model.get_submodule(site.block), BlockGrid()
            block.register_forward_pre_hook(RecordInput.of(block, target, site.stream), with_kwargs=True)
            block.register_forward_hook(target.forget, always_call=True)
            blocks[site.block] = target
        around = tuple(path for path in _paths_around(site.name) if path in hosts)
        extra = next((extras[path] for path in around if extras[path].total), ExtraTokens())
        give = GiveGrid(site.name, memory, around, site.stream, extra, blocks.get(site.block or ""), fixed)
        norm = model.get_submodule(site.name)
        norm.register_forward_pre_hook(give, with_kwargs=True)
        if extra.suffix or padded:
            norm.register_forward_hook(RestoreOrder(extra), with_kwargs=True)
    _verify_places(model, outside, sites, plan.blocks)


def _verify_places(
    model: nn.Module, outside: dict[str, nn.Module], sites: list[NormSite], blocks: tuple[str, ...]
) -> None:
    """If the model has code from unknown libraries, check on the first image where the tokens lie."""
    first = next((site for site in sites if site.block is not None), None)
    if first is None or first.block is None:
        return
    methods = code_from_outside(outside.values())
    if not methods:
        return
    hooks = model.get_submodule(first.name)._forward_pre_hooks.values()
    extra = next(hook.extra for hook in hooks if isinstance(hook, GiveGrid))
    stage = first.block.rpartition(".")[0]
    entry = next(path for path in blocks if path.rpartition(".")[0] == stage)
    verify = VerifyPlaces(methods, first.name, entry, extra)
    model.register_forward_pre_hook(verify, with_kwargs=True, prepend=True)


def _watch_embeddings(
    modules: dict[str, nn.Module],
    outside: dict[str, nn.Module],
    memory: GridMemory,
    sites: list[NormSite],
    blocks: tuple[str, ...],
    watch_grids: bool,
) -> tuple[frozenset[str], bool]:
    """Record the grids that modules outside of blocks return (patch embeddings, pooling, merging) or get as arguments.

    Returns:
        The paths of the hosts, and whether batches may be padded. A host is a part of the model that makes tokens and
        also contains the blocks that process these tokens.
    """
    # An element of a list, such as a stage, is not a host, because it also makes tokens for the elements after it.
    above = {path for block in blocks for path in _paths_around(block) if not path.rpartition(".")[2].isdigit()}
    above = {path for path in above if path and not isinstance(modules[path], nn.ModuleList | nn.Sequential)}
    widths = frozenset(site.stream for site in sites)
    hosts = {""}
    for name, module in outside.items():
        if name and not isinstance(module, nn.ModuleList | nn.Sequential):
            host = next((path for path in _paths_around(name) if path in above), "")
            hosts.add(host)
            if watch_grids:
                module.register_forward_hook(RecordOutput(memory, host, widths))
    tellers = [name for name, module in outside.items() if tells_layout(module)]
    for name in tellers:
        host = next((path for path in (name, *_paths_around(name)) if path in above), "")
        hosts.add(host)
        record = RecordLayout(memory, host, name, arguments(modules[name]))
        modules[name].register_forward_pre_hook(record, with_kwargs=True)
    if not watch_grids and not tellers:
        return frozenset({""}), False
    for path in sorted(hosts | {path for host in hosts for path in _paths_around(host) if path in above}):
        hooks = PassHooks(memory, path)
        modules[path].register_forward_pre_hook(hooks.start, prepend=True)
        modules[path].register_forward_hook(hooks.end, always_call=True)
    return frozenset(hosts), bool(tellers)


def _paths_around(name: str) -> tuple[str, ...]:
    """Return the paths of all modules that contain a module, the nearest first and the model itself last."""
    parts = name.split(".")
    return tuple(".".join(parts[:number]) for number in range(len(parts) - 1, 0, -1)) + (("",) if name else ())


def _watch_mask(model: nn.Module, memory: GridMemory, plan: NormPlan) -> None:
    """Record the mask that the outermost module outside the blocks receives; warn if no module takes a mask."""
    blocks = tuple(f"{site.block}." for site in plan.replaced if site.block is not None)
    for name, module in model.named_modules():
        record = None if f"{name}.".startswith(blocks) else RecordMask.of(module, memory)
        if record is not None:
            module.register_forward_pre_hook(record, with_kwargs=True)
            return
    _LOGGER.warning(
        "%s takes no attention_mask, so its padded tokens count like all others in the norms", type(model).__name__
    )


@dataclass
class LeaveTokenNorms:
    """Replacement for `_init_weights` of a Hugging Face model, which skips norms of tokens.

    `from_pretrained` calls this function to initialise what a checkpoint lacks. The model's rules for LayerNorm fit no
    other norm, and fail for a norm without a bias. Norms of tokens initialise themselves when transformers marks them
    as initialised.
    """

    host: nn.Module

    def __call__(self, module: nn.Module) -> None:
        """Initialise a module unless it is a norm of tokens."""
        if not isinstance(module, TokenNorm):
            host: Any = self.host
            type(host)._init_weights(host, module)


def keep_start_of_norms(model: nn.Module) -> None:
    """Keep transformers from initialising the new norms again when it loads a checkpoint."""
    for module in model.modules():
        if hasattr(type(module), "_init_weights") and _is_of_transformers(type(module)):
            module._init_weights = LeaveTokenNorms(module)  # type: ignore[assignment]


def _is_of_transformers(kind: type[nn.Module]) -> bool:
    return any(
        base.__name__ == "PreTrainedModel" and base.__module__.startswith("transformers.") for base in kind.__mro__
    )
