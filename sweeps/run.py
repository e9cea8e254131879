"""One sweep from its file to its table; what `python -m sweeps run` does.

Order: checks; lock; Ray's start, with the base's scores and the MLflow store beside it; study and
the sweep's run; trials; table and artifacts. Whatever happens, the same command goes on from there.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from conf.errors import UserError, WorkError
from conf.files import is_full_disk, write_text
from conf.load import Config
from sweeps import preflight
from sweeps.console.view import Progress, View, make_view, say
from sweeps.directory import SweepDirectory, sweep_text
from sweeps.execute.base_scores import BaseScores
from sweeps.execute.disk import DiskSpace, Need, check_disk_space, need
from sweeps.execute.orphans import end_marked
from sweeps.execute.process import Signals, output_to, own_console
from sweeps.spec.sweep_file import SweepFile
from sweeps.trial_state import FINAL, TrialState
from trainer.finetune.run_directory import EPOCHS

if TYPE_CHECKING:
    from analysis.facts.comparison import Comparison
    from sweeps.search.ledger import Ledger
    from sweeps.trial import Finetune
    from trainer.tracking.mlflow_store import Store

_LOG = logging.getLogger(__name__)


def run_sweep(
    path: Path,
    *,
    name: str | None = None,
    overrides: Sequence[str] = (),
    finetune: Finetune | None = None,
    tags: Mapping[str, str] | None = None,
) -> int:
    """Run, resume or just show a sweep.

    Args:
        path: The sweep file.
        name: Takes the place of the file's `name`.
        overrides: `key=value` over the file.
        finetune: Training function of the workers; default: the real one.
        tags: More tags for the sweep's run in MLflow.

    Returns:
        The exit code: 0, or 130/143 after SIGINT/SIGTERM.

    Raises:
        UserError: Nothing has been created.
        WorkError: The sweep cannot go on, or no trial completed.
    """
    sweep, configs, _ = preflight.check(path, name=name, overrides=overrides)
    directory = SweepDirectory.of(sweep.name)
    preflight.check_store(os.environ)
    disk = need(sweep, configs, preflight.effective_concurrency(sweep))
    if not _is_finished(directory, sweep):
        check_disk_space(sweep, directory, disk)
    with ExitStack() as stack:
        signals = stack.enter_context(Signals())
        console = stack.enter_context(own_console())
        stack.enter_context(directory.locked())
        directory.refuse_changes(sweep)
        if not _is_finished(directory, sweep):
            say(console, preflight.start(sweep))
        stack.enter_context(output_to(directory.log))
        goes_on = f"the same command goes on (python -m sweeps run {path} ...)"
        signals.at_once = lambda: end_at_once(directory, console, f"interrupted; {goes_on}")
        if left_over := end_marked(directory.root):
            _LOG.warning("ended %d processes that an earlier driver left", left_over)
        try:
            comparison = _run(directory, sweep, configs, disk, console, signals, finetune, tags)
        except KeyboardInterrupt:
            say(console, f"interrupted; {goes_on}")
            return signals.exit_code
        from analysis.tables.formats import Rendering

        console.print(Rendering(comparison))
        _show_next(console, sweep, directory)
    if comparison.best is None:
        raise WorkError(f"sweep {sweep.name}: no trial completed; see {directory.root}/trials")
    return 0


def _run(
    directory: SweepDirectory,
    sweep: SweepFile,
    configs: dict[str, Config],
    disk: Need,
    console: Console,
    signals: Signals,
    finetune: Finetune | None,
    tags: Mapping[str, str] | None,
) -> Comparison:
    """Run what is left to run, with Ray only if something is."""
    concurrency = preflight.effective_concurrency(sweep)
    with ThreadPoolExecutor(1) as executor, ExitStack() as engines:
        # Seconds of imports, beside Ray's; Ray's processes get an environment without MLflow's run.
        opening = executor.submit(_open_store, dict(os.environ))
        base = engines.enter_context(BaseScores(directory, sweep))
        view = engines.enter_context(make_view(console))
        if not _is_finished(directory, sweep):
            view.say(f"{directory.root}: starting Ray")
            from sweeps.execute.tuner import cluster

            engines.enter_context(
                cluster(
                    directory,
                    sweep,
                    concurrency,
                    say=view.say,
                    hang_up=lambda line: _hang_up(directory, console, line),
                    interrupted=signals.end,
                )
            )
        store = opening.result()
        directory.create(sweep)
        run = _Run(directory, sweep, configs, store, disk, console, view, base, concurrency, tags)
        try:
            run.begin()
            run.trials(finetune)
            engines.close()
            return run.conclude()
        except BaseException as error:
            run.stopped(interrupted=isinstance(error, KeyboardInterrupt))
            raise


class _Run:
    """A sweep under way: study, MLflow and console follow the trials."""

    def __init__(
        self,
        directory: SweepDirectory,
        sweep: SweepFile,
        configs: dict[str, Config],
        store: Store,
        disk: Need,
        console: Console,
        view: View,
        base: BaseScores,
        concurrency: int,
        tags: Mapping[str, str] | None,
    ) -> None:
        from sweeps.mlflow_projector import Projector
        from sweeps.search.ledger import Ledger

        self._directory = directory
        self._sweep = sweep
        self._store = store
        self._console = console
        self._disk = DiskSpace(
            directory,
            sweep.checkpoints_of,
            disk.floor,
            searches_epochs=any(EPOCHS in sweep.ranges(stage) for stage in sweep.stages),
        )
        self._view = view
        self._base = base
        self._concurrency = concurrency
        self._ledger: Ledger = Ledger(directory, sweep, configs)
        self._projector = Projector(directory, sweep, self._ledger.sweep_id, store, configs, tags)

    def begin(self) -> None:
        """Open the sweep's run, and begin to catch up with what is not yet in MLflow."""
        with _store_errors():
            self._projector.start(self._ledger.states())

    def trials(self, finetune: Finetune | None) -> None:
        """Run what is left to run."""
        if self._ledger.finished:
            return
        from sweeps.execute.searcher import Aborted
        from sweeps.execute.tuner import run_trials

        self._view.say("starting trials")
        try:
            run_trials(
                self._directory,
                self._sweep,
                self._ledger,
                self._concurrency,
                self._on_change,
                finetune,
                allows=self._disk.allows,
                hang_up=self._hang_up,
            )
        except Aborted as aborted:
            cause = aborted.__cause__
            if is_full_disk(cause) and not isinstance(cause, WorkError):  # Optuna blames the data
                cause = WorkError(
                    f"{self._directory.root}: the disk is full; with room the same command goes on"
                )
            raise WorkError(f"sweep {self._sweep.name}: {cause}".splitlines()[0]) from cause
        if not self._ledger.finished:
            if not self._disk.allows():
                raise WorkError(f"sweep {self._sweep.name}: {self._disk.refusal}")
            raise WorkError(
                f"sweep {self._sweep.name}: Ray Tune ended early; see {self._directory.log}, "
                "the same command goes on"
            )
        self._base.wait()
        self._care()
        self._directory.drop_ray_files()

    def conclude(self) -> Comparison:
        """Bring MLflow up to date and put the sweep's documents there."""
        if not self._projector.finish_trials(self._ledger.states(), interrupted=False):
            log = self._directory.log
            raise WorkError(f"MLflow is behind: see {log}; the same command mends it")
        with _store_errors():
            return self._document()

    def _document(self) -> Comparison:
        from analysis.export.best_trial import best_config
        from analysis.facts.comparison import comparison
        from analysis.report.page import report
        from analysis.tables import formats

        say(self._console, f"{self._directory.root}: comparing the trials, writing the report")
        self._projector.log_base(self._base.metrics())
        self._projector.log_sums(self._ledger.sums())
        compared = comparison(self._sweep.name, self._store)
        texts = {
            "comparison.md": formats.markdown(compared),
            "comparison.csv": formats.csv_text(compared),
            "sweep.yaml": sweep_text(self._sweep),
        }
        if compared.best is not None:
            texts["best_config.yaml"] = best_config(self._sweep.name, self._store)
        for name, text in texts.items():
            write_text(self._directory.root / name, text)
        self._projector.log_texts(texts)
        report(compared, self._store, self._directory.root)
        self._projector.end("FINISHED" if compared.best is not None else "FAILED")
        return compared

    def stopped(self, *, interrupted: bool) -> None:
        """Leave trials resumable, and nothing RUNNING in MLflow if it can be reached."""
        try:
            if self._projector.finish_trials(self._ledger.states(), interrupted=True):
                self._projector.end("KILLED" if interrupted else "FAILED")
            else:
                _LOG.warning("MLflow is behind; the same command mends it")
        except Exception as error:  # what stopped the sweep is what has to be told
            _LOG.warning("MLflow is behind; the same command mends it: %s", error)

    def _hang_up(self, message: str) -> None:
        """Leave what can be left in order, and end this process."""
        self.stopped(interrupted=False)
        _hang_up(self._directory, self._console, message)

    def _on_change(self, state: TrialState) -> None:
        self._projector.update([state])
        if state.outcome in FINAL:
            self._care()
        spent = self._ledger.spent()
        self._view.update(
            Progress(
                trials=self._sweep.trials,
                concurrency=self._concurrency,
                objective=self._sweep.objective,
                base=self._base.metrics().get(self._sweep.objective),
                states=self._ledger.states(),
                trial_hours=spent.trial_hours,
                gpus=self._sweep.resources.gpu,
                repeats=self._sweep.most_repeats,
                note=self._disk.tight or self._ledger.stopped,
            )
        )

    def _care(self) -> None:
        self._disk.care(self._ledger.states(), self._ledger.preferred, self._ledger.awaited)


@contextmanager
def _store_errors() -> Iterator[None]:
    """Turn what a store's client raises into one line; nothing is lost, it only is not written."""
    try:
        yield
    except (UserError, WorkError):
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WorkError(f"MLflow store: {reason}; the same command goes on") from error


def end_at_once(directory: SweepDirectory, console: Console, line: str) -> None:
    """Leave nothing behind but a line; the process itself is about to end."""
    end_marked(directory.root)
    console.show_cursor(True)  # a live view hides it
    say(console, line)


def _hang_up(directory: SweepDirectory, console: Console, message: str) -> None:
    """End this process from any thread, where the main one waits for what will not come."""
    end_at_once(directory, console, f"sweep {directory.root.name}: {message}")
    os._exit(WorkError.exit_code)


def _is_finished(directory: SweepDirectory, sweep: SweepFile) -> bool:
    """Whether only the table is left to show."""
    if not directory.study.exists():
        return False
    from sweeps.search.remaining import is_finished

    return is_finished(directory, sweep)


def _open_store(environment: Mapping[str, str]) -> Store:
    from sweeps.mlflow_projector import open_store

    return open_store(environment)


def _show_next(console: Console, sweep: SweepFile, directory: SweepDirectory) -> None:
    for line in (
        f"next: python -m analysis export --sweep {sweep.name} --output_dir exported",
        f"next: python -m analysis compare --sweep {sweep.name} --format md",
        "next: mlflow ui --backend-store-uri sqlite:///mlflow.db",
        f"files: {directory.root}",
    ):
        say(console, line)
