"""Every format says the same, takes any name, and does not change unseen.

`DTN_DET_REGENERATE=1 pytest tests/reports/test_report_formats.py` writes the files in `golden` anew.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import re
import shutil
import subprocess
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import classification_report, detection_report, renamed, rounded
from markdown_it import MarkdownIt
from rich.console import Console

from dtn_det.reports.formats.csv_json import csv_table, to_json
from dtn_det.reports.formats.latex import FOLDER, breakable, latex, latex_document, latex_text
from dtn_det.reports.formats.markdown import escaped, escaped_line, markdown, markdown_document
from dtn_det.reports.formats.terminal import print_tables, terminal_table
from dtn_det.reports.labels import one_line
from dtn_det.reports.tables import report_tables
from dtn_det.reports.tables.published import PublishedRow, published_for
from dtn_det.reports.tables.table import Column, Group, Table, TableCell, TableRow

GOLDEN = Path(__file__).parent / "golden"
NASTY = r"""<script>alert("1")</script> & a_b|c*`d`[e](f) {\bf g} $h^2$ ~#%\ '--' é Ω 模型 🎉"""
# Hyphens that would join, what ends rows and options of LaTeX, markup of rich, a list and a heading of Markdown.
NASTY_TOO = "*[x]-- [bold]y[/bold] # 1. z"
TEXTS = st.text(min_size=1, max_size=30).filter(lambda text: one_line(text))


def golden_reports():
    part = {"corruptions": ("gaussian_noise", "shot_noise", "fog", "speckle_noise"), "images": 40, "replicates": 100}
    classifiers = classification_report(
        ("ln", "dtn", "a_b<c>|*"), partial={"a_b<c>|*": "limit=40 of 90 seed=0"}, **part
    )
    return {
        "classification": rounded(classifiers),
        "detection": rounded(detection_report(severities=(1, 3), metrics=("AP", "AP50"), **part)),
    }


PUBLISHED = (
    PublishedRow("ResNet-50", "top1", {"error": 23.85, "mCE": 76.7}, "A paper, Table 1"),
    PublishedRow("Faster R-CNN", "bbox", {"P AP": 36.3, "mPC AP": 18.2, "rPC AP": 50.2}, "A repository"),
)


@pytest.fixture(scope="module")
def reports():
    return golden_reports()


@pytest.fixture(scope="module")
def nasty():
    report = classification_report(("ln", "dtn"), images=20, replicates=20, corruptions=("fog", "snow"))
    return renamed(report, {"ln": NASTY, "dtn": NASTY_TOO})


def on_terminal(tables, width=100):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_tables(console, tables)
    return console.file.getvalue()


def test_reports_are_made_up_as_they_were(reports):
    """Where this fails and others with it, look at this one first."""
    numbers = reports["classification"].sections[0].numbers
    found = numbers[(numbers["name"] == "mCE") & (numbers["scope"] == "") & (numbers["set"] == "benchmark")]
    assert found["value"].tolist() == [100.0, 87.150734, 80.114008]


@pytest.mark.parametrize(
    ("task", "suffix"),
    [*itertools.product(("classification", "detection"), ("md", "csv", "tex", "txt")), ("detection", "json")],
)
def test_golden_files(reports, task, suffix):
    report = reports[task]
    tables = report_tables(report, PUBLISHED)
    if suffix == "md":
        text = markdown_document(tables)
    elif suffix == "csv":
        text = "\n".join(csv_table(table, report) for table in tables)
    elif suffix == "tex":
        text = "\n".join([*map(latex, tables), latex_document(tables)])
    elif suffix == "txt":
        text = "\n".join(line.rstrip() for line in on_terminal(tables).splitlines()) + "\n"
    else:
        text = json.dumps(json.loads(to_json(report)), indent=1) + "\n"
    path = GOLDEN / f"{task}.{suffix}"
    if os.environ.get("DTN_DET_REGENERATE"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text


# What every format tells


def test_marks_in_every_format():
    columns = (
        Column("one", direction="up", signed=True, with_interval=True, span="both"),
        Column("two", "%", note="x"),
    )
    rows = (
        TableRow(
            "first",
            (
                TableCell(2.5, (1.0, 4.0), frozenset({"best", "significant"})),
                TableCell(0.25, marks=frozenset({"bound"})),
            ),
        ),
        TableRow(
            "second", (TableCell(-1.5, marks=frozenset({"second"})), TableCell()), note="partial (3/5)", is_mean=True
        ),
        TableRow("third", (TableCell(0.5, note="partial (2/5)"), TableCell(1.0))),
    )
    table = Table(
        "t", "Title", "Model", columns, (Group(rows, "group"),), "partial (limit=5)", ("a note",), ("footer",)
    )
    text = markdown(table)
    assert "### Title, partial (limit=5)" in text
    assert r"**+2.5**\* \[1.0, 4.0\]" in text
    assert "<ins>−1.5</ins>" in text  # noqa: RUF001
    assert "*second* partial (3/5)" in text
    assert "+0.5 partial (2/5)" in text
    assert "both one ↑" in text
    assert "two, % x" in text.replace(", x", " x")
    assert text.endswith("- a note\n- footer\n")
    text = latex(table)
    assert r"{${+}\mathbf{2.5}\rlap{$^{*}$}$} & {\scriptsize $[1.0, 4.0]$}" in text
    assert r"{${-}\underline{1.5}$}" in text
    assert r"\llap{$\le$\,}" in text
    assert r"\textit{second} {\scriptsize partial (3/5)}" in text
    assert r"{\scriptsize partial (2/5)}" in text
    assert r"\multicolumn{2}{c}{one $\uparrow$}" in text
    assert r"\caption{Title, partial (limit=5).}" in text
    assert r"\label{tab:dtn-det-t}" in text
    styled = Console(file=io.StringIO(), width=100, force_terminal=True, color_system="standard")
    print_tables(styled, [table])
    text = styled.file.getvalue()
    assert re.search(r"\x1b\[1m *\+2\.5\*", text)
    assert re.search(r"\x1b\[4m *−1\.5", text)  # noqa: RUF001
    plain = on_terminal([table])
    for said in ("Title, partial (limit=5)", "second partial (3/5)", "+0.5 partial (2/5)", "≤ 0.2", "a note", "footer"):
        assert said in plain


def test_partial_results_and_provenance_in_every_format(reports):
    report = reports["classification"]
    tables = report_tables(report)
    texts = {
        "markdown": markdown_document(tables),
        "one table as markdown": markdown(tables[0]),
        "latex": latex(tables[0]).replace("{}", ""),
        "terminal": on_terminal(tables, 200),
        "csv": csv_table(tables[0], report),
        "json": to_json(report),
    }
    facts = ("made-up", "imagenet-c jpeg85 rgb seed=0", "40", "2026-01-02")
    for name, text in texts.items():
        assert "limit=40 of 90 seed=0" in text, name
        if name != "json":
            assert "partial (15/75)" in text, name
        for fact in facts:
            assert fact in text, (name, fact)
        if name != "csv":
            assert "torch" in text, name
            assert "2.7.0" in text, name


def test_csv_has_all_digits_and_tells_where_from(reports):
    report = reports["classification"]
    table = report_tables(report, PUBLISHED)[0]
    frame = pd.read_csv(io.StringIO(csv_table(table, report)))
    numbers = report.sections[0].numbers
    mce = numbers[(numbers["name"] == "mCE") & (numbers["scope"] == "") & (numbers["set"] == "benchmark")]
    assert frame["Model"].tolist() == ["ln", "dtn", "a_b<c>|*", "ResNet-50"]
    assert frame["corrupted mCE"].tolist() == [*mce["value"], 76.7]
    assert frame["corrupted mCE low"].tolist()[1:3] == mce["low"].tolist()[1:]
    assert frame["corrupted mCE high"].tolist()[1:3] == mce["high"].tolist()[1:]
    # The baseline against itself is certain.
    assert frame["corrupted mCE low"].isna().tolist() == [True, False, False, True]
    assert frame["note"].tolist()[:2] == ["partial (15/75)"] * 2
    assert frame["note"][2] == "partial (15/75; limit=40 of 90 seed=0)"
    # What was published elsewhere was not made from these images.
    assert frame["published"].isna().tolist() == [True, True, True, False]
    assert frame["data"].isna().tolist() == [False, False, False, True]
    assert frame["corruptions"][0] == report.provenance.corruption


def test_nothing_on_a_terminal_is_wider_than_it(reports):
    many = classification_report([f"model-{n}" for n in range(8)], images=20, replicates=20, baseline="alexnet")
    console = Console(file=io.StringIO(), width=80, color_system=None)
    for report in (reports["classification"], many):
        tables = [replace(table, notes=(), footer=()) for table in report_tables(report)[:3]]
        print_tables(console, tables)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    # In parts, each with the names.
    assert text.count("model-7") > 3
    narrow = on_terminal(report_tables(reports["detection"])[:1], 20)
    assert "dtn" in narrow


# Any name


@given(TEXTS)
def test_markdown_shows_any_text(text):
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    row = TableRow(text, (TableCell(text),))
    table = Table("t", text, text, (Column(text, align="left"),), (Group((row,), text),), "", (text,))
    tokens = parser.parse(markdown(table))
    shown = [token for token in tokens if token.type == "inline"]
    assert [token.type for token in tokens].count("table_open") == 1
    for token in shown:
        assert {child.type for child in token.children} <= {"text", "strong_open", "strong_close"}
        assert "".join(child.content for child in token.children) in (one_line(text), "")
    # Title, two headings, the group's row, the row, a note.
    assert sum(bool(token.content) for token in shown) == 1 + 2 + 1 + 2 + 1


def test_markdown_escapes():
    assert escaped("a_b|<c>") == r"a\_b\|&lt;c&gt;"
    assert escaped_line("1. z") == r"1\. z"
    assert escaped_line("- z") == r"\- z"


@given(TEXTS)
def test_latex_of_any_text_is_ascii_without_a_command_of_its_own(text):
    found = latex_text(text)
    assert found.isascii()
    assert breakable(found).replace(r"\hspace{0pt}", "") == found
    plain = re.sub(r"\\([a-zA-Z]+|[^a-zA-Z])", "", found)
    assert not set("%#&_~^\\") & set(plain.replace("$^$", ""))
    assert plain.count("$") % 2 == 0
    depth = 0
    for sign in plain:
        depth += (sign == "{") - (sign == "}")
        assert depth >= 0
    assert depth == 0


def test_latex_transliterates():
    assert latex_text("é ş ı Å") == r"\'{e} \c{s} \i{} \r{A}"  # noqa: RUF001
    assert latex_text("α Ω Λ ≤ ×") == r"$\alpha$ $\Omega$ $\Lambda$ $\le$ $\times$"  # noqa: RUF001
    assert latex_text("ａ１ ﬁ ǻ") == "a1 fi a"  # noqa: RUF001
    assert latex_text("模🎉đ") == "U+6A21U+1F389U+0111"
    assert latex_text("a--b ,, '' ?` -") == r"a-{}-b ,{}, '{}' ?{}\textquoteleft{} -"
    assert latex_text("i\N{COMBINING DIAERESIS}") == r"\"{\i}"


@given(TEXTS)
def test_a_terminal_shows_any_text_as_text(text):
    table = Table(
        "t", text, text, (Column(text, align="left"),), (Group((TableRow(text, (TableCell(text),)),), text),), text
    )
    drawn = terminal_table(table)
    assert drawn.title.plain == one_line(f"{text}, {text}")
    cells = [*drawn.columns[0].cells, *drawn.columns[1].cells]
    assert [getattr(cell, "plain", cell) for cell in cells] == [one_line(text), one_line(text), "", one_line(text)]
    printed = on_terminal([table])
    assert not any(ord(sign) < 32 and sign != "\n" for sign in printed)


@given(TEXTS)
def test_one_line_has_nothing_that_steers(text):
    found = one_line(text)
    assert len(found.splitlines()) <= 1
    assert found.isprintable() or not found.isascii()
    assert one_line(found) == found


def test_one_line():
    assert one_line(" a\r\n\tb\x1b[31m\u202ec\ud800 ") == "a b�[31m�c�"


@given(TEXTS)
def test_csv_and_json_keep_any_text(text):
    table = Table("t", "", text, (Column(text),), (Group((TableRow(text, (TableCell(1.0),)),), text),))
    lines = list(csv.reader(io.StringIO(csv_table(table, SMALL))))
    assert len(lines) == 2
    assert lines[1][:3] == [one_line(text), one_line(text), "1"]
    report = renamed(SMALL, {"ln": text, "dtn": text + "2"})
    assert_holds(to_json(report), report)


SMALL = classification_report(images=6, corruptions=("fog",), severities=(1,), replicates=3)


def test_the_whole_report_with_nasty_names_in_text_formats(nasty):
    tables = report_tables(nasty)
    assert "<script" not in markdown_document(tables)
    assert "[bold]y[/bold]" in on_terminal(tables, 400)
    assert '<script>alert("1")</script>' in on_terminal(tables, 400)


# JSON


def assert_holds(text, report):
    """See that JSON has everything that a report says."""
    content = json.loads(text)
    assert (content["format"], content["version"]) == ("dtn-det report", 1)
    assert (content["task"], content["baseline"], content["remarks"]) == (
        report.task,
        report.baseline,
        list(report.remarks),
    )
    assert content["provenance"] == asdict(report.provenance)
    assert content["models"] == [asdict(model) for model in report.models]
    for told, section in zip(content["sections"], report.sections, strict=True):
        assert (told["kind"], told["pairs"]) == (section.kind, [list(pair) for pair in section.pairs])
        for name in ("numbers", "differences", "reliability"):
            frame = getattr(section, name).drop(columns="p_adjusted", errors="ignore")
            found = pd.DataFrame(told[name]["rows"], columns=told[name]["columns"]).astype(frame.dtypes)
            pd.testing.assert_frame_equal(found, frame)


@pytest.mark.parametrize("replicates", [0, 20])
def test_json_holds_everything(replicates):
    for report in (
        classification_report(images=20, replicates=replicates, partial={"ln": "limit=20 of 50 seed=0"}),
        detection_report(images=20, replicates=replicates, kinds=("bbox", "segm")),
    ):
        text = to_json(report)
        assert "NaN" not in text
        assert text.isascii()
        assert_holds(text, report)


# LaTeX that compiles


@pytest.fixture(scope="module")
def pdflatex(tmp_path_factory):
    """Compiles documents of tables, and returns what pdflatex says."""
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex: install TeX with booktabs and siunitx (tools/ci_packages.sh)")
    for package in ("booktabs", "siunitx"):
        found = subprocess.run(["kpsewhich", f"{package}.sty"], capture_output=True, text=True, check=False).stdout
        if not found.strip():
            pytest.skip(f"no LaTeX package {package}: install it (tools/ci_packages.sh)")

    def compile_tables(tables, document=None):
        folder = tmp_path_factory.mktemp("tex")
        (folder / FOLDER).mkdir()
        for table in tables:
            (folder / FOLDER / f"{table.name}.tex").write_text(latex(table), encoding="ascii")
        (folder / "report.tex").write_text(document or latex_document(tables), encoding="ascii")
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex"]
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=120, check=False)
        said = done.stdout.decode(errors="replace")
        assert done.returncode == 0, said[-3000:]
        assert (folder / "report.pdf").stat().st_size > 0
        return said + (folder / "report.log").read_text(errors="replace")

    return compile_tables


def test_latex_compiles_with_nasty_names(pdflatex, nasty):
    detectors = renamed(detection_report(images=20, replicates=20, kinds=("bbox", "segm")), {"ln": NASTY_TOO})
    tables = report_tables(nasty, PUBLISHED)
    more = [replace(table, name=f"d-{table.name}") for table in report_tables(detectors, published_for(detectors))]
    said = pdflatex([*tables, *more])
    assert "Overfull \\hbox" not in said
    assert "Overfull \\vbox" not in said
    assert "Missing character" not in said


def test_latex_compiles_with_every_kind_of_sign(pdflatex):
    ranges = ((0x20, 0x250), (0x2B0, 0x530), (0x1E00, 0x1FFF), (0x2000, 0x2300), (0x4E00, 0x4E10), (0xFB00, 0xFB07))
    signs = "".join(chr(code) for first, last in ranges for code in range(first, last)) + "\ud800\x00\U0001f389"
    rows = [TableRow("x" + signs[start : start + 8] + "x", (TableCell(1.0),)) for start in range(0, len(signs), 8)]
    rows += [TableRow(sign, (TableCell(1.0),)) for sign in "*[]-=&%"]
    tables = [
        Table(f"t{start}", "signs", "", (Column("number"),), (Group(tuple(rows[start : start + 40])),))
        for start in range(0, len(rows), 40)
    ]
    assert "Missing character" not in pdflatex(tables)


def test_fragments_go_into_a_paper_of_two_columns(pdflatex, reports):
    tables = report_tables(reports["detection"], PUBLISHED)[:5]
    inputs = "\n".join(
        rf"Text. \input{{{FOLDER}/{table.name}}} See Table~\ref{{tab:dtn-det-{table.name}}}." for table in tables
    )
    document = (
        r"\documentclass[twocolumn]{article}\usepackage{booktabs,siunitx,graphicx,array}"
        rf"\begin{{document}}{inputs}\end{{document}}"
    )
    assert "Overfull \\hbox" not in pdflatex(tables, document)


def test_many_models_compile(pdflatex):
    names = [f"resnet{number}.tv_in1k" for number in range(20)]
    report = classification_report(names, images=20, replicates=20, baseline="alexnet", pairs=[(names[0], names[1])])
    tables = [table for table in report_tables(report, published_for(report)) if not table.name.startswith("cells")]
    said = pdflatex(tables)
    assert "Overfull \\hbox" not in said
    assert "Overfull \\vbox" not in said
