"""Figures: gates and attention distances along the depth of a network, kernels, and maps over the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from dtn_det.errors import InputError
from dtn_det.inspection.forward_pass import BlockLook, Looks
from dtn_det.inspection.frames import NORMS
from dtn_det.inspection.norms import Kernels, spread
from dtn_det.system.drawing import COLOURS, COLUMN, GREY, MARKERS, new_figure

ABOVE: Final[Mapping[str, Any]] = {
    "loc": "lower right",
    "bbox_to_anchor": (1, 0.98),
    "borderpad": 0,
    "columnspacing": 1,
    "ncols": 4,
}
"""Options that put a legend above its axes, in one line."""


def draw_gates(looks: Looks) -> Figure:
    """Draw the gates of every DTN layer along the depth of the network, a point for each group."""
    layers = [(block, norm) for block, norm in looks.norms if norm.gates is not None]
    figure = new_figure(2.3)
    axes = figure.subplots(2, 1, sharex=True, sharey=True)
    for field, title, axis in zip(("mean", "var"), ("mean", "variance"), axes, strict=True):
        axis.axhline(0.5, color=GREY, linewidth=0.5, linestyle=":", zorder=0)
        for place, (block, norm) in enumerate(layers):
            gates = getattr(norm.gates, field)
            if gates is None:
                axis.text(place, 0.5, "LN", ha="center", va="center", color=GREY, fontsize=5)
                continue
            marker = MARKERS[list(block.norms).index(norm.name)]
            places = place + side_by_side(len(gates))
            axis.scatter(places, gates, s=5, alpha=0.7, linewidths=0, marker=marker, color=stage_colour(block))
        axis.set_ylabel(f"{title} gate")
        stage_axis(axis, [block for block, _ in layers])
    axes[1].set_xlabel("norm layers, input to output")
    low, high = axes[0].get_ylim()
    axes[0].set_ylim(min(low, 0.45), max(high, 0.55))
    axes[0].set_title("1: within token, 0: across tokens", loc="left", color=GREY, fontsize=6.5)
    names = list(dict.fromkeys(norm.name for _, norm in layers))
    marks = [
        Line2D([], [], marker=marker, linestyle="", color=GREY, label=name)
        for name, marker in zip(names, MARKERS, strict=False)
    ]
    axes[0].legend(handles=marks, handletextpad=0.2, **ABOVE)
    return figure


def draw_distance(looks: Looks) -> Figure:
    """Draw how far each head looks, in pixels of the network's input, along the depth of the network.

    Figure 7 of Dosovitskiy et al., arXiv:2010.11929, is similar, but does not show the distance under uniform
    attention.
    """
    figure = new_figure(2.1)
    axis = figure.subplots()
    for place, block in enumerate(looks.blocks):
        pixels = block.attention.distance * block.stride
        uniform = block.attention.uniform_distance * block.stride
        axis.plot([place - 0.4, place + 0.4], [uniform, uniform], color=GREY, linewidth=0.8, zorder=1)
        places = place + side_by_side(len(pixels))
        axis.scatter(places, pixels, s=7, alpha=0.7, linewidths=0, color=stage_colour(block), zorder=2)
    axis.set_ylabel("mean attention distance (pixels)")
    axis.set_ylim(0, 1.05 * max(map(_highest, looks.blocks)))
    stage_axis(axis, looks.blocks)
    axis.set_xlabel("blocks, input to output")
    marks = [
        Line2D([], [], marker="o", linestyle="", color=GREY, label="a head"),
        Line2D([], [], color=GREY, linewidth=0.8, label="uniform attention"),
    ]
    axis.legend(handles=marks, handletextpad=0.4, **ABOVE)
    return figure


def _highest(block: BlockLook) -> float:
    return block.stride * max(block.attention.uniform_distance, float(block.attention.distance.max()))


def stage_colour(block: BlockLook) -> str:
    """Return the colour of a block's stage."""
    return COLOURS[(block.stage - 1) % len(COLOURS)]


def side_by_side(count: int) -> NDArray[np.float64]:
    """Return horizontal offsets of the groups or heads of a layer, so that their points do not hide one another."""
    return 0.6 * ((np.arange(count) + 0.5) / count - 0.5)


def stage_axis(axis: Any, blocks: Sequence[BlockLook]) -> None:
    """Label an axis with the stages, or with the blocks if there is one stage, and draw lines between stages.

    Args:
        axis: Axes of matplotlib, where 0, 1, 2, ... stand for the blocks.
        blocks: The blocks in the order of depth; a block may occur several times.
    """
    stages = [block.stage for block in blocks]
    several = len(set(stages)) > 1
    keys = [f"stage {block.stage}" if several else str(block.index) for block in blocks]
    names = list(dict.fromkeys(keys))
    axis.set_xticks([float(np.mean([place for place, key in enumerate(keys) if key == name])) for name in names], names)
    axis.tick_params(axis="x", length=0)
    for place, (left, right) in enumerate(pairwise(stages)):
        if left != right:
            axis.axvline(place + 0.5, color=GREY, linewidth=0.3)
    axis.set_xlim(-0.6, len(blocks) - 0.4)


MOST_GROUPS = 24
"""Largest number of groups of a layer whose kernels are drawn; the tables have all groups."""
COLUMNS = 8
MARGIN = 0.35
"""Inches to the left of the panels, where the names of blocks stand."""
SEQUENTIAL = "Blues"
OPACITY = 0.7
DIVERGING = "PuOr_r"
TALLEST = 2.0
"""Largest ratio of a panel's height to its width; taller images are drawn smaller."""


def draw_kernels(chosen: Sequence[BlockLook], norm_name: str, radius: int) -> Figure:
    """Draw the weights that kernels give to the neighbouring tokens, a map for each group of the chosen layers.

    Args:
        chosen: Blocks; those without DTN are left out.
        radius: Number of tokens to each side.
    """
    layers = _with_kernels(chosen, norm_name)
    maps = [kernels.window(radius)[:MOST_GROUPS] for _, kernels in layers]
    rows = sum(-(-len(groups) // COLUMNS) for groups in maps)
    figure = new_figure(rows * ((COLUMN - MARGIN) / COLUMNS + 0.02) + 0.5)
    axes = figure.subplots(rows, COLUMNS, squeeze=False)
    highest = max(float(groups.max()) for groups in maps)
    image: Any = None
    row = 0
    for (block, _), groups in zip(layers, maps, strict=True):
        axes[row, 0].set_ylabel(_short(block), rotation=0, ha="right", va="center")
        lines = -(-len(groups) // COLUMNS)
        for axis, weights in zip(axes[row : row + lines].flat, groups, strict=False):
            image = axis.imshow(weights, cmap=SEQUENTIAL, vmin=0, vmax=highest)
            axis.plot(radius, radius, marker="+", color=COLOURS[1], markersize=3.5, markeredgewidth=0.6)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set(visible=True, linewidth=0.3, color=GREY)
        for axis in axes[row : row + lines].flat[len(groups) :]:
            axis.set_visible(False)
        row += lines
    side = 2 * radius + 1
    thin_bar(figure, image, axes, f"weight of each of the {side} x {side} tokens around +, {norm_name}")
    return figure


def draw_axis_kernels(chosen: Sequence[BlockLook], norm_name: str, radius: int) -> Figure:
    """Draw the weights of the kernels along each axis, as a row of squares for each group of the chosen layers.

    Arguments are those of :func:`draw_kernels`.
    """
    layers = _with_kernels(chosen, norm_name)
    counts = [min(len(kernels.coefficients), MOST_GROUPS) for _, kernels in layers]
    heights = [max(count, 3.5) for count in counts]
    figure = new_figure(0.085 * sum(heights) + 0.1 * len(heights) + 0.75)
    axes = figure.subplots(len(layers), 2, sharex=True, squeeze=False, height_ratios=heights)
    highest = max(float(max(kernels.rows.max(), kernels.columns.max())) for _, kernels in layers)
    image: Any = None
    for row, (block, kernels), count in zip(axes, layers, counts, strict=True):
        sides = ((kernels.columns, kernels.column_offsets), (kernels.rows, kernels.row_offsets))
        for axis, (weights, offsets) in zip(row, sides, strict=True):
            near = np.abs(offsets) <= radius
            extent = (offsets[near][0] - 0.5, offsets[near][-1] + 0.5, count + 0.5, 0.5)
            style = {"cmap": SEQUENTIAL, "vmin": 0, "vmax": highest, "aspect": "auto"}
            image = axis.imshow(weights[:count, near], extent=extent, **style)
            axis.axvline(0, color=COLOURS[1], linewidth=0.5, linestyle=":")
            axis.spines[:].set(visible=True, linewidth=0.3, color=GREY)
            axis.set_yticks([])
            axis.tick_params(axis="x", length=0)
        row[0].set_ylabel(_short(block), rotation=0, ha="right", va="center")
        row[0].set_xlim(-radius - 0.5, radius + 0.5)
    axes[-1, 0].set_xlabel("tokens to the right")
    axes[-1, 1].set_xlabel("tokens down")
    axes[-1, 0].set_xticks(range(-radius, radius + 1))
    thin_bar(figure, image, axes, f"weight of the tokens at each offset, {norm_name}")
    return figure


def _with_kernels(chosen: Sequence[BlockLook], norm_name: str) -> list[tuple[BlockLook, Kernels]]:
    return [(block, kernels) for block in chosen if (kernels := block.norms[norm_name].kernels) is not None]


def _short(block: BlockLook) -> str:
    return block.title.replace(", ", "\n")


def draw_magnitudes(looks: Looks, chosen: Sequence[BlockLook], norm_name: str) -> Figure:
    """Draw the size of each token divided by the mean size, after LN, IN and DTN, a row for each chosen block.

    All panels share one colour scale: 1 plus and minus the 99th percentile of how far DTN's values are from 1. DTN's
    spread is usually between the spreads of LN and IN, so its scale serves all three.
    """
    relative = {
        (block.name, field): sizes / sizes[block.inside].mean()
        for block in chosen
        for field in NORMS
        for sizes in [getattr(block.norms[norm_name].magnitudes, field).mean(axis=0)]
    }
    of_dtn = np.concatenate([np.abs(relative[block.name, "dtn"][block.inside] - 1) for block in chosen])
    limit = max(0.01, float(np.quantile(of_dtn, 0.99)))
    untrained = [block for block in chosen if block.norms[norm_name].kind != "DTN"]
    figure, axes = _panels(looks, len(chosen), len(NORMS) + 1)
    image: Any = None
    for row, block in zip(axes, chosen, strict=True):
        row[0].imshow(looks.subject.picture)
        row[0].set_ylabel(_short(block))
        for axis, field in zip(row[1:], NORMS, strict=True):
            sizes = relative[block.name, field]
            image = _lay_over(axis, looks, sizes, block.stride, vmin=1 - limit, vmax=1 + limit)
            star = "*" if field == "dtn" and block in untrained else ""
            text = f"sd {100 * spread(sizes[block.inside]):.1f} %{star}"
            axis.set_xlabel(text, labelpad=1.5, fontsize=6)
    for axis, title in zip(axes[0], ("image", *NORMS.values()), strict=True):
        axis.set_title(title, loc="center")
    label = f"token magnitude over its mean, {norm_name}{' (* untrained DTN)' if untrained else ''}"
    thin_bar(figure, image, axes, label, extend="both")
    return figure


def draw_received(looks: Looks, chosen: Sequence[BlockLook]) -> Figure:
    """Draw how much attention each token receives from all queries, averaged over heads, for each chosen block."""
    maps = [(block.title, block.attention.received.mean(axis=0), _key_stride(block)) for block in chosen]
    return _attention_figure(looks, maps, "attention received over that under uniform attention")


def draw_class_attention(looks: Looks, block: BlockLook) -> Figure:
    """Draw the attention of the class token in one block, averaged over heads and for each head.

    Raises:
        InputError: The block has no class token.
    """
    found = block.attention.class_map
    if found is None:
        raise InputError(f"expected a block with a class token, got {block.name} without: choose another")
    stride = _key_stride(block)
    maps = [("all heads", found.mean(axis=0), stride)]
    maps += [(f"head {head + 1}", each, stride) for head, each in enumerate(found)]
    return _attention_figure(looks, maps, f"attention of the class token over its mean, block {block.index}")


def _attention_figure(looks: Looks, maps: Sequence[tuple[str, NDArray[Any], int]], label: str) -> Figure:
    """Draw the image and maps of ratios, whose colours are centred at 1 and marked at powers of 2."""
    count = len(maps) + 1
    columns = count if count < 5 else 3 if count in (5, 6, 9) else 4
    figure, axes = _panels(looks, -(-count // columns), columns)
    axes.flat[0].imshow(looks.subject.picture)
    axes.flat[0].set_title("image", loc="center")
    largest = np.quantile(np.concatenate([values.ravel() for _, values, _ in maps]), 0.99)
    steps = int(np.clip(np.ceil(np.log2(max(1.0, float(largest)))), 1, 4))
    norm = LogNorm(2.0**-steps, 2.0**steps, clip=True)
    image: Any = None
    for axis, (title, values, stride) in zip(axes.flat[1:], maps, strict=False):
        image = _lay_over(axis, looks, values, stride, norm=norm)
        axis.set_title(title, loc="center")
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    bar = thin_bar(figure, image, axes, label, extend="both")
    powers = range(-steps, steps + 1)
    bar.set_ticks(
        [2.0**power for power in powers], labels=[f"{2**power}" if power >= 0 else f"1/{2**-power}" for power in powers]
    )
    bar.minorticks_off()
    return figure


def _key_stride(block: BlockLook) -> int:
    """Return the distance of neighbouring keys in pixels. A spatial reduction puts keys further apart than tokens."""
    return block.stride * block.key_ratio


def _panels(looks: Looks, rows: int, columns: int) -> tuple[Figure, Any]:
    """Make a figure of one column's width: rows of panels, each row with a line of text, and room for a colour bar."""
    height, width, _ = looks.subject.picture.shape
    panel = (COLUMN - 0.3) / columns * min(height / width, TALLEST)
    figure = new_figure(rows * (panel + 0.17) + 0.45)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    return figure, axes


def _lay_over(axis: Any, looks: Looks, values: NDArray[Any], stride: int, **scale: Any) -> Any:
    """Draw a map over the greyscale image; what lies beyond the borders of the image is cut off."""
    height, width, _ = looks.subject.picture.shape
    grey = looks.subject.picture.astype(np.float64) @ (0.299, 0.587, 0.114)
    axis.imshow(grey, cmap="gray", vmin=0, vmax=255)
    rows, columns = values.shape
    extent = (-0.5, columns * stride - 0.5, rows * stride - 0.5, -0.5)
    image = axis.imshow(values, extent=extent, alpha=OPACITY, cmap=DIVERGING, **scale)
    axis.set_xlim(-0.5, width - 0.5)
    axis.set_ylim(height - 0.5, -0.5)
    return image


def thin_bar(figure: Figure, image: Any, axes: Any, label: str, extend: str = "neither") -> Any:
    """Add a thin colour bar below all panels, for the colours of `image`, and return it."""
    where: dict[str, Any] = {"location": "bottom", "aspect": 45, "fraction": 0.05, "pad": 0.02}
    bar = figure.colorbar(image, ax=axes, extend=extend, ticks=MaxNLocator(6), **where)
    bar.outline.set_linewidth(0.3)
    bar.ax.tick_params(width=0.3)
    bar.set_label(label)
    return bar
