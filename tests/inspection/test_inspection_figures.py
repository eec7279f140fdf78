"""The figures and tables: complete, legible at a column's width, the same every time, without a trace elsewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

pytest.importorskip("mmdet", reason="Swin and PVT are MMDetection's")

from small_networks import PVT, SWIN, build, subject_of, timm_vit

from dtn_det.inspection import figures, frames, write
from dtn_det.inspection.forward_pass import Looks, look
from dtn_det.system import drawing

DTN_FILES = {"gates", "kernels", "kernel_axes"}
FIGURES = {"attention_distance", "attention_received", "magnitudes"}
TABLES = FIGURES | {"magnitude_spread"}


def looks_of(settings: dict, size: tuple[int, int] = (36, 48)) -> Looks:
    return look(subject_of(build(settings), torch.randn(1, 3, *size)))


@pytest.fixture(scope="module")
def swin() -> Looks:
    return looks_of(SWIN)


@pytest.fixture(scope="module")
def plain_swin() -> Looks:
    return looks_of({**SWIN, "dtn_stages": ()})


@pytest.fixture(scope="module")
def vit() -> Looks:
    return look(subject_of(timm_vit(depth=6), torch.randn(1, 3, 32, 48)))


@pytest.fixture(scope="module")
def written(swin: Looks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("looks") / "out"
    write.write_looks(swin, write.choose(swin, None, "norm1"), folder)
    return folder


@pytest.fixture
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write empty figures, where a test looks at names and numbers alone."""
    monkeypatch.setattr(write, "rendered", lambda *_: dict.fromkeys(drawing.FORMATS, b""))


def expected_files(figures: set[str], tables: set[str]) -> list[str]:
    found = [f"{name}.{kind}" for name in figures for kind in drawing.FORMATS]
    return sorted([*found, *(f"{name}.csv" for name in tables), write.FACTS])


def test_files_of_a_model_with_dtn(written: Path) -> None:
    names = sorted(path.name for path in written.iterdir())
    assert names == expected_files(FIGURES | DTN_FILES, TABLES | DTN_FILES | {"kernel_maps"})
    facts = json.loads((written / write.FACTS).read_text())
    assert facts["files"] == [name for name in names if name != write.FACTS]
    assert (facts["dtn_norms"], facts["ln_norms"], facts["class_token"]) == (6, 0, False)
    assert facts["drawn_blocks"] == ["stages.0.blocks.0", "stages.1.blocks.1"]


@pytest.mark.usefixtures("_undrawn")
def test_another_model_in_the_same_folder(written: Path, plain_swin: Looks, tmp_path: Path) -> None:
    for path in written.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "mine.txt").write_text("stays")
    paths = write.write_looks(plain_swin, write.choose(plain_swin, None, "norm2"), tmp_path)
    names = expected_files(FIGURES, TABLES)
    assert [path.name for path in paths] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names, "mine.txt"])
    notes = json.loads((tmp_path / write.FACTS).read_text())["notes"]
    assert notes[0] == "no gates and no kernels: every norm of the blocks is LayerNorm"
    assert notes[1].startswith(
        "stage 1, block 1, stage 2, block 2: norm2 is LayerNorm, so the map of DTN is that of an"
    )
    assert notes[2].startswith("no class token: ")


@pytest.mark.usefixtures("_undrawn")
def test_files_of_a_model_with_a_class_token(vit: Looks, tmp_path: Path) -> None:
    choice = write.choose(vit, None, "norm1")
    paths = write.write_looks(vit, choice, tmp_path)
    assert [path.name for path in paths] == expected_files(FIGURES | {"class_attention"}, TABLES | {"class_attention"})
    assert [block.index for block in choice.blocks] == [1, 3, 4, 6]
    table = pd.read_csv(tmp_path / "class_attention.csv")
    assert len(table) == 4 * 3 * 24
    assert not any(note.startswith("no class token") for note in write.notes(vit, choice))


@pytest.mark.parametrize("name", ["gates", "attention_received"])
def test_another_run_draws_the_same(written: Path, swin: Looks, name: str) -> None:
    with drawing.drawing():
        figure = write.figures(swin, write.choose(swin, None, "norm1"))[name]()
    again = drawing.rendered(figure, write.FIGURES[name], "m, c, i")
    assert [kind for kind, data in again.items() if data != (written / f"{name}.{kind}").read_bytes()] == []


@pytest.mark.parametrize("name", sorted(FIGURES | DTN_FILES))
def test_a_figure_is_as_wide_as_a_column(written: Path, name: str) -> None:
    with Image.open(written / f"{name}.png") as image:
        assert image.width == round(3.3 * 300)
        assert image.height < 3.3 * 300 * 2
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        assert len(np.unique(np.asarray(image.convert("L")))) > 10
    assert (written / f"{name}.pdf").read_bytes().startswith(b"%PDF-")
    svg = (written / f"{name}.svg").read_text()
    assert re.search(r'<svg [^>]*width="237\.6pt"', svg)
    # Text that can be searched and edited.
    assert "<text" in svg


@pytest.mark.parametrize("which", ["swin", "plain_swin", "vit"])
def test_no_text_is_cut_off_or_too_small(which: str, request: pytest.FixtureRequest) -> None:
    looks: Looks = request.getfixturevalue(which)
    choice = write.choose(looks, None, "norm1")
    with drawing.drawing():
        for name, draw in write.figures(looks, choice).items():
            figure = draw()
            # The layout comes to rest in as many passes as there are formats.
            for _ in drawing.FORMATS:
                figure.draw_without_rendering()
            drawn = figure.get_tightbbox(figure.canvas.get_renderer())
            width, height = figure.get_size_inches()
            assert min(drawn.x0, drawn.y0, width - drawn.x1, height - drawn.y1) > -0.01, name
            shown = [text for text in figure.findobj(mpl.text.Text) if text.get_visible() and text.get_text().strip()]
            assert min(text.get_fontsize() for text in shown) >= 5, name


def test_global_settings_neither_count_nor_change(swin: Looks, written: Path) -> None:
    settings = {"font.size": 20, "axes.facecolor": "black", "image.cmap": "jet"}
    with mpl.rc_context(settings):
        before = dict(mpl.rcParams)
        with drawing.drawing():
            figure = write.figures(swin, write.choose(swin, None, "norm1"))["gates"]()
        png = drawing.rendered(figure, write.FIGURES["gates"], "m, c, i")["png"]
        assert dict(mpl.rcParams) == before
    assert png == (written / "gates.png").read_bytes()


def test_gates_table(swin: Looks, written: Path) -> None:
    table = pd.read_csv(written / "gates.csv")
    assert len(table) == 2 * 1 + 4 * 2
    assert table["mean_gate"].tolist() == [0.5] * 10
    assert table.loc[0, ["layer", "stage", "block", "norm", "group"]].tolist() == [
        "stages.0.blocks.0",
        1,
        1,
        "norm1",
        1,
    ]


def test_gates_without_a_mean() -> None:
    looks = looks_of({**SWIN, "dtn_cfg": {"only_var": True}})
    table = frames.gates_frame(looks)
    assert table["mean_gate"].isna().all()
    assert table["var_gate"].tolist() == [0.5] * 10
    with drawing.drawing():
        figure = figures.draw_gates(looks)
    assert [text.get_text() for text in figure.axes[0].texts] == ["LN"] * 6


def test_kernel_tables(swin: Looks, written: Path) -> None:
    kernels, axes, maps = (pd.read_csv(written / f"{name}.csv") for name in ("kernels", "kernel_axes", "kernel_maps"))
    assert (kernels[["a_x", "a_y", "a_d"]] == [0, 0, -1]).all(axis=None)
    np.testing.assert_allclose(kernels[["right", "down"]], 0, atol=1e-3)
    sums = axes.groupby(["layer", "norm", "group", "axis"])["weight"].sum()
    np.testing.assert_allclose(sums, 1, atol=1e-4)
    assert len(maps) == 10 * 7 * 7
    place = maps.sort_values("weight").iloc[-1]
    assert (place["right"], place["down"]) == (0, 0)


def test_magnitude_tables(swin: Looks, written: Path) -> None:
    tokens, spreads = (pd.read_csv(written / f"{name}.csv") for name in ("magnitudes", "magnitude_spread"))
    assert len(tokens) == 9 * 12 + 5 * 6
    first = tokens[tokens["stage"] == 1]
    row = spreads[(spreads["stage"] == 1) & (spreads["norm"] == "norm1")].iloc[0]
    for title in ("input", *frames.NORMS.values()):
        assert first[title].std(ddof=0) / first[title].mean() == pytest.approx(row[title], rel=1e-3, abs=1e-6)
    assert len(spreads) == 6
    assert (spreads["kind"] == "DTN").all()


def test_attention_tables(swin: Looks, written: Path) -> None:
    distances, received = (
        pd.read_csv(written / f"{name}.csv") for name in ("attention_distance", "attention_received")
    )
    assert distances["head"].tolist() == [1, 1, 2, 1, 2]
    np.testing.assert_allclose(distances["pixels"], distances["tokens"] * [4, 8, 8, 8, 8], rtol=1e-5)
    block = swin.blocks[2]
    assert distances["tokens"].iloc[-1] == pytest.approx(block.attention.distance[1], rel=1e-5)
    last = received[received["layer"] == block.name]
    np.testing.assert_allclose(
        last["over_uniform"], block.attention.received.mean(axis=0).ravel(), rtol=1e-5, atol=1e-9
    )


def test_a_chosen_stage_without_dtn() -> None:
    looks = looks_of({**PVT, "type": "DTNPyramidVisionTransformer"}, (64, 64))
    choice = write.choose(looks, ["layers.3.*"], "norm1")
    assert sorted(write.figures(looks, choice)) == sorted([*FIGURES, "gates"])
    assert "kernels" in frames.all_frames(looks, choice.blocks, "norm1", 3)
    assert write.notes(looks, choice)[0].startswith("stage 4, block 1: norm1 is LayerNorm")


def test_a_ratio_reaches_the_edges_of_reduced_maps() -> None:
    """PVT's keys are spread over the whole image, whatever their number."""
    looks = looks_of({**PVT, "type": "DTNPyramidVisionTransformer"}, (64, 64))
    with drawing.drawing():
        figure = figures.draw_received(looks, looks.blocks[:1])
    assert figure.axes[1].images[1].get_extent() == [-0.5, 63.5, 63.5, -0.5]


def test_choosing_blocks(swin: Looks) -> None:
    assert [block.name for block in write.choose(swin, ["stages.1.*"], "norm1").blocks] == [
        "stages.1.blocks.0",
        "stages.1.blocks.1",
    ]
    both = write.choose(swin, ["*.blocks.1", "stages.0.blocks.0"], "norm1").blocks
    assert [block.name for block in both] == ["stages.0.blocks.0", "stages.1.blocks.1"]
    with pytest.raises(ValueError, match=r"expected --blocks to name blocks of the model, got 'x': it has stages.0"):
        write.choose(swin, ["stages.*", "x"], "norm1")


def test_class_attention_of_a_block_without(swin: Looks) -> None:
    with pytest.raises(ValueError, match=r"expected a block with a class token, got stages.0.blocks.0 without: choose"):
        figures.draw_class_attention(swin, swin.blocks[0])


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(ValueError, match=r"expected --out to be a folder, got the file .*file: name another"):
        write.check_folder(path)
