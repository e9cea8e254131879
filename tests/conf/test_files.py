"""Whole files, locks, SHA-256 and full disks, also where a process is killed half-way."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conf import files
from conf.errors import DataError, UserError, WorkError
from conf.files import Holder

pytestmark = pytest.mark.quick

ROOT = Path(__file__).parents[2]
PREAMBLE = "import os, signal, sys, time\nfrom pathlib import Path\nfrom conf import files\n"


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@contextmanager
def process(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Another process, once it has printed a line."""
    command = [sys.executable, "-c", PREAMBLE + code, *map(str, arguments)]
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    with running:
        assert running.stdout.readline()
        try:
            yield running
        finally:
            running.kill()


# Whole files


@pytest.mark.parametrize(
    ("write", "content"),
    [
        (lambda path: files.write_bytes(path, b"\r\n\xff"), b"\r\n\xff"),
        (lambda path: files.write_text(path, "通话\n"), "通话\n".encode()),
        (lambda path: files.write_json(path, {"a": [1]}, indent=None), b'{"a": [1]}\n'),
        (lambda path: files.write_output(path, "x", "--output_dir"), b"x"),
    ],
)
def test_a_file_is_written_with_its_directory_and_nothing_else(
    tmp_path: Path, write: Callable[[Path], None], content: bytes
) -> None:
    path = tmp_path / "new" / "file"
    for _ in range(2):  # also in place of another
        write(path)
        assert path.read_bytes() == content
        assert names(path.parent) == ["file"]


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with files.replacing(path, sync=True) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), ValueError(), KeyboardInterrupt()]
)
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: BaseException
) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail() -> None:
        with files.replacing(path) as partial:
            partial.write_text("half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_what_a_killed_writer_left_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    code = """
with files.replacing(Path(sys.argv[1])) as partial:
    partial.write_text("a longer half of the new one")
    print("wrote", flush=True)
    time.sleep(60)
"""
    with process(code, path) as writer:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        assert path.read_text() == "old"
        assert names(tmp_path) == [".file.partial", "file"]
        with files.replacing(path) as partial:
            assert partial.read_bytes() == b""
            partial.write_text("new")
    assert path.read_text() == "new"
    assert names(tmp_path) == ["file"]


def test_of_two_writers_at_once_the_last_to_end_wins_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with files.replacing(path) as first:
        first.write_text("first")
        with files.replacing(path) as second:
            assert second != first
            second.write_text("second")
        assert path.read_text() == "second"
        files.write_text(path, "third")
    assert path.read_text() == "first"
    assert names(tmp_path) == ["file"]


def test_without_locks_files_are_written_as_if_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", no_locks)
    files.write_text(tmp_path / "file", "x")
    assert names(tmp_path) == ["file"]
    with pytest.raises(OSError, match="not implemented"), files.locked(tmp_path / "lock"):
        pass


def test_the_name_may_come_last(tmp_path: Path) -> None:
    with files.aside(tmp_path / "point") as partial:
        partial.write_text("x")
        partial.rename(tmp_path / "point-1")
    assert names(tmp_path) == ["point-1"]


def test_output_that_cannot_be_written_names_the_flag(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--output_dir: got the file .*file, expected a directory"):
        files.write_output(tmp_path / "file" / "a.html", "", "--output_dir")
    with pytest.raises(WorkError, match="--output_dir .*file/below: Not a directory"):
        files.write_output(tmp_path / "file" / "below" / "a.html", "", "--output_dir")
    with (
        pytest.raises(WorkError, match="--output_dir .*file/below: Not a directory"),
        files.output_held(tmp_path / "file" / "below" / "a.html", "--output_dir"),
    ):
        pass


def test_a_link_is_the_same_file_and_else_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, goal = tmp_path / "source", tmp_path / "new" / "goal"
    source.write_text("x")
    for _ in range(2):
        files.link(source, goal)
        assert goal.samefile(source)

    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    files.link(source, goal)
    assert not goal.samefile(source)
    assert goal.read_text() == "x"
    assert names(goal.parent) == ["goal"]


# Whole directories


def test_a_directory_is_replaced_whole(tmp_path: Path) -> None:
    goal = tmp_path / "below" / "goal"
    for content in ("first", "second"):
        with files.replacing_directory(goal) as new:
            (new / content).write_text("")
            assert goal.exists() == (content == "second")
        assert names(goal) == [content]
        assert names(goal.parent) == ["goal"]


def test_a_directory_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    goal = tmp_path / "goal"
    goal.mkdir()
    (goal / "old").write_text("")

    def fail() -> None:
        with files.replacing_directory(goal) as new:
            (new / "half").write_text("")
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        fail()
    assert names(tmp_path) == ["goal"]
    assert names(goal) == ["old"]


def test_a_directory_whose_writer_was_killed_comes_back(tmp_path: Path) -> None:
    """Killed between its two renames, when neither the old nor the new one is in its place."""
    code = """
rename = os.rename
def last(*paths):
    rename(*paths)
    print("moved the old one away", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
os.rename = last
with files.replacing_directory(Path(sys.argv[1])) as new:
    (new / "new").write_text("")
"""
    goal = tmp_path / "goal"
    goal.mkdir()
    (goal / "old").write_text("")
    with process(code, goal) as writer:
        writer.wait()
    assert names(tmp_path) == [".goal.lock", ".goal.partial"]
    with files.replacing_directory(goal, "refused by") as new:
        assert names(goal) == ["old"]
        assert names(new) == []
    assert names(tmp_path) == ["goal"]


def test_a_second_writer_of_a_directory_is_refused(tmp_path: Path) -> None:
    goal = tmp_path / "goal"

    def second() -> None:
        with files.replacing_directory(goal, "goal: is being written by"):
            pass

    with files.replacing_directory(goal) as new:
        with pytest.raises(UserError, match=rf"^goal: is being written by pid {os.getpid()} since"):
            second()
        assert new.exists()
    assert names(tmp_path) == ["goal"]


# Locks

HOLDS = """
with files.locked(Path(sys.argv[1])):
    print("holds it", flush=True)
    time.sleep(60)
"""


def test_a_second_holder_is_refused_with_pid_and_since(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert files.holder_of(lock) is None
    with process(HOLDS, lock) as first:
        holder = files.holder_of(lock)
        assert holder is not None
        assert (holder.pid, holder.host) == (first.pid, socket.gethostname())
        assert holder.is_here
        said = rf"^x: is run by pid {first.pid} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d on \S+$"
        with pytest.raises(UserError, match=said), files.locked(lock, "x: is run by"):
            pass


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with process(HOLDS, lock) as first:
        first.kill()
        first.wait()
        assert files.holder_of(lock) is None
        with files.locked(lock, "x: is run by"):
            holder = files.holder_of(lock)
            assert holder is not None
            assert holder.pid == os.getpid()
    assert files.holder_of(lock) is None


def test_who_does_not_refuse_waits(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    code = """
with files.locked(Path(sys.argv[1])):
    print("holds it", flush=True)
    time.sleep(0.3)
    Path(sys.argv[2]).touch()
"""
    with process(code, lock, tmp_path / "ended"), files.locked(lock):
        assert (tmp_path / "ended").exists()


def test_a_lock_that_was_removed_meanwhile_guards_nothing(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with files.locked(lock):
        lock.unlink()
        with (
            files.locked(lock, "x: is run by"),
            pytest.raises(UserError),
            files.locked(lock, "x: is run by"),
        ):
            pass


def test_a_holder_that_says_nothing_is_still_one(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with files.locked(lock):
        lock.write_text("")
        assert files.holder_of(lock) == Holder(None, "", "")
        with (
            pytest.raises(UserError, match="by a process that does not say its pid$"),
            files.locked(lock, "x: is run by"),
        ):
            pass
    assert not Holder(None, "", "").is_here
    assert not Holder(os.getpid(), "then", "elsewhere").is_here


def test_a_directory_that_nothing_came_of_goes_with_its_lock(tmp_path: Path) -> None:
    root = tmp_path / "outputs" / "sweep"
    with files.locked_directory(root, "is run by", "result"):
        assert names(root) == ["lock"]
        with (
            pytest.raises(UserError, match=rf"sweep: is run by pid {os.getpid()} since"),
            files.locked_directory(root, "is run by", "result"),
        ):
            pass
        assert root.exists()
    assert names(tmp_path) == []
    with files.locked_directory(root, "is run by", "result"):
        (root / "result").touch()
    assert names(root) == ["lock", "result"]


def test_a_directory_in_which_anything_lies_stays(tmp_path: Path) -> None:
    root = tmp_path / "outputs" / "run"
    with files.locked_directory(root, "is run by"):
        pass
    assert names(tmp_path) == []
    root.mkdir(parents=True)
    with files.locked_directory(root, "is run by"):
        pass
    assert names(root) == []
    with files.locked_directory(root, "is run by"):
        (root / "result").touch()
    assert names(root) == ["lock", "result"]


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match=r"got a place that cannot be written \(Not a directory\)"),
        files.locked_directory(tmp_path / "file" / "sweep", "is run by", "result"),
    ):
        pass


# Contents and full disks


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"weights")
    assert files.file_sha256(tmp_path / "x") == hashlib.sha256(b"weights").hexdigest()
    with pytest.raises(DataError, match="gone: no such file"):
        files.file_sha256(tmp_path / "gone")


def _caused(error: Exception) -> Exception:
    try:
        raise RuntimeError("unexpected pos 64 vs 0") from error
    except RuntimeError as raised:
        return raised


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (OSError(errno.EFBIG, "File too large"), True),
        (RuntimeError("I/O error: No space left on device (os error 28)"), True),
        (_caused(OSError(errno.ENOSPC, "")), True),
        (_caused(RuntimeError("(sqlite3.OperationalError) database or disk is full")), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (ValueError("x"), False),
    ],
)
def test_a_full_disk_is_known_by_the_error_or_its_cause(error: Exception, full: bool) -> None:
    assert files.is_full_disk(error) == full


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    def fail(*error: object) -> None:
        with files.full_disk_said(tmp_path, "the same command goes on"):
            raise OSError(*error)

    said = "the disk is full (No space left on device); the same command goes on"
    with pytest.raises(WorkError) as caught:
        fail(errno.ENOSPC, "No space left on device", "a.json")
    assert str(caught.value) == f"a.json: {said}"
    with pytest.raises(WorkError) as caught:
        fail(errno.ENOSPC, "No space left on device")
    assert str(caught.value) == f"{tmp_path}: {said}"
    with pytest.raises(PermissionError):
        fail(errno.EACCES, "Permission denied")


def test_json_is_read_back(tmp_path: Path) -> None:
    value = {"名": 1.5, "b": None}
    files.write_json(tmp_path / "x.json", value)
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text) == value
    assert text.endswith("}\n")
