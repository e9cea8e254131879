"""The store of arrays: many processes, broken files, a full disk; nothing of it may fail a run."""

from __future__ import annotations

import logging
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
import torch

from conf.files import file_sha256
from conf.load import Config
from trainer.data import array_store as store_module
from trainer.data.array_store import ArrayStore, key_of, open_store

pytestmark = pytest.mark.quick

MB = 2**20


def _tensor(number: int, size: int = 20_000) -> torch.Tensor:
    return torch.arange(size, dtype=torch.float32) + number


def _key(number: int) -> bytes:
    return key_of("test", str(number))


def _in_child(work: Callable[[], object]) -> int:
    """Runs in a forked process and gives its exit code."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(3, 5),
        torch.randn(4, 6)[:, ::2],
        torch.randn(2, 3, 4).to(torch.bfloat16),
        torch.randn(7, dtype=torch.float64),
        torch.arange(5),
        torch.tensor(3.5),
        torch.empty(0, 560),
    ],
    ids=lambda tensor: f"{tuple(tensor.shape)}-{tensor.dtype}",
)
def test_what_was_put_is_got_as_a_copy(tmp_path: Path, tensor: torch.Tensor) -> None:
    store = ArrayStore(tmp_path, 8 * MB)
    assert store.get(b"k") is None
    store.put(b"k", tensor)
    for _ in ("before", "after the commit"):
        for _ in range(2):
            found = store.get(b"k")
            assert found is not None
            assert found.dtype == tensor.dtype
            assert torch.equal(found, tensor)
            found.zero_()
        store.flush()


def test_nothing_is_opened_before_the_first_use(tmp_path: Path) -> None:
    ArrayStore(tmp_path / "new", MB)
    assert not (tmp_path / "new").exists()


def test_a_forked_process_shares_what_is_there_and_adds_to_it(tmp_path: Path) -> None:
    store = ArrayStore(tmp_path, 8 * MB)
    store.put(_key(1), _tensor(1))
    store.flush()

    def child() -> None:
        found = store.get(_key(1))
        assert found is not None
        assert torch.equal(found, _tensor(1))
        store.put(_key(2), _tensor(2))
        # Not flushed: that happens when the process ends.

    assert _in_child(child) == 0
    found = store.get(_key(2))
    assert found is not None
    assert torch.equal(found, _tensor(2))
    store.put(_key(3), _tensor(3))
    store.flush()
    assert _in_child(lambda: os._exit(store.get(_key(3)) is None)) == 0


def test_processes_fill_it_together_while_others_are_killed(tmp_path: Path) -> None:
    """What is found afterwards is right, and all that the survivors wrote is found."""

    def fill(first: int, halfway: Event | None) -> None:
        store = ArrayStore(tmp_path, 64 * MB)
        number = first
        while halfway or number < first + 60:
            store.put(_key(number % 300), _tensor(number % 300))
            if number % 7 == 0:
                store.flush()
            found = store.get(_key((number * 13) % 300))
            assert found is None or torch.equal(found, _tensor((number * 13) % 300))
            number += 1
            if halfway and number == first + 50:
                halfway.set()
        store.flush()

    context = multiprocessing.get_context("fork")
    halfway = [context.Event(), context.Event()]
    victims = [
        context.Process(target=fill, args=each) for each in zip((0, 150), halfway, strict=True)
    ]
    workers = [context.Process(target=fill, args=(n, None)) for n in (0, 40)]
    for process in (*victims, *workers):
        process.start()
    for victim, there in zip(victims, halfway, strict=True):
        there.wait()
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)
    for process in (*victims, *workers):
        process.join()
    assert [process.exitcode for process in workers] == [0, 0]
    store = ArrayStore(tmp_path, 64 * MB)
    for number in range(300):
        found = store.get(_key(number))
        assert number >= 100 or found is not None
        assert found is None or torch.equal(found, _tensor(number))


def test_a_damaged_value_is_not_used_and_is_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = ArrayStore(tmp_path, 8 * MB)
    store.put(_key(1), _tensor(1))
    store.flush()
    [path] = tmp_path.rglob("data.mdb")
    data = bytearray(path.read_bytes())
    at = data.find(_tensor(1)[100:200].numpy().tobytes())
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xff")
    assert store.get(_key(1)) is None
    assert len(caplog.records) == 1  # the user is told, once
    store.put(_key(1), _tensor(1))
    store.flush()
    found = store.get(_key(1))
    assert found is not None
    assert torch.equal(found, _tensor(1))


@pytest.mark.parametrize("how", ["no database", "cut off"])
def test_a_damaged_file_is_begun_anew(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    def child() -> None:
        store = ArrayStore(tmp_path, 8 * MB)
        for number in range(20):
            store.put(_key(number), _tensor(number))

    assert _in_child(child) == 0
    [path] = tmp_path.rglob("data.mdb")
    if how == "cut off":
        os.truncate(path, path.stat().st_size // 2)
    else:
        path.write_bytes(b"something else" * 1000)
    store = ArrayStore(tmp_path, 8 * MB)
    assert store.get(_key(1)) is None
    assert len(caplog.records) == 1  # the user is told, once
    store.put(_key(1), _tensor(1))
    store.flush()
    assert store.get(_key(1)) is not None
    assert [each.name for each in tmp_path.iterdir() if each.is_dir()] == ["1"]


def test_a_full_store_says_so_once_and_stays_within_its_size(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = ArrayStore(tmp_path, 2 * MB)
    for number in range(60):
        store.put(_key(number), _tensor(number))
        store.flush()
    [record] = caplog.records  # the user is told, once, and which keys give more room
    assert str(tmp_path) in record.message
    assert "finetune_conf.feature_cache_dir, finetune_conf.feature_cache_mb 2" in record.message
    kept = [number for number in range(60) if store.get(_key(number)) is not None]
    assert 15 < len(kept) < 30
    assert kept == list(range(len(kept)))
    assert sum(path.stat().st_size for path in tmp_path.rglob("data.mdb")) <= 2 * MB


def test_what_was_not_used_since_yesterday_makes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = ArrayStore(tmp_path, 2 * MB)
    day = 20_000
    monkeypatch.setattr(store_module, "_today", lambda: day)
    for number in range(16):
        store.put(_key(number), _tensor(number))
    store.flush()
    for day in range(20_001, 20_040):
        assert store.get(_key(3)) is not None  # in use each day
        for number in range(5):
            store.put(_key(100 * day + number), _tensor(number))
        store.flush()
    assert store.get(_key(3)) is not None
    assert store.get(_key(4)) is None
    found = store.get(_key(100 * day + 4))
    assert found is not None
    assert torch.equal(found, _tensor(4))
    assert not caplog.records
    assert sum(path.stat().st_size for path in tmp_path.rglob("data.mdb")) <= 2 * MB


def test_a_disk_that_is_full_does_not_fail_a_run(tmp_path: Path) -> None:
    def child() -> None:
        store = ArrayStore(tmp_path, 64 * MB)
        for number in range(10):
            store.put(_key(number), _tensor(number))
        store.flush()
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MB, 2 * MB))
        records: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger().addHandler(handler)
        for number in range(10, 60):
            store.put(_key(number), _tensor(number))
            store.flush()
            found = store.get(_key(number % 10))
            assert found is not None
            assert torch.equal(found, _tensor(number % 10))
        assert len(records) == 1, records

    assert _in_child(child) == 0
    found = ArrayStore(tmp_path, 64 * MB).get(_key(9))
    assert found is not None
    assert torch.equal(found, _tensor(9))


def test_a_directory_that_cannot_be_made_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    store = ArrayStore(tmp_path / "file" / "cache", MB)
    for number in range(3):
        assert store.get(_key(number)) is None
        store.put(_key(number), _tensor(number))
        store.flush()
    assert len(caplog.records) == 1


def test_a_network_file_system_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert store_module._file_system(tmp_path)
    monkeypatch.setattr(store_module, "_file_system", lambda _: "nfs4")
    store = ArrayStore(tmp_path, MB)
    store.put(_key(1), _tensor(1))
    store.flush()
    assert store.get(_key(1)) is None
    [record] = caplog.records
    assert "nfs4" in record.message


def test_a_larger_limit_elsewhere_is_followed(tmp_path: Path) -> None:
    small = ArrayStore(tmp_path, 2 * MB)
    small.put(_key(0), _tensor(0))
    small.flush()

    def child() -> None:
        large = ArrayStore(tmp_path, 32 * MB)
        for number in range(1, 60):
            large.put(_key(number), _tensor(number))

    assert _in_child(child) == 0
    found = small.get(_key(59))
    assert found is not None
    assert torch.equal(found, _tensor(59))


def test_a_file_is_hashed_once_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ArrayStore(tmp_path / "store", 8 * MB)
    path = tmp_path / "audio.wav"
    path.write_bytes(b"one")
    first = store.content(path)
    assert first[1] is not None
    # Just written: it might change once more within the clock's resolution.
    assert store.content(path)[1] is not None
    monkeypatch.setattr(store_module, "_RACY_NS", -(10**9))
    assert store.content(path)[1] is not None
    assert store.content(path) == (first[0], None)
    path.write_bytes(b"two")
    os.utime(path, ns=(0, path.stat().st_mtime_ns))
    assert store.content_sha256(path) == file_sha256(path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        store.content_sha256(path)


def test_the_configuration_says_where_and_how_much(
    tiny_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert open_store(tiny_config(finetune_conf__feature_cache_mb=0)) is None
    store = open_store(tiny_config(finetune_conf__feature_cache_dir=str(tmp_path / "here")))
    assert store is not None
    assert (store.directory, store.max_bytes) == (tmp_path / "here", 20480 * MB)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = open_store(tiny_config())
    assert store is not None
    assert store.directory == tmp_path / "cache" / "telesweep" / "features"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    store = open_store(tiny_config())
    assert store is not None
    assert store.directory == tmp_path / ".cache" / "telesweep" / "features"
