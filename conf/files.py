"""Files and directories written whole, locks, SHA-256 of a file, full disks: one way for each.

    write_text(path, text)
    with replacing(path) as partial:  # for a writer that wants a path
        soundfile.write(partial, ...)
    with locked(directory / "lock", f"{directory}: is being run by"):
        ...

A kill, an error or a full disk at any moment leaves the old file or the new one, never half of one.
A partial file (`.NAME.partial`) outlives only a kill, and the next write of that file reuses it; of
two writers at once each has its own, and the last to end wins. A lock ends with its process. What a
power loss can do is said at `replacing`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import itertools
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.errors import DataError, UserError, WorkError

_HOLDER = re.compile(r"pid (?P<pid>\d+) since (?P<since>.*) on (?P<host>\S+)")
_TRIES, _TRY_AGAIN_S = 4, 0.05
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_SPACE = (os.strerror(errno.ENOSPC), "database or disk is full")
"""As safetensors, torch and SQLite say it, by errors of their own."""


# Whole files


@contextmanager
def replacing(path: Path, *, sync: bool = False) -> Iterator[Path]:
    """Give a path to write to, whose file takes the place of `path` when the block ends.

    With an error the old file stays. After a power loss within seconds of the end, some file
    systems show an empty or a shorter file unless `sync` waited for the disk: for checkpoints,
    whose predecessors are then deleted. All else can be written again.
    """
    with aside(path) as partial:
        yield partial
        if sync:
            with partial.open("rb") as file:
                os.fsync(file.fileno())
        os.replace(partial, path)


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """Give an empty file that no other writer has, for a writer that knows its name at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count():
        infix = f".{number}" if number else ""
        partial = path.with_name(f".{path.name}{infix}.partial")
        with _held(partial, tries=1) as descriptor:  # not locked, it is a killed writer's
            if descriptor is None:
                continue
            try:
                os.ftruncate(descriptor, 0)
                yield partial
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
            return


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file."""
    with replacing(path) as partial:
        partial.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a whole file in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """Write a whole file that ends with a line break."""
    write_text(path, json.dumps(value, indent=indent) + "\n")


def write_output(path: Path, text: str, flag: str) -> None:
    """Write a whole file where a command's `flag` says.

    Raises:
        UserError: The directory is a file.
        WorkError: It cannot be written.
    """
    with _output_errors(path.parent, flag):
        write_text(path, text)


@contextmanager
def output_held(path: Path, flag: str) -> Iterator[None]:
    """Hold a file that a command makes where its `flag` says, by a lock that goes at the end.

    Directories made for it go, too, if nothing comes of them.

    Raises:
        UserError: The directory is a file, or another process makes the same; the message names
            its pid and since when.
        WorkError: The directory cannot be written.
    """
    directory = path.parent
    lock = path.with_name(f".{path.name}.lock")
    refusal = f"{flag}: got {directory.absolute()}, which another process is writing:"
    made = _missing(directory)
    with contextlib.ExitStack() as stack:
        with _output_errors(directory, flag):
            directory.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(lock, refusal))
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
            _remove_empty(made)


@contextmanager
def _output_errors(directory: Path, flag: str) -> Iterator[None]:
    if directory.exists() and not directory.is_dir():
        raise UserError(f"{flag}: got the file {directory}, expected a directory")
    try:
        yield
    except OSError as error:
        raise WorkError(f"{flag} {directory}: {error.strerror or error}") from error


def link(source: Path, goal: Path) -> None:
    """Make a second name for a file, or a copy where the file system has no such thing."""
    goal.parent.mkdir(parents=True, exist_ok=True)
    goal.unlink(missing_ok=True)
    try:
        os.link(source, goal)
    except OSError:
        with replacing(goal) as partial:
            shutil.copyfile(source, partial)


@contextmanager
def replacing_directory(goal: Path, refusal: str | None = None) -> Iterator[Path]:
    """Give an empty directory that takes the goal's place when the block ends.

    With an error the old one stays, and what a killed writer left is cleared; if that was killed
    between the two renames, the old one comes back. A second writer is refused, or waits, as for
    `locked`. All lies beside the goal, since a rename is atomic only within one file system.
    """
    goal = goal.absolute()
    goal.parent.mkdir(parents=True, exist_ok=True)
    scratch = goal.with_name(f".{goal.name}.partial")
    new, old = scratch / "new", scratch / "old"
    lock = goal.with_name(f".{goal.name}.lock")
    with locked(lock, refusal):
        try:
            _restore(goal, old)
            shutil.rmtree(scratch, ignore_errors=True)
            new.mkdir(parents=True)
            yield new
            if goal.exists():
                os.rename(goal, old)
            os.rename(new, goal)
        finally:
            _restore(goal, old)
            shutil.rmtree(scratch, ignore_errors=True)
            lock.unlink(missing_ok=True)


def _restore(goal: Path, old: Path) -> None:
    if old.exists() and not goal.exists():
        os.rename(old, goal)


# Locks


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock, as far as it says so itself."""

    pid: int | None
    since: str
    host: str

    @property
    def is_here(self) -> bool:
        """Whether the process is one of this machine."""
        return self.pid is not None and self.host == socket.gethostname()

    def __str__(self) -> str:
        """As the lock file says it."""
        if self.pid is None:
            return "a process that does not say its pid"
        return f"pid {self.pid} since {self.since} on {self.host}"


_SILENT = Holder(None, "", "")


@contextmanager
def locked(path: Path, refusal: str | None = None) -> Iterator[None]:
    """Hold a lock file for this process; its text says who holds it and since when.

    Args:
        path: Made if it is not there; it stays.
        refusal: What to say, before who holds it, if another process does; None waits for it.

    Raises:
        UserError: Another process holds it.
        OSError: The file cannot be opened.
    """
    with _held(path, None if refusal is None else _TRIES) as descriptor:
        if descriptor is None:
            raise UserError(f"{refusal} {holder_of(path) or _SILENT}")
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        with contextlib.suppress(OSError):  # a full disk shows where it matters
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{Holder(os.getpid(), since, socket.gethostname())}\n".encode())
        yield


@contextmanager
def locked_directory(root: Path, refusal: str, result: str | None = None) -> Iterator[None]:
    """Hold a directory by its file `lock`; it is made, and if nothing comes of it, it goes.

    Args:
        root: The directory.
        refusal: What to say, before who holds it, if another process does.
        result: The file without which all that lies there in the end is of no use; None for
            whatever lies there, but for the lock.

    Raises:
        UserError: Another process holds it, or it cannot be written.
    """
    made = _missing(root)
    with contextlib.ExitStack() as stack:
        try:
            root.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(root / "lock", f"{root}: {refusal}"))
        except OSError as error:
            reason = error.strerror or error
            raise UserError(
                f"{root}: got a place that cannot be written ({reason}), expected one that can"
            ) from error
        try:
            yield
        finally:
            if result is None:
                with contextlib.suppress(FileNotFoundError):
                    if os.listdir(root) == ["lock"]:
                        (root / "lock").unlink()
            elif not (root / result).exists():
                shutil.rmtree(root, ignore_errors=True)
            _remove_empty(made)  # and outputs/, if it was not there


def _missing(directory: Path) -> list[Path]:
    """What would have to be made for a directory, itself first."""
    return [place for place in (directory, *directory.parents) if not place.exists()]


def _remove_empty(directories: list[Path]) -> None:
    for place in directories:
        with contextlib.suppress(OSError):
            place.rmdir()


def holder_of(path: Path) -> Holder | None:
    """Who holds a lock file; None if nobody does."""
    try:
        with path.open(encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _said(lock.read())
    except OSError:
        pass
    return None


def _said(text: str) -> Holder:
    found = _HOLDER.match(text)
    if found is None:  # it has not come to say so, or the disk is full
        return _SILENT
    return Holder(int(found["pid"]), found["since"], found["host"])


@contextmanager
def _held(path: Path, tries: int | None) -> Iterator[int | None]:
    """The descriptor of a locked file, made if it is not there; None if another has the lock."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            taken = _take(descriptor, tries)
            # Meanwhile its holder may have renamed or removed it, and then it guards nothing.
            if not taken or _is_at(descriptor, path):
                yield descriptor if taken else None
                return
        finally:
            os.close(descriptor)


def _take(descriptor: int, tries: int | None) -> bool:
    for left in reversed(range(tries or 1)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (fcntl.LOCK_NB if tries else 0))
            return True
        except BlockingIOError:
            if left:  # who only looks who holds it (`holder_of`) has it for a moment, too
                time.sleep(_TRY_AGAIN_S)
        except OSError:
            if tries != 1:  # a partial file, as some cluster file systems have no locks
                raise
            return True
    return False


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits.

    Raises:
        DataError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from None


def is_full_disk(error: BaseException | None) -> bool:
    """Whether an error, or one that it came of, is that a disk has no room."""
    while error is not None:
        full = isinstance(error, OSError) and error.errno in _FULL_DISK
        if full or any(text in str(error) for text in _NO_SPACE):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def full_disk_said(directory: Path, then: str) -> Iterator[None]:
    """Turn a full disk in the block into a WorkError of one line.

    It names the error's file, or else `directory`, and ends with `then`: what to do about it.
    """
    try:
        yield
    except OSError as error:
        if not is_full_disk(error):
            raise
        reason = f"{error.filename or directory}: the disk is full ({error.strerror or error})"
        raise WorkError(f"{reason}; {then}") from error
