"""The transformer blocks of a built model: their paths, their tokens, and which blocks DTN's authors convert."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from dtn_det.conversion.hosts.traits import ancestors, attends_to_others, reads, reads_images

# Names of the attribute in which attention modules of the libraries hold their number of heads.
_HEADS = ("num_heads", "num_attention_heads", "n_heads", "heads")


@dataclass(frozen=True)
class TransformerBlock:
    """A transformer block: an element of a list of modules that contains an attention.

    Attributes:
        attention: The innermost attention within the block.
    """

    path: str
    module: nn.Module
    attention: nn.Module

    @property
    def stage(self) -> str:
        """Path of the list of modules that contains the block."""
        return self.path.rpartition(".")[0]

    @property
    def is_class_attention(self) -> bool:
        """True if the only query of the block's attention is the class token, as in the last blocks of CaiT."""
        return "classatt" in type(self.attention).__name__.lower()


def find_blocks(modules: dict[str, nn.Module]) -> dict[str, TransformerBlock]:
    """Return the transformer blocks among the modules of a model. The keys of both dicts are paths."""
    blocks = {}
    for path, module in modules.items():
        parent, _, last = path.rpartition(".")
        if not last.isdigit() or not isinstance(modules[parent], nn.ModuleList | nn.Sequential):
            continue
        attention = own_attention(module)
        if attention is not None:
            blocks[path] = TransformerBlock(path, module, attention)
    return blocks


def num_heads(module: nn.Module) -> int | None:
    """Return a module's number of heads; None if it has no attribute for this number, and is therefore no attention."""
    for name in _HEADS:
        value = getattr(module, name, None)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def own_attention(module: nn.Module) -> nn.Module | None:
    """Return the innermost attention in a block, outside of any list of modules in the block; None if there is none."""
    for child in module.children():
        if isinstance(child, nn.ModuleList | nn.Sequential):
            continue
        found = own_attention(child)
        if found is not None:
            return found
        if num_heads(child):
            return child
    return None


def block_around(name: str, blocks: dict[str, TransformerBlock]) -> TransformerBlock | None:
    """Return the innermost block that contains a module; None if no block does."""
    return next((blocks[path] for path in ancestors(name) if path in blocks), None)


def stream_widths(norms: dict[str, nn.LayerNorm], block_of: dict[str, TransformerBlock | None]) -> dict[str, int]:
    """Map each block's path to the number of channels of its outermost norm, the first if there are several."""
    outermost: dict[str, tuple[int, int]] = {}
    for name, norm in norms.items():
        block = block_of[name]
        if block is not None and len(norm.normalized_shape) == 1:
            depth, _ = outermost.get(block.path, (len(name), 0))
            if name.count(".") < depth:
                outermost[block.path] = name.count("."), norm.normalized_shape[0]
    return {path: width for path, (_, width) in outermost.items()}


def authors_blocks(blocks: dict[str, TransformerBlock], sequence: bool) -> frozenset[str]:
    """Return the paths of the blocks that DTN's authors convert (Shao et al., arXiv:2112.02624).

    In a ViT with 12 blocks, these are the first 10. In PVT and other pyramids, they are all blocks outside of the last
    stage. In Swin and sequence models, they are all blocks.
    """
    own = [block for block in blocks.values() if not block.is_class_attention]
    stages = list(dict.fromkeys(block.stage for block in own))
    if sequence or any("swin" in type(block.module).__name__.lower() for block in own):
        return frozenset(block.path for block in own)
    if len(stages) > 1:
        return frozenset(block.path for block in own if block.stage != stages[-1])
    return frozenset(block.path for block in own[: max(1, len(own) * 10 // 12)])


def reasons_of_strangers(modules: dict[str, nn.Module], blocks: dict[str, TransformerBlock]) -> dict[str, str]:
    """Find blocks whose tokens do not form the grid of an image, and map the path of each block to the reason."""
    reasons: dict[str, str] = {}
    of_stage: dict[str, str | None] = {}
    for path, block in blocks.items():
        # What a block reads depends on the modules around it. All blocks of a stage lie in the same modules, so one
        # look for each stage is enough.
        if block.stage not in of_stage:
            of_stage[block.stage] = reads(modules, path)
        what = of_stage[block.stage]
        if what is not None:
            advice = "" if reads_images(modules) else ": pass grid='sequence'"
            reasons[path] = f"normalises {what}, which has no grid{advice}"
        elif attends_to_others(block.module):
            reasons[path] = "is in a decoder, whose tokens have no grid"
    return reasons
