"""Where a fine-tune's numbers go: an event log beside the trial, and from there MLflow.

A fine-tune knows only a `Tracker`. `EventLog` writes what it is told to `events.jsonl` in the
trial's directory, one JSON object a line. `Store.project` copies such a log into an MLflow run, as
often as one likes with the same result, so a store that is away for a while, or a driver that was
killed, costs nothing but a delay. `Store` is also the reading side that `analysis` uses. One
process writes to MLflow: the command line for a single fine-tune, the driver for a sweep.

    log = EventLog(output_dir)
    finetune(config, log, on_eval)
    store = Store.open()
    run_id = store.ensure_run(kind="train", name="config_8k_telephone")
    store.project(run_id, output_dir)
    store.finish(run_id, "FINISHED")
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import copyfile
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlparse
from urllib.request import url2pathname

from conf.errors import DataError, UserError
from conf.files import locked, write_text
from trainer.tracking.event_log import now_ms, read_events

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "fun-asr-nano-8k-telephone"
RUN_ID = "mlflow_run_id"

Status = Literal["FINISHED", "FAILED", "KILLED"]

_LOG = logging.getLogger(__name__)

_MAX_PARAM_CHARS = 6000  # MLflow's limit for a parameter's value
_MAX_TAG_CHARS = 5000
_BATCH = 100  # MLflow takes at most 100 params and 100 tags in one call
_METRIC_BATCH = 500
_MADE_WITH_ROWS = {"alembic_version", "workspaces"}  # the tables that MLflow fills as it makes them


@dataclass(frozen=True)
class StoredRun:
    """An MLflow run as recorded: strings for params and tags, the last value of each metric."""

    run_id: str
    name: str
    status: str
    started_ms: int
    ended_ms: int | None
    """None where MLflow knows of no end."""
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class MetricPoint:
    """One value of a metric; `step` counts optimizer updates."""

    step: int
    value: float
    timestamp_ms: int


@dataclass
class _Projected:
    """What a run already has of one event log: its points, and what this process has written."""

    points: set[tuple[str, int]]
    """Metric and step."""
    params: dict[str, object] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, tuple[str, int, int]] = field(default_factory=dict)


class Store:
    """The MLflow store: runs found or made by their tags, event logs projected, runs read back.

    All calls name their run; there is no active run. Use one `Store` from one thread.
    """

    def __init__(
        self, client: MlflowClient, uri: str, experiment_id: str, inherited: str | None
    ) -> None:
        self._client = client
        self._projected: dict[str, _Projected] = {}
        self._artifact_uris: dict[str, str] = {}
        self.uri = uri
        self.experiment_id = experiment_id
        self.inherited_run_id = inherited

    @classmethod
    def open(
        cls,
        *,
        experiment: str | None = None,
        environment: Mapping[str, str] | None = None,
        create: bool = True,
    ) -> Store:
        """Open the store that the environment names, else `mlflow.db` in the working directory.

        Under `mlflow run` the experiment is the one that the inherited run lies in.

        Args:
            experiment: Name for new runs; default: the environment's, else `EXPERIMENT`.
            environment: Where to read MLflow's variables; default: this process's environment.
            create: Make the store and the experiment if they are not there; False for reading.

        Raises:
            UserError: The store cannot be opened, or the experiment was deleted.
        """
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        from mlflow import MlflowClient

        for noisy in ("mlflow.store.db.utils", "alembic", "alembic.runtime.migration"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        environment = os.environ if environment is None else environment
        uri = environment.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd() / 'mlflow.db'}"
        inherited = environment.get("MLFLOW_RUN_ID") or None
        database = _database(uri)
        try:
            with _creation_lock(database if create else None):
                if database is not None and _is_unmade(database):
                    if not create:
                        got = "a store that holds nothing" if database.exists() else "no such file"
                        raise DataError(f"MLflow store {uri}: got {got}, expected one with runs")
                    _make(database)
                client = MlflowClient(tracking_uri=uri)
                if not create:
                    experiment_id = ""
                elif inherited and experiment is None:
                    experiment_id = client.get_run(inherited).info.experiment_id
                else:
                    experiment_id = _experiment(client, experiment, environment)
        except UserError:
            raise
        except Exception as error:  # what databases and servers raise has no common class
            raise UserError(f"MLflow store {uri}: {_reason(error, database)}") from error
        return cls(client, uri, experiment_id, inherited)

    # Writing

    def ensure_run(
        self,
        *,
        kind: str,
        name: str,
        tags: Mapping[str, str] | None = None,
        key: str | None = None,
        parent: str | None = None,
        started_ms: int | None = None,
    ) -> str:
        """Find or create a run and set it running.

        A run with a `key` (tag `trial.key`) is found again by it under the same parent. One without
        key and parent takes the run inherited from `mlflow run`, if there is one. `started_ms` is
        for a run that began before it could be written here.
        """
        labels = {"kind": kind, **(tags or {})}
        if key is not None:
            labels["trial.key"] = key
        found = self._find_trial(key, parent) if key is not None else None
        if found is None and key is None and parent is None:
            found = self.inherited_run_id
        return self._running(found, name, labels, parent, started_ms)

    def ensure_standalone(self, directory: Path) -> str:
        """Find or create the run of one fine-tune by itself, and set it running.

        Under `mlflow run` it is the inherited run; else the one that an interrupted start in the
        same directory wrote to, as long as this store knows it; that it does not is said.
        """
        from mlflow.exceptions import MlflowException

        path = directory / RUN_ID
        run_id = None
        if self.inherited_run_id is None and path.exists():
            run_id = path.read_text(encoding="utf-8", errors="replace").strip()
            try:
                self._client.get_run(run_id)
            except MlflowException:
                said = "which is no run of this MLflow store; its numbers go to a new run there"
                _LOG.warning("%s: got %.40r, %s", path, run_id, said)
                run_id = None
        run_id = self._running(run_id or self.inherited_run_id, directory.name, {"kind": "train"})
        write_text(path, run_id + "\n")
        return run_id

    def ensure_sweep(self, name: str, sweep_id: str, tags: Mapping[str, str] | None = None) -> str:
        """Find or create the parent run of a sweep and set it running.

        The first run, under `mlflow run` the inherited one, is the parent. A later inherited run is
        marked as `kind=resume` with a link to the parent; `mlflow run` closes it, and where it was
        killed before it could, the next start does.
        """
        found = self._search(f"tags.kind = 'sweep' and tags.`sweep.id` = '{sweep_id}'")
        run_id = found[0].run_id if found else self.inherited_run_id
        inherited = self.inherited_run_id
        if inherited and run_id != inherited:
            self.set_tags(inherited, {"kind": "resume", "sweep": name, "resume.of": str(run_id)})
        for resume in self._search(f"tags.`resume.of` = '{run_id}'"):
            if resume.status == "RUNNING" and resume.run_id != inherited:
                self.finish(resume.run_id, "KILLED")
        labels = {"kind": "sweep", "sweep": name, "sweep.id": sweep_id, **(tags or {})}
        return self._running(run_id, name, labels)

    def project(self, run_id: str, directory: Path) -> None:
        """Copy a directory's event log and artifacts into a run; doing it again changes nothing."""
        from mlflow.entities import Metric

        done = self._projected.get(run_id)
        if done is None:
            done = self._projected[run_id] = _Projected(self._points(run_id))
        events = read_events(directory)
        # A line that was damaged and written again says the same with another timestamp, and MLflow
        # would keep both points; a log has a metric once per step.
        metrics: dict[tuple[str, int], Metric] = {}
        for event in events:
            for key, value in event.get("metrics", {}).items():
                if (point := (key, event["step"])) not in done.points:
                    metrics.setdefault(point, Metric(key, value, event["timestamp_ms"], point[1]))
        params = {k: v for e in events for k, v in e.get("params", {}).items()}
        tags = {k: v for e in events for k, v in e.get("tags", {}).items()}
        self.log_params(run_id, dict(i for i in params.items() if i not in done.params.items()))
        done.params = params
        for start in range(0, len(metrics), _METRIC_BATCH):
            batch = list(metrics)[start : start + _METRIC_BATCH]
            self._client.log_batch(run_id, metrics=[metrics[point] for point in batch])
            done.points.update(batch)
        self.set_tags(run_id, dict(i for i in tags.items() if i not in done.tags.items()))
        done.tags = tags
        paths = {e["artifact"]: directory / e["path"] for e in events if "artifact" in e}
        for name, path in paths.items():
            if not path.exists():
                continue
            stat = path.stat()
            version = (str(path), stat.st_size, stat.st_mtime_ns)
            if done.artifacts.get(name) != version:
                self.log_artifact(run_id, path, name)
                done.artifacts[name] = version

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags on a run."""
        from mlflow.entities import RunTag

        entities = [RunTag(key, str(value)[:_MAX_TAG_CHARS]) for key, value in tags.items()]
        for start in range(0, len(entities), _BATCH):
            self._client.log_batch(run_id, tags=entities[start : start + _BATCH])

    def log_metrics(self, run_id: str, metrics: Mapping[str, float], *, step: int = 0) -> None:
        """Log metrics directly, where there is no event log (a sweep's own numbers)."""
        from mlflow.entities import Metric

        entities = [Metric(key, value, now_ms(), step) for key, value in metrics.items()]
        self._client.log_batch(run_id, metrics=entities)

    def log_params(self, run_id: str, params: Mapping[str, object]) -> None:
        """Log parameters directly; a value already logged cannot change."""
        from mlflow.entities import Param

        entities = [Param(key, _text(value)) for key, value in params.items()]
        for start in range(0, len(entities), _BATCH):
            self._client.log_batch(run_id, params=entities[start : start + _BATCH])

    def log_artifact(self, run_id: str, path: Path, name: str | None = None) -> None:
        """Log a file under a path such as `hypotheses/valid.jsonl` (default: its name)."""
        folder, _, basename = (name or path.name).rpartition("/")
        if basename == path.name:
            self._client.log_artifact(run_id, str(path), folder or None)
            return
        with tempfile.TemporaryDirectory() as scratch:  # MLflow keeps a file's own name
            copy = Path(scratch) / basename
            copyfile(path, copy)
            self._client.log_artifact(run_id, str(copy), folder or None)

    def log_text(self, run_id: str, text: str, name: str) -> None:
        """Log a text as an artifact file."""
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "text"
            path.write_text(text, encoding="utf-8")
            self.log_artifact(run_id, path, name)

    def finish(self, run_id: str, status: Status, *, ended_ms: int | None = None) -> None:
        """End a run, at a given time or now; one that already ended so stays as it is."""
        if self._client.get_run(run_id).info.status != status:
            self._client.set_terminated(run_id, status=status, end_time=ended_ms)

    # Reading

    def run(self, run_id: str) -> StoredRun:
        """Read one run."""
        return _stored(self._client.get_run(run_id))

    def sweep_names(self) -> tuple[str, ...]:
        """Name all sweeps of the store, the newest first."""
        found = self._search("tags.kind = 'sweep'", everywhere=True)
        return tuple(dict.fromkeys(run.tags["sweep"] for run in found if "sweep" in run.tags))

    def sweep_run(self, name: str) -> StoredRun | None:
        """Read the newest sweep of this name, in whatever experiment it is."""
        query = f"tags.kind = 'sweep' and tags.sweep = '{_quoted(name)}'"
        found = self._search(query, everywhere=True)
        return found[0] if found else None

    def trial_runs(self, name: str) -> tuple[StoredRun, ...]:
        """Read the trials of the newest sweep of this name in the order of their numbers."""
        parent = self.sweep_run(name)
        if parent is None:
            return ()
        query = f"tags.kind = 'trial' and tags.`mlflow.parentRunId` = '{parent.run_id}'"
        found = self._search(query, everywhere=True)
        return tuple(sorted(found, key=lambda run: int(run.tags.get("trial", "0"))))

    def history(self, run_id: str, metric: str) -> tuple[MetricPoint, ...]:
        """Read a metric's values in the order of their steps; empty if it was never logged."""
        history = self._client.get_metric_history(run_id, metric)
        points = (MetricPoint(m.step, m.value, m.timestamp) for m in history)
        return tuple(sorted(points, key=lambda point: (point.step, point.timestamp_ms)))

    def download(self, run_id: str, name: str, directory: Path) -> Path:
        """Copy an artifact such as `hypotheses/valid.jsonl` to the same path under a directory.

        Raises:
            DataError: The run has no artifact of this name, or it cannot be copied.
        """
        from mlflow.exceptions import MlflowException

        # MLflow puts the file itself into the folder that it is given.
        folder = (directory / name).parent
        folder.mkdir(parents=True, exist_ok=True)
        try:
            # By run id MLflow reads the run anew, twice: 12 ms of CPU instead of 0.7.
            uri = self._artifact_uris.get(run_id) or self._client.get_run(run_id).info.artifact_uri
            if (local := _local(uri)) is not None:  # MLflow starts threads for every file
                return Path(copyfile(local / name, directory / name))
            from mlflow.artifacts import download_artifacts

            source = f"{uri.rstrip('/')}/{name}"
            return Path(
                download_artifacts(artifact_uri=source, dst_path=str(folder), tracking_uri=self.uri)
            )
        except (MlflowException, FileNotFoundError) as error:
            raise DataError(f"MLflow run {run_id}: has no artifact {name}") from error
        except OSError as error:
            raise DataError(f"MLflow run {run_id}: artifact {name}: {error}") from error

    # Finding

    def _points(self, run_id: str) -> set[tuple[str, int]]:
        metrics = self.run(run_id).metrics
        return {(key, point.step) for key in metrics for point in self.history(run_id, key)}

    def _find_trial(self, key: str, parent: str | None) -> str | None:
        query = f"tags.`trial.key` = '{_quoted(key)}'"
        if parent is not None:
            query += f" and tags.`mlflow.parentRunId` = '{parent}'"
        found = self._search(query)
        return found[0].run_id if found else None

    def _running(
        self,
        run_id: str | None,
        name: str,
        labels: Mapping[str, str],
        parent: str | None = None,
        started_ms: int | None = None,
    ) -> str:
        if run_id is None:
            tags = {**labels, "mlflow.runName": name}
            if parent is not None:
                tags["mlflow.parentRunId"] = parent
            run = self._client.create_run(self.experiment_id, start_time=started_ms, tags=tags)
            return str(run.info.run_id)
        self.set_tags(run_id, labels)
        self._client.update_run(run_id, status="RUNNING", name=name)
        return run_id

    def _search(self, query: str, *, everywhere: bool = False) -> tuple[StoredRun, ...]:
        experiments = [self.experiment_id]
        if everywhere:
            experiments = [e.experiment_id for e in self._client.search_experiments()]
        runs: list[StoredRun] = []
        token: str | None = None
        while True:
            page = self._client.search_runs(
                experiments, query, order_by=["start_time DESC"], page_token=token
            )
            runs += [_stored(run) for run in page]
            self._artifact_uris |= {run.info.run_id: run.info.artifact_uri for run in page}
            token = page.token
            if not token:
                return tuple(runs)


def _experiment(client: MlflowClient, name: str | None, environment: Mapping[str, str]) -> str:
    """Find or create the experiment for new runs."""
    inherited = environment.get("MLFLOW_EXPERIMENT_ID")
    if name is None and inherited:
        return str(client.get_experiment(inherited).experiment_id)
    name = name or environment.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        local = client.tracking_uri.startswith("sqlite:")
        location = (Path.cwd() / "mlartifacts").as_uri() if local else None
        return str(client.create_experiment(name, artifact_location=location))
    if experiment.lifecycle_stage != "active":
        raise UserError(f"MLflow experiment {name}: got a deleted one, expected a name in use")
    return str(experiment.experiment_id)


def _local(uri: str) -> Path | None:
    """The folder of artifacts that lie on this machine."""
    parsed = urlparse(uri)
    return Path(url2pathname(parsed.path)) if parsed.scheme in ("", "file") else None


def _database(uri: str) -> Path | None:
    """The file of a sqlite store."""
    path = uri.removeprefix("sqlite:///")
    return None if path in (uri, "", ":memory:") else Path(path)


@contextmanager
def _creation_lock(database: Path | None) -> Iterator[None]:
    """Let one process at a time create a sqlite store: the second then finds it."""
    if database is None:
        yield
        return
    with locked(database.with_name(database.name + ".lock")):
        yield


def _is_unmade(database: Path) -> bool:
    """Whether there is no store in a file, or one cut off while it was made.

    MLflow makes its tables in about 70 steps, each of which lasts, and does not go on after a kill
    between them. A store that was ever opened has a row at least: its default experiment.
    """
    if not database.exists():
        return True
    with closing(sqlite3.connect(database)) as connection:
        tables = _tables(connection)
        if tables and not tables & {"experiments", "alembic_version"}:  # somebody else's
            return False
        rows = (f'SELECT 1 FROM "{table}" LIMIT 1' for table in tables - _MADE_WITH_ROWS)
        return not any(connection.execute(query).fetchone() for query in rows)


def _tables(connection: sqlite3.Connection) -> set[str]:
    found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    return {name for (name,) in found if not name.startswith("sqlite_")}


def _make(database: Path) -> None:
    """Make a store in memory, and put it into its file in one transaction.

    So it is there whole or not at all, whenever this is cut off, and without a wait for the disk
    at every step. Who has the file open sees the new store, too, as after a rename they would not.
    """
    from mlflow.store.db.utils import _initialize_tables
    from sqlalchemy import create_engine

    with closing(sqlite3.connect(":memory:")) as made:
        _initialize_tables(create_engine("sqlite://", creator=lambda: made))  # type: ignore[no-untyped-call]
        with closing(sqlite3.connect(database)) as goal:
            anew = bool(_tables(goal))
            made.backup(goal)
    if anew:
        _LOG.warning("%s: its creation had been cut off; made anew, as it held no runs", database)


def _reason(error: Exception, database: Path | None) -> str:
    """Say in a line why a store cannot be opened, and what to do about a cut off migration."""
    reason = (str(error) or type(error).__name__).splitlines()[0]
    if database is None or not database.exists():
        return reason
    from mlflow.store.db.utils import _get_latest_schema_revision

    try:
        with closing(sqlite3.connect(database)) as connection:
            [schema] = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except (sqlite3.Error, TypeError):
        return reason
    expected = _get_latest_schema_revision()  # type: ignore[no-untyped-call]
    if schema == expected or expected in reason:  # MLflow has said what to do
        return reason
    return (
        f"{reason}; it holds runs, and its change from schema {schema} to {expected} was cut off: "
        "put a copy of the file back, or move it away (sweeps write their runs again)"
    )


def _stored(run: Run) -> StoredRun:
    return StoredRun(
        run_id=run.info.run_id,
        name=run.info.run_name or run.info.run_id,
        status=run.info.status,
        started_ms=run.info.start_time,
        ended_ms=run.info.end_time,
        tags=dict(run.data.tags),
        params=dict(run.data.params),
        metrics=dict(run.data.metrics),
    )


def _quoted(text: str) -> str:
    """Guard a search: MLflow's filter has no way to write a quote inside quotes."""
    if "'" in text:
        raise UserError(f"name: got {text!r}, expected one without quotes")
    return text


def _text(value: object) -> str:
    """Write a value as our YAML files do (true, null, [1, 2]), within MLflow's limit."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text[:_MAX_PARAM_CHARS]
