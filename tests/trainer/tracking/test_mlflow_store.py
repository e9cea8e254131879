"""Event logs and their projection onto a real MLflow store."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conf.errors import DataError, UserError
from trainer.tracking.event_log import EventLog
from trainer.tracking.mlflow_store import Store


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without a store."""
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def store(empty: Path) -> Store:
    return Store.open()


@pytest.mark.quick
def test_importing_needs_neither_torch_nor_mlflow() -> None:
    loaded = "bool({'torch', 'mlflow'} & set(sys.modules))"
    code = f"import sys, trainer.tracking.mlflow_store; sys.exit({loaded})"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_projecting_twice_is_projecting_once(store: Store, tmp_path: Path) -> None:
    directory = tmp_path / "trial"
    log = EventLog(directory)
    log.log_params(
        {"optim_conf.lr": 5e-5, "specaug": None, "specaug_conf.freq_mask_width_range": [0, 15]}
    )
    log.log_params({f"key.{i}": i for i in range(250)})
    log.set_tags({"stage": "8k"})
    for epoch in range(3):
        log.log_metrics({"valid/cer": 0.5 - epoch / 10, "epoch": epoch}, step=epoch * 7)
    (directory / "h.jsonl").write_text('{"key": "a"}\n')
    log.log_artifact(directory / "h.jsonl", "hypotheses/valid.jsonl")

    parent = store.ensure_sweep("demo", "id-1")
    child = store.ensure_run(
        kind="trial", name="demo/000", key="demo/000", parent=parent, tags={"trial": "0"}
    )
    store.project(child, directory)
    store.project(child, directory)
    other = Store.open()  # a driver started again
    assert other.ensure_sweep("demo", "id-1") == parent
    assert other.ensure_run(kind="trial", name="demo/000", key="demo/000", parent=parent) == child
    other.project(child, directory)
    other.finish(child, "FINISHED")

    (run,) = store.trial_runs("demo")
    assert run.status == "FINISHED"
    assert run.params["optim_conf.lr"] == "5e-05"
    assert run.params["specaug"] == "null"
    assert run.params["specaug_conf.freq_mask_width_range"] == "[0, 15]"
    assert len(run.params) == 253
    assert run.tags["stage"] == "8k"
    assert run.metrics["valid/cer"] == pytest.approx(0.3)
    assert [(p.step, p.value) for p in store.history(child, "epoch")] == [(0, 0), (7, 1), (14, 2)]
    copy = store.download(child, "hypotheses/valid.jsonl", tmp_path / "copy")
    assert copy == tmp_path / "copy/hypotheses/valid.jsonl"
    assert copy.read_text() == '{"key": "a"}\n'
    with pytest.raises(DataError, match="no artifact missing.txt"):
        store.download(child, "missing.txt", tmp_path / "copy")
    assert (tmp_path / "mlflow.db").exists()
    assert list((tmp_path / "mlartifacts").rglob("valid.jsonl"))
    newest = store.sweep_run("demo")
    assert newest is not None
    assert newest.run_id == parent
    assert store.sweep_run("unknown") is None
    assert store.sweep_names() == ("demo",)


@pytest.mark.parametrize("restarted", [False, True])
def test_a_damaged_line_that_is_written_again_is_no_second_point(
    store: Store, tmp_path: Path, restarted: bool
) -> None:
    """Nor is a line that comes while one is missing passed over."""
    directory = tmp_path / "trial"
    log = EventLog(directory)
    run_id = store.ensure_run(kind="trial", name="demo/000", key="demo/000")
    log.log_params({"optim_conf.lr": 5e-5})
    log.set_tags({"stage": "8k"})
    for step in range(4):
        log.log_metrics({"valid/cer": step / 10, "train/loss": math.nan}, step=step)
    store.project(run_id, directory)
    before = [store.history(run_id, key) for key in ("valid/cer", "train/loss")]

    lines = (directory / "events.jsonl").read_bytes().splitlines(keepends=True)
    lines[0], lines[3] = b"\0\0\n", b"{\n"  # parameters, and the points of step 1
    (directory / "events.jsonl").write_bytes(b"".join(lines))
    store = Store.open() if restarted else store
    log.log_metrics({"valid/cer": 0.4, "train/loss": math.nan}, step=4)
    store.project(run_id, directory)
    again = EventLog(directory, resume=True)
    again.log_params({"optim_conf.lr": 5e-5})
    for step in range(6):
        again.log_metrics({"valid/cer": step / 10, "train/loss": 1.0}, step=step)
    store.project(run_id, directory)

    after = [store.history(run_id, key) for key in ("valid/cer", "train/loss")]
    assert [[point.step for point in points] for points in after] == [list(range(6))] * 2
    assert [repr(points[:4]) for points in after] == [repr(points) for points in before]
    assert store.run(run_id).params == {"optim_conf.lr": "5e-05"}
    assert store.run(run_id).tags["stage"] == "8k"


@pytest.mark.parametrize("damaged", [b"", b"0123\n", b"\xff\xfe\0\0", b"a/b?c=\n\n", b"x" * 5000])
def test_a_damaged_run_id_is_named_and_its_numbers_go_to_a_new_run(
    store: Store, tmp_path: Path, damaged: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "run"
    EventLog(directory).log_metrics({"valid/cer": 0.4}, step=1)
    first = store.ensure_standalone(directory)
    (directory / "mlflow_run_id").write_bytes(damaged)
    second = store.ensure_standalone(directory)
    [record] = caplog.records
    line = record.getMessage()
    assert line.startswith(f"{directory / 'mlflow_run_id'}: got ")
    assert line.endswith("its numbers go to a new run there")
    assert "\n" not in line
    assert len(line) < len(str(directory)) + 200
    assert second != first
    assert store.ensure_standalone(directory) == second
    store.project(second, directory)
    assert [point.step for point in store.history(second, "valid/cer")] == [1]


def test_not_a_number_is_recorded_as_such(store: Store, tmp_path: Path) -> None:
    log = EventLog(tmp_path / "trial")
    log.log_metrics({"train/loss": math.nan}, step=1)
    run_id = store.ensure_run(kind="train", name="run")
    store.project(run_id, tmp_path / "trial")
    assert math.isnan(store.history(run_id, "train/loss")[0].value)


def test_inherited_run_is_the_parent_and_a_later_one_its_resume(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store.ensure_run(kind="x", name="from mlflow run")
    second = store.ensure_run(kind="x", name="from mlflow run again")
    monkeypatch.setenv("MLFLOW_RUN_ID", first)
    assert Store.open().ensure_sweep("demo", "id-1") == first
    monkeypatch.setenv("MLFLOW_RUN_ID", second)
    assert Store.open().ensure_sweep("demo", "id-1") == first
    tags = store.run(second).tags
    assert (tags["kind"], tags["sweep"], tags["resume.of"]) == ("resume", "demo", first)
    assert store.run(first).status == "RUNNING"
    # `mlflow run` was killed as a whole, and could not close its run.
    monkeypatch.delenv("MLFLOW_RUN_ID")
    assert Store.open().ensure_sweep("demo", "id-1") == first
    assert store.run(second).status == "KILLED"
    assert store.run(first).status == "RUNNING"


def test_reading_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        Store.open(create=False)
    assert not list(tmp_path.iterdir())
    parent = Store.open().ensure_sweep("demo", "id-1")
    found = Store.open(create=False).sweep_run("demo")
    assert found is not None
    assert found.run_id == parent


def test_a_store_that_cannot_be_opened_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/no/such/place.db")
    with pytest.raises(UserError) as error:
        Store.open()
    assert len(str(error.value).splitlines()) == 1


def at_statement(number: int) -> None:
    """Let this process be killed when it is about to make or rename a store's table so often."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    seen: list[str] = []

    def count(_c: object, _u: object, statement: str, *_: object) -> None:
        if "TABLE" in statement and "PRAGMA" not in statement:
            seen.append(statement)
            if len(seen) == number:
                os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "before_cursor_execute", count)


def at_byte(number: int) -> None:
    """Let this process be killed when a file of its grows beyond so many bytes."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (number, number))


def start(opening: Callable[[], object], *before: tuple[Callable[[int], None], int]) -> int | None:
    """Open a store in a process of its own, which has MLflow loaded; its exit code."""
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

    def run() -> None:
        for prepare, number in before:
            prepare(number)
        opening()

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()
    return process.exitcode


def mlflows_own() -> object:
    """Make a store as `mlflow ui` does, step by step in the file itself."""
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{Path.cwd()}/mlflow.db")


def schema(database: Path) -> list[tuple[object, ...]]:
    """What makes the tables; MLflow's migrations write a table's constraints in any order."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        query = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"
        return [
            (*names, sorted(line.strip(" \t,") for line in (sql or "").splitlines()))
            for *names, sql in connection.execute(query)
        ]


@pytest.mark.parametrize(
    ("moment", "number", "kill"),
    [
        (at_statement, 60, signal.SIGKILL),
        (at_statement, 200, signal.SIGKILL),
        (at_byte, 200, signal.SIGXFSZ),  # the lock is written, the store is not
        (at_byte, 40_000, signal.SIGXFSZ),
        (at_byte, 600_000, signal.SIGXFSZ),
    ],
)
def test_a_first_start_killed_at_any_moment_can_be_repeated(
    empty: Path, moment: Callable[[int], None], number: int, kill: int
) -> None:
    assert start(Store.open, (moment, number)) == -kill
    store = Store.open()
    run_id = store.ensure_run(kind="train", name="run")
    assert store.run(run_id).status == "RUNNING"
    assert sorted(path.name for path in empty.iterdir()) == ["mlflow.db", "mlflow.db.lock"]


@pytest.mark.parametrize("number", [2, 200])
def test_a_store_whose_creation_was_cut_off_is_made_anew(
    empty: Path, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert start(mlflows_own, (at_statement, number)) == -signal.SIGKILL
    assert schema(empty / "mlflow.db")
    with pytest.raises(DataError, match="got a store that holds nothing"):
        Store.open(create=False)
    store = Store.open()
    assert store.run(store.ensure_run(kind="train", name="run")).status == "RUNNING"
    assert len(caplog.records) == 1


def test_a_store_is_the_same_as_mlflows_own(empty: Path) -> None:
    assert start(mlflows_own) == 0
    (empty / "mlflow.db").rename(empty / "own.db")
    Store.open()
    assert schema(empty / "mlflow.db") == schema(empty / "own.db")


def test_two_first_starts_make_one_store(empty: Path) -> None:
    def both() -> None:
        context = multiprocessing.get_context("fork")
        processes = [context.Process(target=Store.open) for _ in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0, 0]

    assert start(both) == 0
    with contextlib.closing(sqlite3.connect(empty / "mlflow.db")) as connection:
        assert connection.execute("SELECT count(*) FROM experiments").fetchone() == (2,)


def test_a_store_with_runs_whose_migration_was_cut_off_is_left_as_it_is(empty: Path) -> None:
    def make() -> None:
        Store.open().ensure_run(kind="train", name="run")

    assert start(make) == 0
    with contextlib.closing(sqlite3.connect(empty / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0c779009ac13'")
        connection.execute("DROP TABLE webhooks")
    with pytest.raises(
        UserError, match=r"duplicate column.*it holds runs, and its change"
    ) as error:
        Store.open()
    assert len(str(error.value).splitlines()) == 1
    with contextlib.closing(sqlite3.connect(empty / "mlflow.db")) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (1,)
