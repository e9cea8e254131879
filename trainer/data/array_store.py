"""Arrays on disk, computed once and shared by every process: features, outputs of frozen parts.

One LMDB database per directory: memory-mapped, so what one process has read the others find in the
page cache, and safe while many processes read and fill it. What is cached can always be computed
again, so nothing here fails a run: a store that cannot be opened, is full or is damaged says so
once in the log, and the run goes on without it.

- Keys are digests of all that decides a value (:func:`key_of`); a key's value never changes.
- Writes are collected and committed together, at the latest with the first one after
  ``_COMMIT_S`` seconds. Each commit is synced (LMDB's ``metasync=False``: one ``fdatasync``), so a
  killed process leaves the last commit, and a crashed machine loses the last commits at most.
- Each value carries a checksum over its key and content; one that does not match is not used, and
  is replaced by the next ``put``.
- Each value carries the day of its last use. When the store is full, values unused since
  yesterday make room, oldest first; if there are none, nothing more is stored, since a corpus
  larger than the store would otherwise push itself out before each next epoch.

The directory must lie on a local disk; on a network's nothing is stored, since memory maps and
their locks are not safe there.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import shutil
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from multiprocessing import util as multiprocessing_util
from pathlib import Path
from typing import Any, TypeVar

import lmdb
import numpy
import torch

from conf.files import locked
from conf.load import Config

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")

_LAYOUT = 1
"""Of keys and values; another one lies in a directory of its own."""
_COMMIT_BYTES = 8 * 2**20
"""Some 80 utterances: larger commits take more CPU time, smaller ones wait more for the disk."""
_COMMIT_S = 5.0
_MAX_READERS = 2048
"""Processes and threads that read at once, dead ones included until the next opening."""
_FILL = 0.85
"""Share of the size that values may take; pages between them and copies on write take the rest."""
_EVICTED_SHARE = 0.1
"""Share of the size that is freed at once."""
_DAY_S = 86400
_MAX_HELD_BYTES = 64 * 2**20
"""A larger file is read twice rather than held in memory."""
_RACY_NS = 2 * 10**9
"""A file changed so recently may change again within the file system's resolution of time."""
_NETWORKS = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "fuse.sshfs")
_VALUES, _USED, _TOTALS = b"values", b"used", b"totals"
_BYTES = b"bytes"
_HEADER = struct.Struct("<IBB")
_DAY = struct.Struct("<I")
_TOTAL = struct.Struct("<Q")
_DTYPES = (
    torch.uint8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
)


def open_store(config: Config) -> ArrayStore | None:
    """The store of a configuration; None if ``finetune_conf.feature_cache_mb`` is 0.

    ``finetune_conf.feature_cache_dir`` null is ``telesweep/features`` in the user's cache
    directory: ``$XDG_CACHE_HOME``, or ``~/.cache``.
    """
    max_bytes = config["finetune_conf.feature_cache_mb"] * 2**20
    directory = config["finetune_conf.feature_cache_dir"]
    if max_bytes == 0:
        return None
    return ArrayStore(Path(directory) if directory else default_directory(), max_bytes)


def default_directory() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME", "")
    # The standard asks to ignore a relative path.
    base = Path(cache) if os.path.isabs(cache) else Path.home() / ".cache"
    return base / "telesweep" / "features"


def key_of(*parts: str | bytes) -> bytes:
    """A key from all that decides a value; ``("ab", "c")`` and ``("a", "bc")`` differ."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.digest()


class ArrayStore:
    """Tensors by key in a directory that any number of processes share.

    Nothing is opened before the first ``get`` or ``put``, and each process opens for itself, also
    after a fork.

    Args:
        directory: Made if it is not there, readable by the user alone.
        max_bytes: What it may take on disk.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self.directory = directory
        self.max_bytes = max_bytes
        self._pending: dict[bytes, bytes] = {}
        self._pending_bytes = 0
        self._pending_since_s = 0.0
        self._touched: set[bytes] = set()
        self._damaged: set[bytes] = set()
        self._readable = True
        self._writable = True
        self._full_on = -1
        self._said: set[str] = set()

    def __reduce__(self) -> tuple[Any, ...]:
        return ArrayStore, (self.directory, self.max_bytes)

    @property
    def writable(self) -> bool:
        """Whether it still takes more: False while it is full, or cannot be written."""
        return self._writable and self._full_on != _today()

    def __contains__(self, key: bytes) -> bool:
        return self._read(key, lambda value: True) is not None

    def get(self, key: bytes) -> torch.Tensor | None:
        """A copy of what was put under a key, in this process or another; None if nothing was."""
        return self._read(key, lambda value: _decode(key, value))

    def put(self, key: bytes, tensor: torch.Tensor) -> None:
        """Stores a copy of a tensor on the CPU; it is on disk after the next commit."""
        if not self.writable:
            return
        with _LOCK:
            if not self._pending and not self._touched:
                self._pending_since_s = time.monotonic()
            if key in self._pending:
                return
            value = _encode(key, tensor)
            self._pending[key] = value
            self._pending_bytes += len(value)
            _to_be_flushed(self)
            self._commit_if_due()

    def flush(self) -> None:
        """Commits what was put."""
        with _LOCK:
            pending, touched = self._pending, self._touched
            self._pending, self._touched, self._pending_bytes = {}, set(), 0
            _UNSAVED.discard(self)
            if not self._writable or not (pending or touched):
                return
            if (database := self._open()) is None:
                return
            try:
                self._commit(database, pending, touched)
            except lmdb.MapFullError:
                self._be_full()
            except lmdb.Error as error:
                self._stop_writing(f"cannot be written ({error})")

    def content_sha256(self, path: Path) -> str:
        """SHA-256 of a file's bytes, in hexadecimal digits; an unchanged file is read only once.

        Raises:
            OSError: The file cannot be read.
        """
        return self.content(path)[0].hex()

    def content(self, path: Path) -> tuple[bytes, io.BytesIO | None]:
        """SHA-256 of a file's bytes, and those bytes if they were read for it and are not many.

        Raises:
            OSError: The file cannot be read.
        """
        key = _file_key(path, os.stat(path))
        digest = self._read(key, lambda value: _decode(key, value))
        if digest is not None:
            return bytes(digest.numpy()), None
        with open(path, "rb") as file:
            before = os.fstat(file.fileno())
            if before.st_size <= _MAX_HELD_BYTES:
                data = file.read()
                found = hashlib.sha256(data).digest()
            else:
                data, found = None, hashlib.file_digest(file, "sha256").digest()
            after = os.fstat(file.fileno())
        settled = time.time_ns() - max(after.st_mtime_ns, after.st_ctime_ns) > _RACY_NS
        if settled and _file_key(path, before) == _file_key(path, after):
            self.put(_file_key(path, after), torch.frombuffer(bytearray(found), dtype=torch.uint8))
        return found, None if data is None else io.BytesIO(data)

    def _read(self, key: bytes, decode: Callable[[memoryview], _T | None]) -> _T | None:
        with _LOCK:
            if self._pending:
                self._commit_if_due()
            if (value := self._pending.get(key)) is not None:
                return decode(memoryview(value))
            if not self._readable or (database := self._open()) is None:
                return None
            try:
                with database.begin() as transaction:
                    stored = transaction.get(key, db=database.values)
                    if stored is None:
                        return None
                    found = decode(stored)
                    del stored
                    used = transaction.get(key, db=database.used)
                    stale = used is None or _DAY.unpack(used)[0] != _today()
                    del used
            except lmdb.Error as error:
                self._readable = False
                self._stop_writing(f"cannot be read ({error})")
                return None
            if found is None:
                _LOG.warning("%s: a damaged value is computed again", self.directory)
                self._damaged.add(key)
            elif stale:
                self._touch(key)
            return found

    def _touch(self, key: bytes) -> None:
        if not self._writable:
            return
        if not self._pending and not self._touched:
            self._pending_since_s = time.monotonic()
        self._touched.add(key)
        _to_be_flushed(self)
        self._commit_if_due()

    def _commit_if_due(self) -> None:
        waited_s = time.monotonic() - self._pending_since_s
        if self._pending_bytes >= min(_COMMIT_BYTES, self._limit // 4) or waited_s > _COMMIT_S:
            self.flush()

    @property
    def _limit(self) -> int:
        return int(self.max_bytes * _FILL)

    def _commit(
        self, database: _Database, pending: dict[bytes, bytes], touched: set[bytes]
    ) -> None:
        today = _DAY.pack(_today())
        needed = sum(map(_size_on_disk, pending.values()))
        with database.begin() as transaction:
            too_much = database.total(transaction) + needed > self._limit
        if too_much:
            database.evict(needed + int(self.max_bytes * _EVICTED_SHARE))
        with database.begin(write=True) as transaction:
            total = database.total(transaction)
            for key, value in pending.items():
                size = _size_on_disk(value)
                if total + size > self._limit:
                    self._be_full()
                    break
                if transaction.put(key, value, overwrite=False, db=database.values):
                    total += size
                elif key in self._damaged:
                    # Of the same size: the key decides its value's shape.
                    transaction.put(key, value, db=database.values)
                    self._damaged.discard(key)
                transaction.put(key, today, db=database.used)
            for key in touched:
                if transaction.get(key, db=database.used) is not None:
                    transaction.put(key, today, db=database.used)
            transaction.put(_BYTES, _TOTAL.pack(total), db=database.totals)

    def _open(self) -> _Database | None:
        try:
            return _database(self.directory, self.max_bytes)
        except (OSError, lmdb.Error) as error:
            self._readable = False
            self._stop_writing(f"cannot be opened ({error})")
            return None

    def _stop_writing(self, what: str) -> None:
        self._writable = False
        self._say(what)

    def _be_full(self) -> None:
        """Stores nothing more today; tomorrow something may make room."""
        self._full_on = _today()
        self._say("is full")

    def _say(self, what: str) -> None:
        if what not in self._said:
            self._said.add(what)
            _LOG.warning(
                "%s %s; going on without storing more there (finetune_conf.feature_cache_dir, "
                "finetune_conf.feature_cache_mb %d)",
                self.directory,
                what,
                self.max_bytes // 2**20,
            )


class _Database:
    """An LMDB environment as one process has it open."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self.pid = os.getpid()
        self._environment = lmdb.open(
            str(directory),
            map_size=max(max_bytes, 2**20),
            mode=0o600,
            metasync=False,
            max_readers=_MAX_READERS,
            max_dbs=3,
        )
        try:
            self._environment.reader_check()
            self.check_size(directory / "data.mdb")
            self.values, self.used, self.totals = (
                self._environment.open_db(name) for name in (_VALUES, _USED, _TOTALS)
            )
        except BaseException:
            self._environment.close()
            raise

    def close(self) -> None:
        self._environment.close()

    def check_size(self, path: Path) -> None:
        """Refuses a file that was cut off: reading behind its end would kill the process."""
        pages = self._environment.info()["last_pgno"] + 1
        if path.stat().st_size < pages * self._environment.stat()["psize"]:
            raise lmdb.CorruptedError(f"{path} is shorter than its contents")

    @contextlib.contextmanager
    def begin(self, *, write: bool = False) -> Iterator[Any]:
        try:
            transaction = self._environment.begin(write=write, buffers=True)
        except lmdb.MapResizedError:  # another process has a larger limit and has used it
            self._environment.set_mapsize(0)
            transaction = self._environment.begin(write=write, buffers=True)
        with transaction:
            yield transaction

    def total(self, transaction: Any) -> int:
        """Bytes that all values take."""
        found = transaction.get(_BYTES, db=self.totals)
        return 0 if found is None else int(_TOTAL.unpack(found)[0])

    def evict(self, wanted: int) -> None:
        """Deletes what was last used before yesterday, oldest first."""
        until = _today() - 1
        with self.begin(write=True) as transaction:
            with transaction.cursor(db=self.used) as cursor:
                old = [
                    (day, bytes(key))
                    for key, value in cursor
                    if (day := _DAY.unpack(value)[0]) < until
                ]
            freed = 0
            for _, key in sorted(old):
                if freed >= wanted:
                    break
                freed += _size_on_disk(transaction.get(key, b"", db=self.values))
                transaction.delete(key, db=self.values)
                transaction.delete(key, db=self.used)
            left = _TOTAL.pack(max(0, self.total(transaction) - freed))
            transaction.put(_BYTES, left, db=self.totals)
        # LMDB uses freed pages again in the transaction after the next that writes.
        with self.begin(write=True) as transaction:
            left = bytes(transaction.get(_BYTES, db=self.totals))
            transaction.put(_BYTES, left, db=self.totals)


_LOCK = threading.RLock()
_DATABASES: dict[str, _Database] = {}
_UNSAVED: set[ArrayStore] = set()
_flushing_pid = 0


def _database(directory: Path, max_bytes: int) -> _Database:
    """This process's database of a directory: LMDB allows one per process, none across a fork.

    A database that is no LMDB file any more, or was cut off, is replaced by an empty one.
    """
    path = directory / str(_LAYOUT)
    name = os.path.abspath(path)
    if (known := _DATABASES.get(name)) is not None:
        if known.pid == os.getpid():
            return known
        # The parent's: closing it here frees this process's copies of its files alone.
        del _DATABASES[name]
        known.close()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if (kind := _file_system(directory)) in _NETWORKS:
        raise OSError(f"{kind}, a network file system, where memory maps are not safe")
    path.mkdir(mode=0o700, exist_ok=True)
    # One at a time, so that none opens what another is about to replace.
    with locked(directory / "open.lock"):
        try:
            opened = _Database(path, max_bytes)
        except (lmdb.InvalidError, lmdb.CorruptedError, lmdb.VersionMismatchError) as error:
            _LOG.warning("%s is damaged (%s) and is begun anew", path, error)
            aside = path.with_name(f"{_LAYOUT}.damaged.{os.getpid()}")
            path.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
            path.mkdir(mode=0o700)
            opened = _Database(path, max_bytes)
    _DATABASES[name] = opened
    return opened


def _file_system(directory: Path) -> str:
    """The type of the file system that a directory is on; empty if the kernel does not say."""
    device = directory.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    with contextlib.suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8") as file:
        for line in file:
            mount, _, rest = line.partition(" - ")
            if mount.split()[2] == number:
                return rest.split()[0]
    return ""


def _to_be_flushed(store: ArrayStore) -> None:
    """Lets a store be flushed when this process ends, a data loader's worker included."""
    global _flushing_pid
    _UNSAVED.add(store)
    if _flushing_pid != os.getpid():
        _flushing_pid = os.getpid()
        # Workers of multiprocessing run these, and no atexit handlers.
        multiprocessing_util.Finalize(None, flush_all, exitpriority=10)


def flush_all() -> None:
    """Commits what was put into any store of this process."""
    with _LOCK:
        for store in list(_UNSAVED):
            store.flush()


# A fork waits until no other thread is in a transaction, whose locks the child would inherit.
os.register_at_fork(
    before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_LOCK.release
)


def _encode(key: bytes, tensor: torch.Tensor) -> bytes:
    tensor = tensor.detach().contiguous()
    shape = struct.pack(f"<{tensor.ndim}q", *tensor.shape)
    body = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
    header = bytes((_DTYPES.index(tensor.dtype), tensor.ndim))
    checksum = zlib.crc32(body, zlib.crc32(header + shape, zlib.crc32(key)))
    return b"".join((checksum.to_bytes(4, "little"), header, shape, body))


def _decode(key: bytes, value: memoryview) -> torch.Tensor | None:
    """A copy of an encoded tensor; None if it is not what was encoded for this key."""
    if len(value) < _HEADER.size:
        return None
    checksum, dtype, ndim = _HEADER.unpack_from(value)
    if zlib.crc32(value[4:], zlib.crc32(key)) != checksum:
        return None
    shape = struct.unpack_from(f"<{ndim}q", value, _HEADER.size)
    start = _HEADER.size + 8 * ndim
    if len(value) == start:
        return torch.empty(shape, dtype=_DTYPES[dtype])
    body = numpy.frombuffer(value, dtype=numpy.uint8, offset=start).copy()
    return torch.from_numpy(body).view(_DTYPES[dtype]).view(shape)


def _size_on_disk(value: bytes | memoryview) -> int:
    """About what LMDB takes: large values have pages of their own."""
    size = len(value) + 128
    return size if size < 2048 else -(-size // 4096) * 4096


def _file_key(path: Path, stat: os.stat_result) -> bytes:
    return key_of(
        "file",
        os.path.abspath(path),
        f"{stat.st_ino} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}",
    )


def _today() -> int:
    return int(time.time() // _DAY_S)
