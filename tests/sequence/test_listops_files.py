"""The files: the same in any run, complete or absent, and refused where something else lies."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import pytest
from rich.console import Console

from dtn_det.cli.main import main
from dtn_det.sequence import ListOps, listops, read_listops, write_listops
from dtn_det.sequence.listops import FILES, MANIFEST

SMALL = ListOps(train=900, val=40, test=60, min_length=10, max_length=40, seed=3)
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("listops")
    assert write_listops(folder, SMALL, 2, QUIET)
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES.values()}


def test_files_are_the_arenas(written: Path) -> None:
    assert sorted(path.name for path in written.iterdir()) == sorted([*FILES.values(), MANIFEST])
    sources: list[str] = []
    for split, name in FILES.items():
        with (written / name).open(newline="") as file:
            header, *rows = csv.reader(file, delimiter="\t")
        assert header == ["Source", "Target"]
        assert len(rows) == SMALL.splits[split]
        sources += [source for source, _ in rows]
        read = list(read_listops(written / name))
        assert [label for _, label in read] == [int(label) for _, label in rows]
        assert all(10 < len(tokens) < 40 for tokens, _ in read)
    assert len(set(sources)) == SMALL.total
    # As Python's csv ends lines, which the Arena writes with.
    assert (written / FILES["val"]).read_bytes().startswith(b"Source\tTarget\r\n( ")


def test_number_of_processes_does_not_matter(written: Path, tmp_path: Path) -> None:
    write_listops(tmp_path, SMALL, 1, QUIET)
    assert digests(tmp_path) == digests(written)


def test_seed_matters(written: Path) -> None:
    lines = (written / FILES["train"]).read_text().splitlines()
    assert listops.draw_part(ListOps(min_length=10, max_length=40, seed=4), 0)[0].strip() not in lines


def test_goes_on_where_it_was_stopped(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(listops, "_join", stop)
        with pytest.raises(KeyboardInterrupt):
            write_listops(tmp_path, SMALL, 1, QUIET)
    assert not any((tmp_path / name).exists() for name in FILES.values())
    (first,) = tmp_path.glob(".listops-parts-*/000000.tsv")
    before = first.stat().st_mtime_ns

    seen: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(listops.shutil, "rmtree", lambda parts: seen.append((parts / first.name).stat().st_mtime_ns))
        assert write_listops(tmp_path, SMALL, 1, QUIET)
    assert seen == [before]
    assert digests(tmp_path) == digests(written)
    assert not write_listops(tmp_path, SMALL, 1, QUIET)


def test_folder_of_something_else(written: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got a data set of another seed: name another folder"):
        write_listops(written, ListOps(train=900, val=40, test=60, min_length=10, max_length=40, seed=4), 1, QUIET)
    (tmp_path / "listops.json").write_text("{")
    with pytest.raises(ValueError, match=r"expected the settings of a data set in .*listops\.json, got a damaged file"):
        write_listops(tmp_path, SMALL, 1, QUIET)
    (tmp_path / "listops.json").unlink()
    (tmp_path / FILES["val"]).touch()
    with pytest.raises(ValueError, match=r"with basic_val.tsv of another origin: name another with --out"):
        write_listops(tmp_path, SMALL, 1, QUIET)


def test_more_than_there_are(tmp_path: Path) -> None:
    # Four operators with two digits each.
    few = ListOps(train=500, val=1, test=1, min_length=3, max_length=5)
    with pytest.raises(ValueError, match="expected settings with 502 different sequences, found 400: ask for fewer"):
        write_listops(tmp_path, few, 1, QUIET)
    # Nothing is left that would keep the corrected settings out.
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith((".listops", "listops"))] == []


def test_what_others_have_in_the_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "thesis.txt").write_text("precious")
    assert write_listops(tmp_path, SMALL, 1, QUIET)
    assert (tmp_path / "parts" / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": 0}, "expected train to be at least 1, got 0"),
        ({"max_depth": 1}, "expected max_depth to be at least 2, got 1"),
        ({"seed": -1}, "expected seed to be at least 0, got -1"),
        ({"max_length": 501}, "expected lengths between min_length and max_length, both excluded, got 500 and 501"),
    ],
)
def test_settings_out_of_range(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ListOps(**options)


def test_no_worker(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected at least 1 worker, got 0"):
        write_listops(tmp_path, SMALL, 0, QUIET)


def test_command_line(written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--train", "900", "--val", "40", "--test", "60", "--min-length", "10", "--max-length", "40"]
    command = ["listops", "--out", str(tmp_path), *options, "--seed", "3", "--workers", "1"]
    assert main(command) == 0
    assert "basic_train.tsv, basic_val.tsv, basic_test.tsv written to" in capsys.readouterr().out
    assert digests(tmp_path) == digests(written)
    assert main(command) == 0
    assert "are complete in" in capsys.readouterr().out
    assert main([*command, "--max-args", "3"]) == 1
    assert "a data set of another max_args" in capsys.readouterr().err


def test_a_file_in_the_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere" / "else")
    assert main(["listops", "--out", str(tmp_path / "file")]) == 1
    assert "expected --out to be a folder, got the file" in capsys.readouterr().err
    for name, reason in {"file/inner": "Not a directory", "link": "File exists"}.items():
        assert main(["listops", "--out", str(tmp_path / name)]) == 1
        error = capsys.readouterr().err
        assert f"error: expected to read or write {tmp_path / name}, got: {reason}: name another\n" in error
        assert "Errno" not in error


def test_a_folder_that_must_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path, *_: object) -> None:  # the superuser is refused nothing
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(listops, "write_json", refuse)
    assert main(["listops", "--out", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert f"expected to read or write {tmp_path / MANIFEST}, got: Permission denied: see who may read" in error
    assert "Errno" not in error


def test_arenas_own_settings_give_long_sequences() -> None:
    defaults = ListOps()
    assert (defaults.train, defaults.val, defaults.test) == (96000, 2000, 2000)
    source = next(iter(listops.draw_part(defaults, 0))).split("\t")[0]
    assert 500 < sum(token not in "()" for token in source.split()) < 2000
