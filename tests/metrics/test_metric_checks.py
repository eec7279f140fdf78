"""The gate of the tables: each fault is an error that lists its cells."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from metric_tables import grid

from dtn_det.metrics import CLEAN, CellError, all_cells, mean_error, mean_performance_under_corruption
from dtn_det.metrics.cells import checked_cells, corruptions_of, describe


def test_a_sound_table_in_any_order_and_type():
    frame = grid(lambda cell: cell[1] / 10, num_images=50).sample(frac=1, random_state=0)
    frame["severity"] = frame["severity"].astype(float)
    frame["corruption"] = frame["corruption"].astype("category")
    found = checked_cells(frame, "AP")
    assert found.cells == all_cells("benchmark")
    assert found.values.tolist() == [0.1, 0.2, 0.3, 0.4, 0.5] * 15
    assert (found.clean, found.expected_cells, found.num_images) == (0.4, 75, 50)


def test_missing_cells_are_listed():
    frame = grid()
    frame = frame[~((frame.corruption == "fog") & (frame.severity > 3)) & (frame.corruption != "snow")]
    with pytest.raises(
        CellError, match=r"missing \(7\): snow 1 2 3 4 5, fog 4 5: evaluate what is missing, or allow partial"
    ) as caught:
        checked_cells(frame, "AP")
    assert list(caught.value.problems) == ["missing"]
    assert len(caught.value.problems["missing"]) == 7


@pytest.mark.parametrize("allow_partial", [False, True])
def test_the_clean_row_is_missed_where_it_is_needed(allow_partial):
    with pytest.raises(CellError, match=r"missing \(1\): clean:"):
        checked_cells(grid(clean=None), "AP", needs_clean=True, allow_partial=allow_partial)
    assert checked_cells(grid(clean=None), "AP").clean is None


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("corruption", "haze", r"unknown \(1\): haze 3"),
        ("corruption", "clean", r"unknown \(1\): clean 3"),
        ("severity", 0, r"unknown \(1\): fog 0"),
        ("severity", 6, r"unknown \(1\): fog 6"),
        ("severity", 2.5, r"unknown \(1\): fog 2\.5"),
        ("severity", "3", r"unknown \(1\): fog '3'"),
        ("severity", True, r"unknown \(1\): fog True"),
        ("severity", pd.NA, r"no severity, as in means over the severities \(1\): fog: .*the results of each severity"),
        ("severity", float("nan"), r"no severity, as in means over the severities \(1\): fog:"),
        ("severity", float("inf"), r"unknown \(1\): fog inf"),
        ("severity", 2, r"duplicated \(1\): fog 2: .*keep one row a cell"),
        ("AP", float("nan"), r"`AP` not finite \(1\): fog 3: mend the rows listed"),
        ("AP", float("inf"), r"`AP` not finite \(1\): fog 3"),
        ("AP", -0.1, r"`AP` negative \(1\): fog 3"),
        ("AP", -1.0, r"`AP` -1, COCO's mark for no ground truth of that size \(leave this metric out\) \(1\): fog 3"),
        ("AP", 20.0, r"`AP` above 1 \(percent where a fraction is expected\?\) \(1\): fog 3"),
        ("num_images", 49, r"`num_images` other than 50 \(1\): fog 3"),
        ("num_images", 0, r"`num_images` not a positive whole number \(1\): fog 3"),
        ("num_images", float("nan"), r"`num_images` not a positive whole number \(1\): fog 3"),
        ("num_images", 49.5, r"`num_images` not a positive whole number \(1\): fog 3"),
        ("num_images", float("inf"), r"`num_images` not a positive whole number \(1\): fog 3"),
    ],
)
@pytest.mark.parametrize("allow_partial", [False, True])
def test_each_fault_names_its_cell(column, value, message, allow_partial):
    frame = grid(num_images=50).astype({"severity": object, "num_images": float})
    frame.loc[(frame.corruption == "fog") & (frame.severity == 3), column] = value
    with pytest.raises(CellError, match=message):
        mean_performance_under_corruption(frame, allow_partial=allow_partial)


def test_minus_one_is_just_negative_for_an_error():
    frame = grid(column="error")
    frame.loc[5, "error"] = -1
    with pytest.raises(CellError, match=r"`error` negative \(1\): gaussian_noise 5"):
        mean_error(frame)


def test_one_error_lists_all_faults():
    frame = grid()
    frame.loc[3, "AP"] = np.nan
    frame = pd.concat([frame.iloc[:-1], frame.iloc[4:5]])
    with pytest.raises(CellError) as caught:
        checked_cells(frame, "AP")
    assert caught.value.problems == {
        "missing": (("jpeg_compression", 5),),
        "duplicated": (("gaussian_noise", 4),),
        "`AP` not finite": (("gaussian_noise", 3),),
    }


def test_a_fault_outside_the_set_counts_too():
    frame = grid(corruptions="all")
    frame.loc[frame.corruption == "spatter", "AP"] = 30
    with pytest.raises(CellError, match=r"above 1 .*\(5\): spatter 1 2 3 4 5"):
        mean_performance_under_corruption(frame)


def test_absent_column():
    with pytest.raises(ValueError, match=r"expected the columns corruption, severity, AP in .*, got x: add corruption"):
        checked_cells(pd.DataFrame({"x": [1]}), "AP")
    with pytest.raises(ValueError, match="got none: add"):
        checked_cells(pd.DataFrame(), "AP")


def test_what_is_no_table():
    for nothing in (None, [1], {"error": 1}, grid()["AP"]):
        with pytest.raises(ValueError, match=f"expected a pandas DataFrame as the model, got {type(nothing).__name__}"):
            mean_performance_under_corruption(nothing)


@pytest.mark.parametrize("column", ["AP", "severity", "corruption"])
def test_a_column_that_comes_twice(column):
    frame = grid()
    with pytest.raises(ValueError, match=f"expected each column of the table once, got {column} twice: drop one"):
        checked_cells(pd.concat([frame, frame[[column]]], axis=1), "AP")


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        (lambda values: values > 0, r"(np\.)?True_?"),
        (lambda values: (values > 0).astype("boolean"), r"(np\.)?True_?"),
        (lambda values: values + 1j, r"\(0\.4\+1j\)"),
        (lambda values: pd.Series(pd.Timestamp(2020, 1, 1), values.index), "Timestamp"),
        (lambda values: values.astype(str), "'0.4'"),
        (lambda values: values.astype(str).astype(object), "'0.4'"),
    ],
)
def test_types_that_are_no_numbers(change, shown):
    frame = grid()
    with pytest.raises(ValueError, match=f"expected numbers in the column `AP` of the table, got {shown}"):
        checked_cells(frame.assign(AP=change(frame["AP"])), "AP")


@pytest.mark.parametrize("kind", [object, "float32", "Float64", "float64[pyarrow]"])
def test_types_that_are_numbers(kind):
    pytest.importorskip("pyarrow")
    assert checked_cells(grid(0.5, 0.25).astype({"AP": kind}), "AP").values.tolist() == [0.5] * 75


def test_the_order_of_the_rows_does_not_matter():
    frame = grid(lambda cell: hash(cell) % 997 / 997)
    found = {
        (mean_performance_under_corruption(shuffled).value, mean_error(shuffled, column="AP").value)
        for shuffled in (frame.sample(frac=1, random_state=number) for number in range(30))
    }
    assert len(found) == 1


def test_text_in_a_column():
    frame = grid().astype({"AP": object})
    frame.loc[3, "AP"] = "20 %"
    with pytest.raises(ValueError, match=r"expected numbers in the column `AP` of the table, got .*20 %"):
        checked_cells(frame, "AP")


def test_no_corrupted_cell_at_all():
    frame = grid().iloc[:1]
    with pytest.raises(ValueError, match="expected corrupted cells in the table, got none"):
        checked_cells(frame, "AP", allow_partial=True)


def test_unknown_set():
    with pytest.raises(ValueError, match="expected corruptions to be one of benchmark, extra, all, got '15'"):
        corruptions_of("15")
    with pytest.raises(ValueError, match=r"expected corruptions to be one of benchmark, extra, all, got \['fog'\]"):
        corruptions_of(["fog"])


def test_cells_as_text():
    cells = [("fog", 2), ("haze", 7), ("snow", 1), ("fog", 1), ("fog", 2), CLEAN]
    assert describe(cells) == "clean, snow 1, fog 1 2, haze 7"
