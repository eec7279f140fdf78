from __future__ import annotations

import numpy as np
import pytest
from tree_files import picture

from dtn_det.corruptions import ALL, Corruptor
from dtn_det.corruptions.grid import draw_grid

IMAGE = picture(4, 40, 60)
CORRUPTOR = Corruptor("coco-c", seed=2)


def find(grid, tile) -> tuple[int, int] | None:
    """Row and column where the tile lies in the grid, None if it does not."""
    height, width = tile.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(grid[:, :, 0], (height, width))
    # The first row decides mostly: comparing whole windows would take long.
    candidates = np.argwhere((windows[:, :, 0] == tile[0, :, 0]).all(axis=2))
    for y, x in candidates:
        if np.array_equal(grid[y : y + height, x : x + width], tile):
            return int(y), int(x)
    return None


def test_every_picture_is_in_its_place():
    names, severities = ("contrast", "fog", "pixelate"), (1, 5)
    grid = np.array(draw_grid(IMAGE, names, severities, corruptor=CORRUPTOR, key="k"))
    clean = find(grid, IMAGE)
    assert clean is not None
    places = np.array([[find(grid, CORRUPTOR(IMAGE, name, s, "k")) for s in severities] for name in names])
    assert (places[:, 0, 1] == clean[1]).all()
    assert (np.diff(places[:, :, 1], axis=1) > 60).all()
    assert (np.diff([clean[0], *places[:, 0, 0]]) > 40).all()
    assert (places[:, 0, 0] == places[:, 1, 0]).all()


def test_rows_and_columns_are_labelled():
    grid = np.array(draw_grid(IMAGE, ["contrast"], [1, 5], corruptor=CORRUPTOR))
    y, x = find(grid, IMAGE)
    for region in (grid[:y, x : x + 60], grid[:y, x + 64 : x + 124], grid[y : y + 40, :x], grid[y + 44 :, :x]):
        assert region.min() < 60
        assert region.max() == 255


def test_all_of_them_lie_in_two_blocks():
    grid = draw_grid(IMAGE, ALL, corruptor=CORRUPTOR)
    narrow = draw_grid(IMAGE, ALL[:9], corruptor=CORRUPTOR)
    assert grid.height == narrow.height
    assert 1.8 * narrow.width < grid.width < 2.2 * narrow.width


@pytest.mark.parametrize("size", [(400, 100), (100, 400), (32, 12000)])
def test_large_images_are_made_smaller(size):
    grid = draw_grid(picture(1, *size), ["contrast"], [1], corruptor=CORRUPTOR, tile=80)
    assert grid.width < 400
    assert grid.height < 400
