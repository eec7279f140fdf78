from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from made_up import ALL, classification_report, detection_report
from matplotlib.figure import Figure
from matplotlib.text import Text

from dtn_det.corruptions.catalog import BENCHMARK, EXTRA, GROUPS
from dtn_det.metrics.resampling import holm
from dtn_det.reports.contents import Report, ReportModel
from dtn_det.reports.figures import FIGURES, Drawn, draw_figures
from dtn_det.reports.figures.forest import draw_forest
from dtn_det.reports.tables import report_tables
from dtn_det.system.drawing import COLUMN, PAGE, TEXT, drawing

TWINS = [(f"net{number}", f"dtn-net{number}") for number in range(10)]
TWENTY = [name for pair in TWINS for name in pair]
ODD = ("$x^2$", "_hidden", "a" * 150, "a" * 149 + "b", "模型 \U0001f9ea", "<script>&\\alpha{}", "two\nlines\x07")


Made = tuple[Report, Drawn]


@pytest.fixture(scope="module")
def pair() -> Made:
    """Two twins with everything that figures show."""
    report = classification_report(baseline="alexnet", corruptions=ALL, replicates=100)
    return report, draw_figures(report)


@pytest.fixture(scope="module")
def detectors() -> Made:
    report = detection_report(
        images=30, corruptions=("fog", "snow", "glass_blur"), kinds=("bbox", "segm"), metrics=("AP",), replicates=100
    )
    return report, draw_figures(report)


@pytest.fixture(scope="module")
def twenty() -> Made:
    skills = {name: 0.6 + 0.03 * number for number, name in enumerate(TWENTY)}
    report = classification_report(
        TWENTY, images=30, baseline="alexnet", pairs=TWINS, skills=skills, corruptions=ALL, replicates=10
    )
    return report, draw_figures(report)


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    """Whatever matplotlib warns of, such as glyphs that are missing or panels without space, is a fault."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def number(report: Report, model: str, name: str, scope: str = "", severity: int = 0) -> float:
    frame = report.sections[0].numbers
    found = frame[
        (frame["model"] == model)
        & (frame["name"] == name)
        & (frame["scope"] == scope)
        & (frame["severity"] == severity)
        & (frame["set"] == ("extra" if scope in (*EXTRA, "extra") else "benchmark"))
    ]
    assert len(found) == 1
    return float(found["value"].iloc[0])


def texts(figure: Figure) -> list[Text]:
    """Those that are seen: matplotlib has ticks beyond the ends of an axis, too."""
    unseen = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick, place in zip(axis.get_major_ticks(), axis.get_majorticklocs(), strict=True):
                unseen |= {tick.label2} | (set() if low <= place <= high else {tick.label1})
    return [
        text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip() and text not in unseen
    ]


def all_text(figure: Figure) -> str:
    """On one line."""
    return " ".join(" ".join(text.get_text() for text in texts(figure)).split())


def check_legible(figure: Figure) -> None:
    """Every text is large enough and inside the figure, and no two of them overlap."""
    assert figure.get_figwidth() in (COLUMN, PAGE)
    assert figure.get_figheight() < 9.5
    with drawing():
        # Panels of a fixed aspect find their place the second time only.
        for _ in range(1 + any(axes.get_aspect() != "auto" for axes in figure.axes)):
            figure.draw_without_rendering()
        boxes = {}
        for text in texts(figure):
            assert text.get_fontsize() >= TEXT
            box = text.get_window_extent()
            assert figure.bbox.padded(2).x0 <= box.x0 <= box.x1 <= figure.bbox.padded(2).x1, text
            assert figure.bbox.padded(2).y0 <= box.y0 <= box.y1 <= figure.bbox.padded(2).y1, text
            boxes[text] = box
    upright = [text for text in boxes if text.get_rotation() in (0, 90)]
    ends = np.array([boxes[text].padded(-4).extents for text in upright])
    low, high = np.minimum(ends[:, :2], ends[:, 2:]), np.maximum(ends[:, :2], ends[:, 2:])
    overlap = ((low[:, None] <= high[None]) & (low[None] <= high[:, None])).all(-1)
    np.fill_diagonal(overlap, False)
    assert not overlap.any(), [upright[place] for place in np.argwhere(overlap)[0]]


def test_figures_for_one_model_have_all_but_differences() -> None:
    drawn = draw_figures(classification_report(["only"], baseline=None, replicates=50))
    assert list(drawn.figures) == [f"{name}_top1" for name in FIGURES if name not in ("errors", "forest")]
    assert drawn.left_out == {"forest_top1": "no two models were compared image by image"}
    for figure in drawn.figures.values():
        check_legible(figure)


@pytest.mark.parametrize("which", ["pair", "detectors", "twenty"])
def test_figures_are_legible(which: str, request: pytest.FixtureRequest) -> None:
    report, drawn = request.getfixturevalue(which)
    wanted = [
        f"{name}_{section.kind}"
        for section in report.sections
        for name in FIGURES
        if name != "errors" and (name != "reliability" or section.kind == "top1")
    ]
    assert list(drawn.figures) == wanted
    assert not drawn.left_out
    for figure in drawn.figures.values():
        check_legible(figure)


def test_odd_names_stay_plain_text_in_figures() -> None:
    names = list(ODD)
    report = classification_report(names, images=30, baseline=None, corruptions=["fog"], replicates=10)
    drawn = draw_figures(report)
    for figure in drawn.figures.values():
        check_legible(figure)
        assert not any(text.get_parse_math() for text in texts(figure))
    legend = [text.get_text() for text in drawn.figures["severities_top1"].legends[0].get_texts()]
    assert len(set(legend)) == len(names)
    assert legend[:2] == ["$x^2$†", "_hidden†"]
    assert legend[4:] == [r"\u6a21\u578b \U0001f9ea†", r"<script>&\alpha{}†", r"two lines\x07†"]
    assert all("…" in label for label in legend[2:4])
    rows = [tick.get_text() for tick in drawn.figures["heatmap_top1"].axes[0].get_yticklabels()]
    assert len(set(rows)) == len(names)


def test_severity_curves_carry_the_numbers(pair: Made) -> None:
    report, drawn = pair
    axis = drawn.figures["severities_top1"].axes[0]
    for line, model in zip(axis.lines, ("ln", "dtn"), strict=True):
        means = [number(report, model, "mean error", severity=severity) for severity in range(1, 6)]
        np.testing.assert_allclose(line.get_ydata(), [number(report, model, "error", "clean"), *means])
        assert list(line.get_xdata()) == [0, 1, 2, 3, 4, 5]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["clean", "1", "2", "3", "4", "5"]
    frame = report.sections[0].numbers
    third = frame[(frame["name"] == "mean error") & (frame["scope"] == "") & (frame["severity"] == 3)]
    band = axis.collections[0].get_paths()[0].vertices
    assert {third["low"].iloc[0], third["high"].iloc[0]} <= set(band[band[:, 0] == 3, 1])
    assert axis.get_ylabel() == "mean top-1 error (%) ↓"


def test_each_corruption_has_a_panel_with_its_cells(pair: Made) -> None:
    report, drawn = pair
    axes = drawn.figures["corruptions_top1"].axes
    assert len(axes) == len(ALL)
    titles = [axis.get_title(loc="left") for axis in axes]
    assert titles[0] == "Gaussian noise"
    assert "JPEG compression" in titles
    fog = axes[titles.index("Fog")]
    wanted = [number(report, "dtn", "error", "fog", severity) for severity in range(1, 6)]
    np.testing.assert_allclose(fog.lines[1].get_ydata()[1:], wanted)


def test_heatmap_shows_corruption_errors_and_the_best(pair: Made) -> None:
    report, drawn = pair
    figure = drawn.figures["heatmap_top1"]
    axis = figure.axes[0]
    shown = {text.get_position(): text for text in axis.texts}
    columns = dict(zip([tick.get_text() for tick in axis.get_xticklabels()], axis.get_xticks(), strict=True))
    assert len(axis.get_xticks()) == 2 + len(ALL)
    for column, (name, scope) in {"mCE": ("mCE", ""), "Fog": ("CE", "fog"), "Clean error": ("error", "clean")}.items():
        values = [number(report, model, name, scope) for model in ("ln", "dtn")]
        for row, value in enumerate(values):
            text = shown[columns[column], row]
            assert text.get_text() == (f"{value:.1f}" if value < 99.95 else f"{value:.0f}")
            assert text.get_fontweight() == ("bold" if value == min(values) else "normal")
    assert "CE (%) ↓" in all_text(figure)
    assert "CE relative to AlexNet" in all_text(figure)


def test_heatmap_of_detectors_takes_the_largest_for_the_best(detectors: Made) -> None:
    report, drawn = detectors
    axis = drawn.figures["heatmap_bbox"].axes[0]
    column = dict(zip([tick.get_text() for tick in axis.get_xticklabels()], axis.get_xticks(), strict=True))["Mean"]
    shown = {text.get_position(): text for text in axis.texts}
    means = [number(report, model, "mPC AP") for model in ("ln", "dtn")]
    assert [shown[column, row].get_text() for row in (0, 1)] == [f"{mean:.1f}" for mean in means]
    assert shown[column, int(np.argmax(means))].get_fontweight() == "bold"


@pytest.mark.parametrize("which", ["pair", "twenty"])
def test_group_dots_carry_the_numbers(which: str, request: pytest.FixtureRequest) -> None:
    report, drawn = request.getfixturevalue(which)
    axes = drawn.figures["groups_top1"].axes
    model = report.models[1].name
    wanted = number(report, model, "mean error", "blur")
    if len(axes) == 1:
        rows = [tick.get_text() for tick in axes[0].get_yticklabels()]
        assert rows == ["Clean", "Noise", "Blur", "Weather", "Digital", "Extra", "Mean"]
        dots = axes[0].containers[2 * len(report.models) + 1]
    else:
        blur = next(axis for axis in axes if axis.get_title(loc="left") == "Blur")
        dots = blur.containers[1]
    assert dots[0].get_xdata() == pytest.approx(wanted)


def test_scatter_carries_both_numbers(pair: Made) -> None:
    report, drawn = pair
    axis = drawn.figures["clean_corrupted_top1"].axes[0]
    for container, model in zip(axis.containers, ("ln", "dtn"), strict=True):
        point = container[0]
        assert point.get_xdata() == pytest.approx(number(report, model, "error", "clean"))
        assert point.get_ydata() == pytest.approx(number(report, model, "mean error"))
        assert container.has_xerr
        assert container.has_yerr


def test_reliability_panels_show_the_bins_and_their_error(pair: Made) -> None:
    report, drawn = pair
    figure = drawn.figures["reliability_top1"]
    frame = report.sections[0].reliability
    for axis, model in zip(figure.axes, ("ln", "dtn"), strict=True):
        clean = frame[(frame["model"] == model) & (frame["images"] == "clean") & (frame["count"] > 0)]
        np.testing.assert_allclose(axis.lines[1].get_xydata(), clean[["confidence", "accuracy"]])
        assert axis.texts[0].get_text() == f"ECE {number(report, model, 'ECE', 'clean'):.1f} %"


@pytest.mark.parametrize("kind", ["pair", "detectors"])
def test_forest_fills_what_is_significant(kind: str, request: pytest.FixtureRequest) -> None:
    report, drawn = request.getfixturevalue(kind)
    section = report.sections[0]
    # The fixture of classifiers has a baseline, whose mCE the table tests too.
    of_classifiers = section.kind == "top1"
    axis = drawn.figures[f"forest_{section.kind}"].axes[0]
    rows = [tick.get_text() for tick in axis.get_yticklabels()]
    changes = section.differences.set_index(["set", "name", "scope", "severity"])
    known = {"Weather": "weather", "Fog": "fog", "Snow": "snow", "Glass blur": "glass_blur"}
    known |= {"mCE": ""} if of_classifiers else {"Mean corrupted": ""}

    def mean(scope: str) -> str:
        return "mPC AP" if not of_classifiers else "CE" if scope in BENCHMARK else "mCE"

    def p_value(scope: str) -> float:
        return float(changes.loc[("benchmark", mean(scope), scope, 0), "p_value"])

    families = [[""], [group for group in GROUPS if group != "extra"], list(BENCHMARK)]
    adjusted = {
        scope: value
        for family in families
        if (having := [scope for scope in family if ("benchmark", mean(scope), scope, 0) in changes.index])
        for scope, value in zip(having, holm([p_value(scope) for scope in having]), strict=True)
    }
    for title, scope in known.items():
        change = changes.loc["benchmark", mean(scope), scope, 0]
        marker, _, (bar,) = axis.containers[rows.index(title)]
        assert marker.get_xdata() == pytest.approx(change["value"])
        np.testing.assert_allclose(bar.get_segments()[0][:, 0], [change["low"], change["high"]])
        assert (marker.get_markerfacecolor() == "white") == (adjusted[scope] >= 0.05)
    assert "better" in all_text(axis.figure)


@pytest.mark.parametrize(("seed", "gain", "group"), [(1, 0.1, "Noise"), (5, 0.05, "Digital"), (6, 0.15, "Blur")])
def test_table_and_forest_agree_on_every_difference(seed: int, gain: float, group: str) -> None:
    """By mean error, which weighs the corruptions of a group otherwise than mCE does, these groups are undecided."""
    skills = {"ln": 0.7, "dtn": 0.7 + gain}
    report = classification_report(images=50, seed=seed, skills=skills, replicates=400)
    (table,) = (table for table in report_tables(report) if table.name == "pair-1")
    starred = {row.label: "significant" in row.cells[2].marks for row in table.rows}
    figure = draw_forest(report, report.sections[0])
    titles = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    points = dict(zip(titles, (bars[0] for bars in figure.axes[0].containers), strict=True))
    filled = {title: point.get_markerfacecolor() != "white" for title, point in points.items()}
    shared = starred.keys() & filled.keys()
    assert len(shared) == 3 + 4 + len(BENCHMARK)
    assert {title: filled[title] for title in shared} == {title: starred[title] for title in shared}
    values = {row.label: row.cells[2].value for row in table.rows}
    assert points[group].get_xdata() == pytest.approx(values[group])


def test_forest_marks_a_tie_as_insignificant_and_tells_better_from_worse() -> None:
    names = ["base", "alike", "worse"]
    report = classification_report(
        names, baseline=None, skills={"base": 0.8, "alike": 0.8, "worse": 0.3}, corruptions=["fog", "snow"]
    )
    alike, worse = (axis.containers[0][0] for axis in draw_forest(report, report.sections[0]).axes)
    assert alike.get_markerfacecolor() == "white"
    assert worse.get_markerfacecolor() == worse.get_color() == "#d55e00"


@pytest.mark.parametrize(
    ("changes", "left_out"),
    [
        ({"replicates": 0}, {"forest": "no two models were compared image by image"}),
        ({"clean": False}, {"clean_corrupted": "no model has numbers of clean and of corrupted images"}),
        (
            {"clean": False, "severities": [3]},
            {
                "severities": "there are no numbers of single severities, or of one alone",
                "corruptions": "there are no numbers of single severities, or of one alone",
                "clean_corrupted": "no model has numbers of clean and of corrupted images",
            },
        ),
        ({"severities": [2]}, {}),
        ({"corruptions": EXTRA}, {}),
    ],
)
def test_what_there_are_no_numbers_for_is_left_out(changes: dict[str, object], left_out: dict[str, str]) -> None:
    options = {"images": 30, "corruptions": ["fog", "saturate"], "replicates": 10, "baseline": None, **changes}
    drawn = draw_figures(classification_report(**options))
    assert drawn.left_out == {f"{name}_top1": reason for name, reason in left_out.items()}
    assert {*drawn.figures, *drawn.left_out} == {f"{name}_top1" for name in FIGURES if name != "errors"}
    for figure in drawn.figures.values():
        check_legible(figure)
        assert ("95 %" in all_text(figure)) == (options["replicates"] > 0 and "bootstrap" in all_text(figure))


def test_means_over_severities_alone_make_figures_without_severities() -> None:
    report = classification_report(images=30, baseline=None, replicates=0)
    section = report.sections[0]
    numbers = section.numbers
    whole = numbers[(numbers["severity"] == 0) & numbers["name"].isin(["error", "mean error"])]
    imported = tuple(ReportModel(name, "imported", "robustbench: file.csv") for name in ("ln", "dtn"))
    bare = replace(section, numbers=whole, reliability=section.reliability[:0])
    drawn = draw_figures(replace(report, models=imported, sections=(bare,)))
    assert list(drawn.figures) == ["heatmap_top1", "groups_top1", "clean_corrupted_top1"]
    assert drawn.left_out["reliability_top1"] == "there are no confidences"
    assert "‡ imported from other tools" in all_text(drawn.figures["groups_top1"])
    assert "dtn‡" in all_text(drawn.figures["groups_top1"])


def test_a_section_without_numbers_has_no_figure(pair: Made) -> None:
    report, _ = pair
    empty = replace(report.sections[0], numbers=report.sections[0].numbers[:0])
    drawn = draw_figures(replace(report, sections=(empty,)))
    assert not drawn.figures
    assert set(drawn.left_out.values()) == {"there are no numbers"}


def test_partial_models_are_marked() -> None:
    report = classification_report(
        ["one", "other"], images=30, baseline=None, replicates=10, partial={"other": "limit=30 of 50000 seed=0"}
    )
    figures = draw_figures(report).figures
    for name, figure in figures.items():
        text = all_text(figure)
        assert "† partial: limit=30 of 50000 seed=0" in text
        assert "other†" in text, name
        assert "one†" not in text
    fewer = classification_report(
        ["one"], images=30, baseline=None, replicates=0, corruptions=["fog"], partial={"one": "limit=3 of 5 seed=0"}
    )
    for figure in draw_figures(fewer).figures.values():
        assert "limit=3 of 5 seed=0, 5 of 75 conditions" in all_text(figure)


def test_curves_of_many_models_are_grey_but_for_the_first_twins(twenty: Made) -> None:
    figure = twenty[1].figures["severities_top1"]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [*TWENTY[:8], "12 other models"]
    lines = figure.axes[0].lines
    assert len(lines) == 20
    coloured = [line for line in lines if line.get_marker() != "None"]
    assert len(coloured) == 8
    assert {line.get_color() for line in lines[8:]} == {"#c8c8c8"}
    for first, second in zip(coloured[::2], coloured[1::2], strict=True):
        assert first.get_color() == second.get_color()
        assert first.get_markerfacecolor() == "white" != second.get_markerfacecolor()


def test_comparisons_with_one_model_name_it_once() -> None:
    names = [f"net{number}" for number in range(8)]
    report = classification_report(names, images=30, baseline=None, corruptions=BENCHMARK[:2], replicates=10)
    figure = draw_forest(report, report.sections[0])
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == [f"{name}†" for name in names[1:]]
    assert "difference from net0† in top-1 error (points, ← better)" in all_text(figure)
    check_legible(figure)
