"""What is read from files of the Arena's format, and what is said of others."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtn_det.errors import InputError
from dtn_det.sequence import VOCABULARY, read_listops

HEADER = "Source\tTarget\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "basic_train.tsv"
    path.write_bytes(text.encode("latin-1"))
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_files_of_the_arena(tmp_path: Path, end: str) -> None:
    text = f"Source\tTarget{end}( ( ( ( [MAX 4 ) 3 ) ( ( ( [MIN 2 ) 9 ) ] ) ) ] )\t4{end}( ( ( [SM 9 ) 8 ) ] )\t7{end}"
    first, second = read_listops(write(tmp_path, text), max_tokens=8)
    assert [VOCABULARY[number] for number in first[0]] == ["[MAX", "4", "3", "[MIN", "2", "9", "]", "]"]
    assert first[1] == 4
    assert [VOCABULARY[number] for number in second[0]] == ["[SM", "9", "8", "]"]
    assert second[1] == 7
    assert len(VOCABULARY) == 16
    assert VOCABULARY[0] == ""


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_editors_leave(tmp_path: Path, end: str) -> None:
    path = tmp_path / "basic_val.tsv"
    path.write_bytes(f"\ufeffSource\tTarget{end}[MAX 1 2 ]\t2{end}[MIN 1 2 ]\t1{end}{end}{end}".encode())
    assert [label for _, label in read_listops(path)] == [2, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"expected the header Source TAB Target in .*basic_train.tsv, line 1, got ''"),
        ("( [MAX 1 ) ] )\t1\n", r"expected the header Source TAB Target in .*, line 1, got '\( \[MAX 1 \) \] \) 1'"),
        (HEADER + "[MAX 1 2 ]\t2\n[MAX 1 12 ]\t2\n", r"expected the tokens .*, got '12' in .*train.tsv, line 3: mend"),
        (HEADER + "[MAX 1 \xff ]\t2\n", r"got '\\\\xff' in .*, line 2"),
        (HEADER + "[MAX 1 2 ] 2\n", r"expected a sequence, a tab and a label, got 1 columns in .*, line 2"),
        (HEADER + "[MAX 1 2 ]\t2\t3\n", r"got 3 columns in .*, line 2"),
        (HEADER + "\n[MAX 1 2 ]\t2\n", r"expected a row in .*basic_train.tsv, line 2, got an empty line: remove it"),
        (HEADER + "[MAX 1 2 ]\t2\r\n\r\n\r\n[MAX 1 2 ]\t2\n", r"expected a row in .*, line 3, got an empty line"),
        (HEADER + "[MAX 1 2 ]\t10\n", r"expected a label from 0 to 9, got '10' in .*, line 2: mend or remove"),
        (HEADER + "[MAX 1 2 ]\t]\n", r"expected a label from 0 to 9, got '\]'"),
        (HEADER + "( )\t1\n", r"expected a sequence, got none in .*, line 2"),
        (
            HEADER + "[MAX 1 2 3 ]\t2\n",
            r"expected at most 4 tokens, which is what the model takes, got 5 in .*, line 2: raise max_tokens",
        ),
    ],
)
def test_what_is_wrong_with_a_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(read_listops(write(tmp_path, text), max_tokens=4))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected a ListOps file at .*nowhere.tsv, got nothing there: write"):
        list(read_listops(tmp_path / "nowhere.tsv"))
