"""The page of a report: what is on it, that nothing in it is taken for HTML, and that it loads nothing."""

from __future__ import annotations

import base64
import gzip
import hashlib
import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import made_up
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from page_tree import Element, grid, parse, tags

from dtn_det.corruptions.catalog import BENCHMARK, GROUPS
from dtn_det.corruptions.cells import Cell
from dtn_det.metrics.resampling import holm
from dtn_det.reports.changes import Change
from dtn_det.reports.numbers import Numbers
from dtn_det.reports.page import _finding, findings, render_page, write_page
from dtn_det.reports.samples import Answer, Box, Disagreement, Gallery, Picture, SampleImage
from dtn_det.reports.tables.published import published_rows
from dtn_det.reports.tables.table import MINUS

NASTY = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "&lt;b&gt; & <!-- ",
    "]]> {{ 7 * 7 }} {% raw %}",
    "\\u003cscript\\u003e",
    "a\u2028b\u2029c",
    "<b>bold</b> %{x} $x^2$",
)
FEW = {"images": 12, "corruptions": ("gaussian_noise", "fog"), "severities": (1, 3), "replicates": 20}


def small_report(models, **changes):
    """A report of classifiers, two corruptions, and the first one as the baseline."""
    return made_up.classification_report(tuple(models), **{**FEW, "baseline": models[0], **changes})


@pytest.fixture(scope="module")
def classifiers():
    return made_up.classification_report(("ln", "dtn", "other"), images=40, corruptions=made_up.ALL, replicates=60)


@pytest.fixture(scope="module")
def page(classifiers) -> Element:
    return parse(render_page(classifiers))


def view(page: Element, name: str) -> Element:
    return page.one("div", id=f"table-{name}").one("table")


def values(page: Element, name: str) -> dict:
    return json.loads(page.one("script", id=name).text)


class TestContents:
    def test_every_cell_of_every_model_is_there(self, page, classifiers):
        section = classifiers.sections[0]
        table = view(page, "cells-top1")
        rows = {(row[0], row[2]): row[3:8] for row in grid(table)}
        cells = section.numbers[(section.numbers["name"] == "error") & (section.numbers["severity"] > 0)]
        assert len(cells) == 3 * 95
        for row in cells.itertuples():
            title = row.scope.replace("_", " ").replace("jpeg", "JPEG")
            text = rows[row.model, title[0].upper() + title[1:]][row.severity - 1]
            assert abs(float(text) - row.value) <= 0.5, row

    def test_numbers_sort_by_their_values_and_not_by_their_texts(self, page):
        cells = [cell for cell in view(page, "cells-top1").all("td") if "data-v" in cell.attributes]
        assert len(cells) > 3 * 95
        for cell in cells:
            assert float(cell.attributes["data-v"]) == pytest.approx(float(cell.own_text.replace(MINUS, "-")), abs=0.51)

    def test_intervals_are_in_the_text_for_screen_readers(self, page):
        numbers = [cell for cell in view(page, "cells-top1").all("td", class_="n") if "data-v" in cell.attributes]
        with_interval = [cell for cell in numbers if cell.all("span", class_="ci")]
        assert len(with_interval) == len(numbers) > 0
        assert all(re.search(r"\[.+, .+\]$", cell.one("span", class_="ci").text) for cell in with_interval)
        assert "followed by its 95 % interval" in view(page, "cells-top1").one("caption").text

    def test_the_best_is_marked_for_eyes_and_ears(self, page):
        best = view(page, "summary").all("td", class_="best")
        assert best
        assert all(cell.text.split()[1] == "best" for cell in best)

    def test_columns_share_headers(self, classifiers):
        models = tuple(f"model {number}" for number in range(8))
        page = parse(render_page(small_report(models, replicates=0)))
        table = view(page, "corruptions")
        upper, lower = table.one("thead").all("tr")
        spans = [int(cell.attributes.get("colspan", 1)) for cell in upper.all("th")]
        leaves = [cell for cell in table.all("th") if "data-c" in cell.attributes]
        assert sum(spans) == len(leaves) == len(table.one("tbody").all("tr")[0].all("td", "th"))
        assert sorted(int(cell.attributes["data-c"]) for cell in leaves) == list(range(len(leaves)))
        assert all(cell.attributes["rowspan"] == "2" for cell in upper.all("th") if "data-c" in cell.attributes)
        assert [cell.attributes["scope"] for cell in upper.all("th", class_="over")] == ["colgroup"] * 2
        assert lower.all("th")[0].attributes["data-about"] == "Gaussian noise"

    def test_what_is_partial_is_marked_at_every_table(self):
        report = small_report(("whole", "part"), partial={"part": "3 of 5 units of images"})
        page = parse(render_page(report))
        for table in page.all("table"):
            names = [cell for cell in table.all("th", "td") if cell.own_text == "part"]
            assert names, table.one("caption").text
            assert any("partial" in badge.text for name in names for badge in name.all("span", class_="badge"))
        assert "partial (10/75)" not in page.one("h1").text
        assert page.one("details", class_="remark").text.count("3 of 5 units of images") == 1

    def test_what_all_share_is_marked_at_the_titles(self):
        selection = "limit=12 of 50000 seed=0"
        report = small_report(("a", "b"), partial=dict.fromkeys(("a", "b"), selection))
        page = parse(render_page(report))
        titles = [box.one("h3") for box in page.all("div", class_="table")]
        assert titles
        assert all(selection in title.one("span", class_="badge").text for title in titles)

    def test_published_numbers_are_in_a_table_of_their_own(self, classifiers):
        page = parse(render_page(classifiers, None, published_rows()))
        names = {row.model for row in published_rows() if row.kind == "top1"}
        apart = view(page, "summary-published")
        assert {row[0] for row in grid(apart)} == names
        assert "not measured here" in apart.one("caption").text
        assert not names & {row[0] for table in page.all("table") if table is not apart for row in grid(table)}
        assert all(row[-1] for row in grid(apart))
        assert not apart.all("td", class_="best")

    def test_pairs_have_intervals_p_values_and_verdicts(self, page):
        rows = view(page, "pairs-top1-benchmark").one("tbody").all("tr")
        assert {tuple(cell.own_text for cell in row.all("th")[:2]) for row in rows} == {("ln", "dtn"), ("ln", "other")}
        header = [cell.own_text for cell in view(page, "pairs-top1-benchmark").all("th") if "data-c" in cell.attributes]
        assert {"Difference", "p"} <= set(header)
        assert any("significant" in row.text for row in rows)

    def test_provenance(self, page, classifiers):
        about = classifiers.provenance
        facts = {one.one("dt").text: one.one("dd").text for one in page.one("footer").all("div")}
        assert facts["Hash of the data"] == about.data_hash
        assert facts["Corruptions"] == about.corruption
        assert facts["Versions"] == ", ".join(f"{name} {version}" for name, version in about.versions.items())
        assert facts["Bootstrap"] == "60 replicates of the images, seed 0, level 0.95"
        shown = {one.one("dt").text: one.one("dd").text for one in page.one("header").all("div")}
        assert shown["Profile"] == "imagenet-c"
        assert shown["JPEG step"] == "quality 85"
        assert shown["Seed"] == "0"
        assert shown["Images"] == "40 (all)"
        assert shown["Date"] == "2026-01-02"

    def test_bad_images_are_told(self, classifiers):
        models = (replace(classifiers.models[0], bad_images=7), *classifiers.models[1:])
        page = parse(render_page(replace(classifiers, models=models)))
        facts = {one.one("dt").text: one.one("dd").text for one in page.one("footer").all("div")}
        assert facts["Bad images left out"] == "ln: 7"

    def test_without_images_it_says_how_to_get_them(self, page):
        assert "--data DIR" in page.one("section", id="samples").text
        assert values(page, "images") is None

    @pytest.mark.parametrize(
        "report",
        [
            made_up.detection_report(("a", "b"), **FEW, kinds=("bbox", "segm")),
            made_up.detection_report(("a",), **{**FEW, "replicates": 0}),
            small_report(("a", "b"), clean=False, baseline=None),
            small_report(("a",), corruptions=("spatter",), baseline=None),
        ],
        ids=["masks", "no intervals", "no clean images", "extra corruptions alone"],
    )
    def test_other_reports(self, report):
        page = parse(render_page(report))
        assert view(page, "models").all("td")
        names = [one["name"] for one in values(page, "figures")["models"]]
        assert names == [model.name for model in report.models]
        for link in page.one("nav").all("a"):
            assert [one for one in page if one.attributes.get("id") == link.attributes["href"].removeprefix("#")]

    def test_it_is_written_as_a_whole(self, tmp_path, classifiers):
        write_page(tmp_path / "out" / "report.html", classifiers)
        assert (tmp_path / "out" / "report.html").read_text() == render_page(classifiers)
        assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["report.html"]


class TestFindings:
    def found(self, **skills: float):
        report = small_report(list(skills), skills=skills, replicates=100)
        return findings(report, [Numbers.of(report, section) for section in report.sections])

    def test_better(self):
        (finding,) = self.found(first=0.2, second=1.5)
        assert finding.verdict == "better"
        assert finding.claim == "second is better under corruption than first."
        told = rf"mCE is 100.0 for first and [\d.]+ for second, a difference of {MINUS}\d.* p ≤ 0.020\)(; .*)?\."
        assert re.fullmatch(told, finding.evidence)

    def test_a_gain_of_the_clean_images_alone_is_told(self):
        about = small_report(["net"]).provenance
        gain = Change("mCE", "mCE", "", 100, 85, -15.0, (-18.0, -12.0), 0.002, 0.002)
        for value, ends, p_value, told in (
            (4.0, (-9.0, 12.0), 0.6, "; beyond what the clean images differ by, nothing is shown (relative mCE +4)."),
            (4.0, (3.0, 5.0), 0.002, "nothing is shown (relative mCE +4.0)."),
            (-4.0, (-5.0, -3.0), 0.002, ")."),
        ):
            beyond = Change("relative mCE", "relative mCE", "", 100, 100 + value, value, ends, p_value, p_value)
            evidence = _finding(("a", "b"), gain, beyond, "down", about, "").evidence
            assert evidence.endswith(told)
            assert ("clean" in evidence) == (value > 0)

    def test_worse(self):
        (finding,) = self.found(first=1.5, second=0.2)
        assert (finding.verdict, finding.claim) == ("worse", "first is better under corruption than second.")

    def test_even(self):
        (finding,) = self.found(first=0.7, second=0.7)
        assert (finding.verdict, finding.claim) == ("even", "first and second cannot be told apart.")

    def test_no_more_than_three(self):
        assert len(self.found(**{f"m{number}": 0.5 for number in range(6)})) == 3


class TestAccess:
    def test_landmarks_and_headings(self, page):
        for tag in ("header", "nav", "main", "footer"):
            page.one(tag)
        levels = [int(one.tag[1]) for one in page if re.fullmatch(r"h[1-6]", one.tag)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
        assert page.one("html").attributes["lang"] == "en"

    def test_tables_have_captions_and_scopes(self, page):
        for table in page.all("table"):
            assert table.one("caption").text
            assert all(cell.attributes["scope"] for cell in table.all("th"))
            assert all(row.all("th", scope="row") for row in table.one("tbody").all("tr"))

    def test_ids_are_unique(self, page):
        ids = [one.attributes["id"] for one in page if "id" in one.attributes]
        assert len(ids) == len(set(ids))
        assert all(" " not in one for one in ids)

    def test_inputs_and_figures_have_names(self, page):
        labelled = [one for label in page.all("label") for one in label.all("input")]
        assert labelled == page.all("input")
        for figure in page.all("figure"):
            plot = figure.one("div", class_="plot")
            assert plot.attributes["aria-label"].startswith(figure.one("h3").text)
            assert plot.attributes["tabindex"] == "0"

    @pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
    def test_contrast(self, theme):
        style = (Path(render_page.__code__.co_filename).parent / "page.css").read_text()
        pairs = dict(re.findall(r"--(\w+): light-dark\((#\w+, #\w+)\)", style))
        colours = {name: pair.split(", ")[theme] for name, pair in pairs.items()}
        for ink in ("ink", "muted", "accent", "good", "bad"):
            for ground in ("paper", "wash"):
                assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
        # Of the hint, whose colours are swapped.
        assert contrast(colours["paper"], colours["ink"]) >= 4.5


def contrast(one: str, other: str) -> float:
    """Of two colours by WCAG 2."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


class TestSafety:
    def test_nothing_is_loaded(self, page):
        for one in page:
            assert not {"src", "srcset", "data", "action", "background", "poster"} & set(one.attributes), one.tag
            assert one.attributes.get("href", "#").startswith("#")
            assert one.tag not in ("link", "iframe", "object", "embed", "base", "form")
            assert not [name for name in one.attributes if name.startswith("on")]
        styles = "".join(one.text for one in page.all("style")) + "".join(
            one.attributes.get("style", "") for one in page
        )
        assert not re.search(r"url\(|@import|expression\(", styles)
        own = [one.text for one in page.all("script") if "type" not in one.attributes]
        assert len(own) == 1
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|\bfetch\(|XMLHttpRequest|import\(", own[0])

    def test_the_policy_lets_no_other_script_run(self, page):
        policy = page.one("meta", http_equiv="Content-Security-Policy").attributes["content"]
        rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split("; ")}
        assert rules["default-src"] == ["'none'"]
        assert rules["img-src"] == ["data:", "blob:"]
        own = next(one for one in page.all("script") if "type" not in one.attributes)
        plotly = gzip.decompress(base64.b64decode(page.one("script", id="plotly").text))
        scripts = [own.children[0].encode(), plotly]
        hashes = [base64.b64encode(hashlib.sha256(one).digest()).decode() for one in scripts]
        assert rules["script-src"] == [f"'sha256-{one}'" for one in hashes]

    def test_two_pages_of_one_report_are_alike(self, classifiers):
        assert render_page(classifiers) == render_page(classifiers)

    @settings(max_examples=8)
    @given(
        names=st.lists(
            st.one_of(st.sampled_from(NASTY), st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)),
            min_size=2,
            max_size=3,
            unique_by=lambda name: " ".join(name.split()),
        ).filter(lambda names: all(name.split() for name in names)),
        nasty=st.sampled_from(NASTY),
        detection=st.booleans(),
    )
    def test_no_text_is_taken_for_html(self, names, nasty, detection):
        few = {**FEW, "replicates": 4, "images": 6}
        make = made_up.detection_report if detection else made_up.classification_report
        settings_ = {} if detection else {"baseline": names[0]}
        plain = {} if detection else {"baseline": "a"}

        def full(report, text):
            models = tuple(replace(one, source=text, settings={"k": text}, partial=text) for one in report.models)
            about = replace(
                report.provenance,
                data=text,
                selection=text,
                corruption=text,
                settings={"k": text},
                versions={"v": text},
            )
            return replace(report, models=models, provenance=about, remarks=(text, text))

        report = full(make(names, **few, **settings_), nasty)
        simple = full(make(("a", "b", "c")[: len(names)], **few, **plain), "text")
        page = parse(render_page(report, gallery(names, nasty)))
        assert tags(page) == tags(parse(render_page(simple, gallery(("a", "b", "c")[: len(names)], "text"))))
        assert [one["name"] for one in values(page, "figures")["models"]] == names
        assert values(page, "images")["images"][0]["truth"] == nasty
        assert values(page, "images")["images"][0]["pictures"][0]["answers"]["0"]["text"] == nasty
        assert [row[0] for row in grid(view(page, "models"))] == [name.strip() for name in names]
        assert page.one("details", class_="remark").all("li")[0].text == " ".join(nasty.split())
        assert not [name for one in page for name in one.attributes if name.startswith("on")]


def gallery(models, text="cat"):
    """Two images, one of a detector, with all texts the same."""
    box = Box((1.0, 2.0, 3.0, 4.0), text, 0.123, False, "Loc")
    answers = {name: Answer(text, None, (box,)) for name in models}
    picture = Picture(Cell("gaussian_noise", 1), b"webp", answers)
    image = SampleImage(text, text, (4, 4), (picture,), (Box((0.0, 0.0, 1.0, 1.0), text),))
    return Gallery(tuple(models), (image, image), (Disagreement(models[1], models[0], image),), (text,))


class TestImages:
    def test_pictures_answers_and_boxes(self, classifiers):
        found = values(parse(render_page(classifiers, gallery(("ln", "dtn")))), "images")
        (picture,) = found["images"][0]["pictures"]
        assert base64.b64decode(picture["source"].removeprefix("data:image/webp;base64,")) == b"webp"
        assert picture["answers"]["1"] == {
            "text": "cat",
            "right": None,
            "boxes": [[1, 2, 3, 4, "cat", 0.12, False, "Loc"]],
        }
        assert found["images"][0]["objects"] == [[0, 0, 1, 1, "cat"]]
        assert found["disagreements"][0]["better"] == 1
        assert (found["models"], found["shown"]) == ([0, 1], [0, 1])

    def test_of_many_models_the_compared_ones_are_shown(self):
        names = [f"m{number}" for number in range(6)]
        report = small_report(names, replicates=0)
        shown = values(parse(render_page(report, gallery(names))), "images")["shown"]
        assert shown == [0, 1]
        without = replace(gallery(names), disagreements=())
        assert values(parse(render_page(report, without)), "images")["shown"] == [0, 1, 2, 3]


class TestFigures:
    def test_numbers(self, page, classifiers):
        data = values(page, "figures")
        numbers = classifiers.sections[0].numbers.set_index(["model", "name", "scope", "severity"])
        measure = next(one for one in data["measures"] if one["title"] == "Top-1 error, %")
        for place, model in enumerate(classifiers.models):
            own = measure["models"][place]
            for scope, found in (("fog", own["corruptions"]["fog"]), ("noise", own["groups"]["noise"])):
                row = numbers.loc[model.name, "mean error", scope, 0]
                assert found == pytest.approx([row["value"], row["low"], row["high"]], rel=1e-5)
            row = numbers.loc[model.name, "error", "snow", 4]
            assert own["cells"]["snow"][3] == pytest.approx([row["value"], row["low"], row["high"]], rel=1e-5)
            severities = [numbers.loc[model.name, "mean error", "", level].iloc[0]["value"] for level in range(1, 6)]
            assert [one[0] for one in own["severities"]] == pytest.approx(severities, rel=1e-5)

    def test_differences(self, page, classifiers):
        data = values(page, "figures")
        measure = next(one for one in data["measures"] if one["title"].startswith("Corruption error"))
        pair = next(one for one in measure["pairs"] if one["models"] == [0, 2])
        rows = classifiers.sections[0].differences
        row = rows[(rows.second == "other") & (rows.name == "mCE") & (rows.scope == "") & (rows["set"] == "benchmark")]
        assert pair["mean"] == pytest.approx(row[["value", "low", "high", "p_value"]].iloc[0].tolist(), rel=1e-5)
        rows = rows[(rows.second == "other") & (rows["set"] == "benchmark")].set_index(["name", "scope", "severity"])
        for key, name, chosen in (
            ("corruptions", "CE", BENCHMARK),
            ("groups", "mCE", [group for group in GROUPS if group != "extra"]),
        ):
            adjusted = holm([rows.loc[(name, scope, 0), "p_value"] for scope in chosen])
            assert [pair[key][scope][3] for scope in chosen] == pytest.approx(adjusted, rel=1e-5)

    def test_reliability(self, page, classifiers):
        data = values(page, "figures")["reliability"]
        rows = classifiers.sections[0].reliability
        for images in ("clean", "corrupted"):
            for place, model in enumerate(classifiers.models):
                wanted = rows[(rows.model == model.name) & (rows.images == images) & (rows["count"] > 0)]
                assert [one[2] for one in data[images][place]] == wanted["count"].tolist()

    def test_what_is_missing_is_null(self):
        report = small_report(("a", "b"), replicates=0, clean=False, baseline=None)
        data = values(parse(render_page(report)), "figures")
        measure = data["measures"][0]["models"][0]
        assert measure["clean"] is None
        assert measure["cells"]["fog"][1] is None
        assert measure["cells"]["fog"][0][1:] == [None, None]
        assert "snow" not in measure["cells"]
        assert data["pairs"] == []

    def test_models_look_as_in_the_other_figures(self, page):
        models = values(page, "figures")["models"]
        assert len({(one["colour"], one["symbol"]) for one in models}) == len(models)
        assert {one["dash"] for one in models} <= {"solid", "dash", "dot", "dashdot"}
