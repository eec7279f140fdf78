"""`dtn-det corrupt` as users run it: kills, interrupts, workers, bad files."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from tree_files import coco_folder, imagenet_folder, load, picture, plain_folder, save, tree_hash

from dtn_det.cli.main import main
from dtn_det.corrupted_folders.manifest import read_manifest
from dtn_det.corruptions import Corruptor
from dtn_det.system.files import is_temporary

# Compiled ones, random ones, plain ones: 9 corruptions.
WHAT = ("--corruptions", "noise", "snow", "fog", "digital")
NUM_IMAGES, NUM_FILES = 12, 12 * 9 * 5
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def start(*arguments, **options) -> subprocess.Popen[str]:
    """Start the command in a session of its own, so that all its processes can be found."""
    command = [sys.executable, "-c", "from dtn_det.cli.main import main; raise SystemExit(main())", "corrupt"]
    return subprocess.Popen(
        [*command, *map(str, arguments)],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        **options,
    )


def files(root) -> list[str]:
    """Corrupted images that are there under their final names."""
    return [
        os.path.join(folder, name)
        for folder, _, names in os.walk(root)
        for name in names
        if name.endswith(".png") and not is_temporary(name)
    ]


def wait_until(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.01)


def is_over(session: int) -> bool:
    """Whether all processes of a session have ended."""
    try:
        os.killpg(session, 0)
    except ProcessLookupError:
        return True
    return False


def stop_at(count: int, number: signal.Signals, source, target) -> subprocess.Popen[str]:
    """Run the command until so many files are there, then send it a signal."""
    process = start(source, target, *WHAT, "--workers", 1 if number == signal.SIGINT else 2)
    try:
        wait_until(lambda: len(files(target)) >= count or process.poll() is not None)
        assert process.poll() is None, process.communicate()
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does
        else:
            process.send_signal(number)
        process.wait(60)
    finally:
        process.kill()
    wait_until(lambda: is_over(process.pid))  # its workers do not outlive it
    return process


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return plain_folder(tmp_path_factory.mktemp("source"), NUM_IMAGES)


@pytest.fixture(scope="module")
def finished(source, tmp_path_factory):
    """The tree of an uninterrupted run of one worker."""
    target = tmp_path_factory.mktemp("finished") / "tree"
    assert main(["corrupt", str(source), str(target), *WHAT, "--workers", "1"]) == 0
    assert len(files(target)) == NUM_FILES
    return target


def test_no_worker_writes_what_workers_do(source, finished, tmp_path, capfd):
    assert main(["corrupt", str(source), str(tmp_path / "tree"), *WHAT, "--workers", "0"]) == 0
    assert "with this process" in capfd.readouterr().out
    assert tree_hash(tmp_path / "tree") == tree_hash(finished)


def test_two_workers_write_what_one_does(source, finished, tmp_path, capfd):
    assert main(["corrupt", str(source), str(tmp_path / "tree"), *WHAT, "--workers", "2"]) == 0
    output, errors = capfd.readouterr()
    assert errors == ""
    assert f"{NUM_FILES} files to write, about " in output
    assert f"Corrupting: {NUM_FILES} of {NUM_FILES} files (100%), " in output
    assert tree_hash(tmp_path / "tree") == tree_hash(finished)


@pytest.mark.usefixtures("in_process")
def test_killed_it_continues_to_the_same_tree(source, finished, tmp_path):
    target = tmp_path / "tree"
    process = stop_at(random.Random(0).randrange(1, 400), signal.SIGKILL, source, target)
    assert process.returncode == -signal.SIGKILL
    for path in files(target):
        assert load(path).shape == (48, 64, 3)  # no half-written file
    assert main(["corrupt", str(source), str(target), *WHAT]) == 0
    assert tree_hash(target) == tree_hash(finished)


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("moment", [0, 1, 44, 301, NUM_FILES - 1])
def test_stopped_at_any_moment_it_continues_to_the_same_tree(source, finished, tmp_path, moment):
    """As after a kill: so many files are there, and one is half-written."""
    target = tmp_path / "tree"
    names = sorted(os.path.relpath(path, finished) for path in files(finished))
    random.Random(moment).shuffle(names)
    for name in names[:moment]:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(finished / name, target / name)
    if moment:
        shutil.copyfile(finished / "corruptions.json", target / "corruptions.json")
        half = (finished / names[moment]).read_bytes()[:100]
        ((target / names[0]).parent / ".0123456789abcdef.4711.tmp").write_bytes(half)
    assert main(["corrupt", str(source), str(target), *WHAT]) == 0
    assert tree_hash(target) == tree_hash(finished)


@pytest.mark.usefixtures("in_process")
def test_an_interrupt_is_one_message_and_the_next_call_continues(source, finished, tmp_path, capsys):
    target = tmp_path / "tree"
    process = stop_at(100, signal.SIGINT, source, target)
    output, errors = process.communicate()
    assert process.returncode == 130
    assert "Interrupted: what is written stays, and the same command continues." in output
    assert errors.strip() == "dtn-det: interrupted"
    assert not [name for _, _, names in os.walk(target) for name in names if is_temporary(name)]
    before = len(files(target))
    assert 100 <= before < NUM_FILES
    assert main(["corrupt", str(source), str(target), *WHAT]) == 0
    assert f"{NUM_FILES - before} files to write" in capsys.readouterr().out
    assert tree_hash(target) == tree_hash(finished)


def test_two_at_once_in_one_folder_are_refused(source, finished, capsys):
    from dtn_det.system.files import locked

    with locked(finished, "DST"):
        assert main(["corrupt", str(source), str(finished), *WHAT]) == 1
    assert "expected to be alone in" in capsys.readouterr().err


@pytest.mark.usefixtures("in_process")
def test_bad_files_are_listed_and_the_others_written(tmp_path, capsys):
    source = plain_folder(tmp_path / "a")
    Image.fromarray(picture(1)).convert("L").save(source / "grey.png")
    Image.fromarray(picture(1)).convert("CMYK").save(source / "press.jpg")
    (source / "text.jpg").write_text("no image")
    (source / "cut.png").write_bytes((source / "0.png").read_bytes()[:200])
    save(source / "tiny.png", picture(1, 20, 40))
    arguments = ["corrupt", str(source), str(tmp_path / "b"), "--corruptions", "contrast", "--workers", "2"]
    for _ in range(2):  # also when there is nothing left to do but them
        assert main([*arguments, "--severities", "1", "2"]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert "3 images could not be corrupted:" in lines[-4]
        assert [line.strip().partition(": ")[0] for line in lines[-3:]] == [
            str(source / name) for name in ("cut.png", "text.jpg", "tiny.png")
        ]
        assert "cannot be read" in lines[-3]
        assert "not an image" in lines[-2]
        assert "expected at least 32 x 32 pixels, got 40 x 20" in lines[-1]
    good = ["0.png", "2.png", "deep", "grey.png", "press.jpg"]
    assert sorted(path.name for path in (tmp_path / "b/contrast/2").iterdir()) == good
    assert load(tmp_path / "b/contrast/2/grey.png").shape == (48, 64, 3)


@pytest.mark.usefixtures("in_process")
def test_entries_that_are_no_files_are_listed_and_the_others_written(tmp_path, capsys):
    source = plain_folder(tmp_path / "a")
    for name in ("loop/x.jpg", "conf/a.jpg/b.jpg", "conf/a.png", f"{'n' * 246}.jpg", f"{'n' * 250}.png"):
        save(source / name, picture(1))
    (source / "loop/x.jpg").unlink()
    (source / "loop/x.jpg").symlink_to("x.jpg")
    os.mkfifo(source / "pipe.jpg")
    what = ["--corruptions", "contrast", "--severities", "1", "--format", "jpeg", "--workers", "2"]
    for _ in range(2):
        assert main(["corrupt", str(source), str(tmp_path / "b"), *what]) == 1
        output = capsys.readouterr().out
        assert "3 images could not be corrupted:" in output
        assert "conf/a.png: would become conf/a.jpg, which is a folder: rename it, or take --format source" in output
        assert "loop/x.jpg: cannot be read (OSError: [Errno 40] Too many levels of symbolic links" in output
        assert "pipe.jpg: expected a regular file, got a folder, a pipe or a device" in output
    cell = tmp_path / "b/contrast/1"
    written = sorted(str(path.relative_to(cell)) for path in cell.rglob("*") if path.is_file())
    assert written == ["0.jpg", "2.jpg", "conf/a.jpg/b.jpg", "deep/er/1.jpg", f"{'n' * 246}.jpg", f"{'n' * 250}.jpg"]


@pytest.mark.usefixtures("in_process")
def test_a_name_that_becomes_too_long_is_listed(tmp_path, capsys):
    source = imagenet_folder(tmp_path / "a")
    name = f"n01440760/{'n' * 251}"
    save(source / f"{name}.jpg", picture(1))
    what = ["--corruptions", "contrast", "--severities", "1", "--workers", "2"]
    assert main(["corrupt", str(source), str(tmp_path / "b"), *what]) == 1
    output = capsys.readouterr().out
    assert "1 images could not be corrupted:" in output
    assert f"{name}.jpg: cannot be written ([Errno 36] File name too long" in output
    assert len([*(tmp_path / "b/contrast/1").rglob("*.JPEG")]) == 3


@pytest.mark.usefixtures("in_process")
def test_an_image_that_annotations_name_in_vain_is_listed(tmp_path, capsys):
    source = coco_folder(tmp_path / "a")
    (source / "val2017/000000000001.png").unlink()
    assert main(["corrupt", str(source), str(tmp_path / "b"), "--corruptions", "contrast", "--severities", "1"]) == 1
    assert "000000000001.png: there is no such file" in capsys.readouterr().out


@pytest.mark.usefixtures("in_process")
def test_options_arrive(tmp_path, shared_dir):
    frost = shared_dir / "data/imagenet_c_samples/frost"
    source, target = imagenet_folder(tmp_path / "a", 2), tmp_path / "b"
    options = ["--seed", "4", "--no-jpeg", "--frost", str(frost), "--channel-order", "bgr", "--no-resize"]
    what = ["--corruptions", "frost", "--severities", "2", "--format", "png", "--limit", "1", "--yes"]
    assert main(["corrupt", str(source), str(target), "--workers", "1", *what, *options]) == 0
    (path,) = (target / "frost/2").rglob("*.png")
    key = path.relative_to(target / "frost/2").with_suffix(".JPEG").as_posix()
    corruptor = Corruptor("imagenet-c", 4, False, "bgr", str(frost))
    np.testing.assert_array_equal(load(path), corruptor(load(source / key), "frost", 2, key))
    assert read_manifest(target)["identity"] == corruptor.identity


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["SRC"], "expected DST, the folder to write to, got none"),
        (["SRC", "DST", "--corruptions", "rain"], "expected corruptions out of"),
        (["SRC", "DST", "--severities", "0"], "expected a severity from 1 to 5"),
        (["SRC", "DST", "--profile", "voc-c"], "expected a profile out of"),
        (["SRC", "DST", "--backend", "wand"], "expected backend to be"),
        (["SRC", "DST", "--channel-order", "grb"], "expected channel_order to be"),
        (["SRC", "DST", "--frost", "nowhere"], "nowhere"),
        (["SRC", "DST", "--workers", "-1"], "expected 0 workers or more, got -1"),
        (["SRC", "DST", "--limit", "0"], "expected a limit of at least 1 image"),
        (["SRC", "DST", "--layout", "imagenet"], "expected class folders such as n01440764"),
        (["SRC", "DST", "--annotations", "a.json"], "expected --annotations to name a file"),
        (["SRC", "SRC"], "expected DST to lie outside SRC"),
        (["SRC", "SRC/deep"], "expected DST to lie outside SRC"),
        (["nowhere", "DST"], "expected SRC to be a folder of images, got nowhere"),
        (["SRC", "--grid", "a.png"], "expected SRC to be one image for --grid, got the folder"),
        (["SRC/0.png", "DST", "--grid", "a.png"], "expected --grid without DST"),
        (["SRC/0.png", "--grid", "a.gif"], "expected a file name that ends in"),
        (["nowhere.png", "--grid", "a.png"], "expected SRC to be an image, got nowhere.png: there is no such file"),
        (["SRC/0.png", "DST"], "expected one corruption and one severity for one image, got 15 and 5"),
        (["SRC/0.png", "SRC/0.png", "--corruptions", "fog", "--severities", "1"], "expected the name of another file"),
        (["SRC/0.png", "--grid", "SRC/0.png", "--corruptions", "contrast"], "expected the name of another file"),
    ],
)
def test_what_does_not_fit_is_one_message(source, tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    before = tree_hash(source)
    places = {"SRC": str(source), "DST": str(tmp_path / "tree")}
    filled = [argument.replace("SRC", places["SRC"]).replace("DST", places["DST"]) for argument in arguments]
    assert main(["corrupt", *filled]) == 1
    first, *_ = capsys.readouterr().err.splitlines()
    assert first.startswith("dtn-det: error: ")
    assert message in first
    assert not files(tmp_path)
    assert tree_hash(source) == before


def test_a_target_that_leads_nowhere_is_one_message(source, tmp_path, capsys):
    (tmp_path / "loop").symlink_to("loop")
    assert main(["corrupt", str(source), str(tmp_path / "loop"), "--corruptions", "fog"]) == 1
    assert "loop, a link that leads nowhere: name another" in capsys.readouterr().err


def test_source_and_target_after_an_option_get_a_hint(source, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["corrupt", "--severities", "3", str(source), str(tmp_path)])
    assert "expected numbers from 1 to 5, got " in capsys.readouterr().err


@pytest.mark.usefixtures("in_process")
def test_what_was_taken_for_granted_is_said_first(tmp_path, capsys):
    what = ["--corruptions", "contrast", "--severities", "1", "--limit", "1", "--workers", "1"]
    assert main(["corrupt", str(plain_folder(tmp_path / "a")), str(tmp_path / "b"), *what]) == 0
    first, second, third, *_ = capsys.readouterr().out.splitlines()
    assert first == f"plain layout, images of their own size, files as the source; {Corruptor('coco-c').identity}"
    assert second.endswith("in one folder, pass --profile imagenet-c --resize --format jpeg")
    assert third.startswith("1 files to write")
    assert main(["corrupt", str(imagenet_folder(tmp_path / "c")), str(tmp_path / "d"), *what]) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    identity = Corruptor("imagenet-c").identity
    assert first == f"imagenet layout, images resized to 256 and cropped to 224, jpeg files; {identity}"
    assert second.startswith("1 files to write")


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(("side", "told"), [(32, False), (64, False), (100, True)])
def test_what_mce_makes_of_clean_images_is_told_where_it_differs(side, told, tmp_path, capsys):
    for name in ("ant", "bee"):
        save(tmp_path / "a" / name / "1.png", np.full((side, side, 3), 90, np.uint8))
    what = ["--corruptions", "contrast", "--severities", "1", "--workers", "1"]
    assert main(["corrupt", str(tmp_path / "a"), str(tmp_path / "b"), *what]) == 0
    assert ("pass --profile imagenet-c --resize --format jpeg" in capsys.readouterr().out) == told


def test_a_tree_that_does_not_fit_on_the_disk_is_refused(source, tmp_path, capsys, monkeypatch):
    usage = os.statvfs_result((4096, 4096, 10, 1, 1, 10**6, 10**6, 10**6, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: usage)
    assert main(["corrupt", str(source), str(tmp_path / "b"), "--corruptions", "contrast"]) == 1
    assert "expected room for about " in capsys.readouterr().err
    assert not files(tmp_path)


@pytest.mark.usefixtures("in_process")
def test_on_a_terminal_it_asks(source, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("builtins.input", lambda prompt: "n")
    arguments = ["corrupt", str(source), str(tmp_path / "b"), "--corruptions", "contrast", "--severities", "1"]
    assert main(arguments) == 0
    assert "Nothing was written." in capsys.readouterr().out
    assert not files(tmp_path)
    monkeypatch.setattr("builtins.input", lambda prompt: "")
    assert main(arguments) == 0
    assert "Corrupting" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "b")
    monkeypatch.setattr("builtins.input", None)
    assert main([*arguments, "--yes"]) == 0
    assert len(files(tmp_path)) == NUM_IMAGES


def test_one_image(source, tmp_path):
    image, target = source / "0.png", tmp_path / "new/fog.png"
    assert main(["corrupt", str(image), str(target), "--corruptions", "fog", "--severities", "3"]) == 0
    np.testing.assert_array_equal(load(target), Corruptor("coco-c")(load(image), "fog", 3, "0.png"))


def test_one_image_as_in_imagenet_c(source, tmp_path):
    image, target = source / "0.png", tmp_path / "fog.jpg"
    options = ["--profile", "imagenet-c", "--resize"]
    assert main(["corrupt", str(image), str(target), "--corruptions", "fog", "--severities", "3", *options]) == 0
    assert load(target).shape == (224, 224, 3)


def test_a_grid_is_drawn(source, tmp_path):
    target = tmp_path / "grid.png"
    assert main(["corrupt", str(source / "0.png"), "--grid", str(target), "--corruptions", "contrast"]) == 0
    assert load(target).shape[0] > 2 * 48


@pytest.mark.parametrize(
    ("profile", "told"),
    [
        ("coco-c", None),
        ("cifar-c", "the strengths of cifar-c were chosen for images of 32 x 32 pixels, and these have 64 x 48: "),
        ("imagenet-c", "the strengths of imagenet-c were chosen for images of 224 x 224 pixels, and these have 64"),
    ],
)
def test_images_of_another_size_than_the_profile_was_made_for_are_told(
    source, tmp_path, monkeypatch, capsys, profile, told
):
    monkeypatch.setattr("dtn_det.cli.corrupt._asker", lambda console, ask: lambda estimate: False)
    arguments = ["--profile", profile, "--corruptions", "contrast", "--severities", "1"]
    assert main(["corrupt", str(source), str(tmp_path / "b"), *arguments]) == 0
    out = capsys.readouterr().out
    assert ("were chosen for" in out) == (told is not None)
    assert told is None or told in out
