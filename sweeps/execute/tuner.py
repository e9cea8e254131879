"""Ray Tune as the executor: it places trials on processes and retries those that die.

What to run, what was found and when a trial ends are the ledger's business; Tune is started afresh
each time and its own files are thrown away.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from ray import tune
from ray.tune.execution import class_cache
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from conf.errors import UserError, WorkError
from conf.files import holder_of, write_text
from conf.threads import in_thread
from sweeps.directory import SweepDirectory
from sweeps.execute.deaths import (
    MAX_DEATHS,
    Watch,
    death_reason,
    final_reason,
    note_death,
    oom_kills,
)
from sweeps.execute.environment import for_workers, is_secret
from sweeps.execute.orphans import MARK, SESSION, children, end_marked
from sweeps.execute.searcher import Aborted, StudySearcher
from sweeps.search.ledger import Ledger
from sweeps.spec.sweep_file import SweepFile
from sweeps.trial import LOCK, Finetune, run_trial
from sweeps.trial_state import TrialState
from trainer.tracking.event_log import EVENTS

_LOG = logging.getLogger(__name__)
_LOOK_S = 0.5
_LOOK_AT_START_S = 0.2
_SAYS_WHY_S = 2.0
"""A start that fails by itself ends the servers, and then says why."""
_STARTS = 3
"""Starts of Ray before a sweep ends: on a busy machine a raylet gives up on its own agent after
15 s, for which Ray has no setting, and the next start finds the agent's modules in memory."""
_GIVES_UP_S = 45.0
"""Ray's own calls return after at most 30 s each, so a signal reaches the main thread by then."""
_SERVERS = ("gcs_server", "raylet")
_ENDING = (signal.SIGINT, signal.SIGTERM)
_SIGNALS = 6
_SHUT_DOWN_S = 10.0
_SAID_CHARS = 2_000
_OBJECT_STORE_BYTES = 200_000_000  # trials pass numbers, no arrays
_SAID = "said"
"""What a trial reports, as one text: of a dict within it Tune makes keys with slashes, as the names
of metrics have them."""
_ROOT = Path(__file__).parents[2]

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # data paths are relative to the working directory
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_worker_niceness": "0",  # Ray's 15 lets anybody's process on the machine go first
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours ends the sweep in order
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # the study is the record
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "true",
}
_TOKEN = Path("~/.ray/auth_token")
"""What whoever can read it can run code with: Ray's servers listen on all interfaces."""


class RayDied(KeyboardInterrupt):
    """One of Ray's servers is gone; raised in the main thread, wherever it is.

    Where Ray waits it lets no other kind of exception out of a signal's handler, and makes a plain
    KeyboardInterrupt of this one, too.
    """


class Retrying(StudySearcher):
    """The searcher with care for workers that die or hang.

    Tune's own retries are off: it forgets them with its driver, and takes the death of Ray itself
    for one of the trial's. Here a trial whose worker died is handed out again, at once, until that
    has happened too often.

    Args:
        ledger: The sweep's study.
        concurrency: Trials under way at once.
        on_change: Called with a trial whose state is new.
        directory: The sweep's directory.
        allows: Asked before a new trial; False ends the search for want of disk space.
    """

    def __init__(
        self,
        ledger: Ledger,
        concurrency: int,
        on_change: Callable[[TrialState], None],
        directory: SweepDirectory,
        allows: Callable[[], bool],
    ) -> None:
        super().__init__(ledger, concurrency, on_change)
        self._directory = directory
        self._allows = allows
        self._again: list[int] = []
        self._reports: dict[int, int] = {}
        self._oom_kills: dict[int, int] = {}
        self._hung: dict[int, str] = {}
        self._errors: dict[str, str] = {}
        self._tune_trials: dict[str, Any] = {}

    def suggest(self, trial_id: str) -> Any:
        """Give Tune a trial that is to be tried again, else as ever."""
        if len(self._numbers) >= self._concurrency:
            return None
        work: Any = str(Searcher.FINISHED)
        if self._allows():
            if self._again:
                self._numbers[trial_id] = self._again.pop(0)
                work = {"trial": self._numbers[trial_id]}
            else:
                work = super().suggest(trial_id)
        if isinstance(work, dict):
            self._oom_kills[work["trial"]] = oom_kills()
        elif work == Searcher.FINISHED and self._numbers:
            return None  # Tune does not ask again after that, and a worker may still die
        return work

    def record(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Book what a trial reports; a full disk is the end for now."""
        if result.get("outcome") == "stopped":
            raise Aborted from WorkError(result["reason"])
        number = self._numbers.get(trial_id)
        if number is not None:
            self._reports[number] = self._reports.get(number, 0) + 1
            self._hung.pop(number, None)  # it was only slow to begin
        return super().record(trial_id, result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Try a trial again whose worker died, or say that it has failed."""
        self._tune_trials.pop(trial_id, None)
        said = self._errors.pop(trial_id, "")
        number = self._numbers.get(trial_id)
        if number is None or not error:
            super().on_trial_complete(trial_id, result, error)
            return
        if dead := _dead_soon():
            raise RayDied(dead)
        reason = self._hung.pop(number, "") or death_reason(
            said, self._oom_kills.get(number, 0), oom_kills()
        )
        del self._numbers[trial_id]
        try:
            count = note_death(self._directory.trial(number), reason)
            _LOG.warning("trial %d: %s (death %d): %s", number, reason, count, said)
            if count < MAX_DEATHS:
                self._again.append(number)
                return
            self._ledger.tell(number, "failed", reason=final_reason(reason, count))
        except Exception as failure:
            raise Aborted from failure
        self._on_change(self._ledger.state(number))

    # For whoever watches

    def starts(self, trial: Any) -> None:
        """Take note of Tune's own trial, whose process may have to be ended."""
        self._tune_trials[trial.trial_id] = trial

    def fails(self, trial: Any) -> None:
        """Take note of what Ray says about a failure, just before `on_trial_complete`."""
        with contextlib.suppress(OSError):
            said = Path(trial.error_file).read_text(encoding="utf-8")
            self._errors[trial.trial_id] = " ".join(said.split())[-_SAID_CHARS:]

    def signs(self) -> dict[int, object]:
        """What changes as long as a trial goes on: its reports, its event log, its deaths."""
        signs: dict[int, object] = {}
        for number in list(self._numbers.values()):
            directory = self._directory.trial(number)
            sizes = [
                path.stat().st_size if path.exists() else 0
                for path in (directory / EVENTS, directory / "deaths.jsonl")
            ]
            signs[number] = (self._reports.get(number, 0), *sizes)
        return signs

    def end_hung(self, number: int, limit_s: float) -> None:
        """Kill the process of a trial, as a hung one does not listen; from any thread."""
        directory = self._directory.trial(number)
        holder = holder_of(directory / LOCK)
        self._hung[number] = f"no report for {limit_s:g} s"
        _LOG.warning("trial %d: %s, ending %s", number, self._hung[number], holder)
        if holder is not None and holder.is_here and holder.pid is not None:
            os.kill(holder.pid, signal.SIGKILL)
            return
        for trial_id, other in list(self._numbers.items()):
            trial = self._tune_trials.get(trial_id) if other == number else None
            actor = trial.temporary_state.ray_actor if trial is not None else None
            if actor is not None:
                ray.kill(actor)


class Verdicts(FIFOScheduler):
    """Passes every result to the searcher, whose study says whether the trial goes on."""

    def __init__(self, searcher: Retrying) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._searcher = searcher

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Take note of a trial of Tune's."""
        self._searcher.starts(trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Book a result; a trial that is pruned, or has told its outcome, is stopped."""
        goes_on = self._searcher.record(trial.trial_id, json.loads(result[_SAID]))
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Keep what Ray says."""
        self._searcher.fails(trial)


@contextmanager
def cluster(
    directory: SweepDirectory,
    sweep: SweepFile,
    concurrency: int,
    *,
    say: Callable[[str], None],
    hang_up: Callable[[str], None],
    interrupted: Callable[[int], None],
) -> Iterator[None]:
    """Start a Ray of our own on this machine; ends with its processes gone.

    A start that fails is tried again, with what is left of it ended in between.

    Args:
        directory: The sweep's directory.
        sweep: The sweep.
        concurrency: Trials under way at once.
        say: Takes a line for the console.
        hang_up: Ends this process with a line, from any thread, when a start neither ends nor
            fails after a server died.
        interrupted: Ends this process because of a signal (its number), from any thread.

    Raises:
        UserError: Ray finds fewer GPUs than one trial asks for.
        WorkError: Ray did not start.
    """
    resources = sweep.resources
    with _environment(directory.root), _interruptible(interrupted):
        for start in range(1, _STARTS + 1):
            try:
                with _watched_start(hang_up):
                    ray.init(
                        address="local",  # a cluster left running by someone else is not joined
                        num_cpus=math.ceil(concurrency * resources.cpu),
                        include_dashboard=False,
                        object_store_memory=_OBJECT_STORE_BYTES,
                        log_to_driver=False,
                        logging_level=logging.WARNING,
                    )
                break
            except (RayDied, Exception) as error:
                _end_failed_start(directory.root)
                reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
                if start == _STARTS:
                    raise WorkError(
                        f"Ray did not start in {_STARTS} tries ({reason}); "
                        "the same command goes on, better when the machine is less busy"
                    ) from error
                say(f"Ray did not start ({reason}); trying again ({start + 1} of {_STARTS})")
    with contextlib.suppress(OSError):
        _TOKEN.expanduser().chmod(0o600)
    if (node := ray._private.worker._global_node) is not None:
        session = node.get_session_dir_path()
        write_text(directory.root / SESSION, f"{session}\n")
    # After the run Tune looks for result files, which nobody needs, and warns of each.
    logging.getLogger("ray.tune.analysis").setLevel(logging.ERROR)
    try:
        gpus = ray.cluster_resources().get("GPU", 0)  # type: ignore[no-untyped-call]
        if gpus < resources.gpu:
            raise UserError(f"resources.gpu: got {resources.gpu:g}, expected at most {gpus:g} here")
        yield
    finally:
        _shut_down()
        # Ray's C++ has set SIGTERM to its default behind Python's back, which still names ours.
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
        end_marked(directory.root)


@contextmanager
def _interruptible(interrupted: Callable[[int], None]) -> Iterator[None]:
    """Answer SIGINT and SIGTERM at once while Ray starts, from a thread.

    There the main thread waits in Ray's C++ for up to 30 s at a time, in which no handler of
    Python's runs, and Ray puts a handler of its own in the place of ours. Python still writes each
    signal's number to the wakeup descriptor at once. Nothing has to be saved: no trial has begun.
    """
    read, write = os.pipe()
    os.set_blocking(write, False)
    wakeup = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    handlers = {number: signal.signal(number, _leave_to_thread) for number in _ENDING}

    def look() -> None:
        while number := os.read(read, 1):
            if number[0] in _ENDING:
                interrupted(number[0])

    thread = threading.Thread(target=look, name="interrupts", daemon=True)
    thread.start()
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        os.close(write)  # the thread reads the end, and ends
        thread.join()
        os.close(read)


def _leave_to_thread(_number: int, _frame: FrameType | None) -> None:
    """Keep the main thread here while another ends the process: else it starts more servers."""
    while True:
        with contextlib.suppress(BaseException):  # of what is told that a server has died
            time.sleep(60)


@contextmanager
def _watched_start(hang_up: Callable[[str], None]) -> Iterator[None]:
    """Look after Ray's servers while `ray.init` waits for them, a minute if one has died.

    Raises:
        RayDied: A server has died, and the start has not failed by itself.
    """
    over = threading.Event()
    dead = ""

    def died(_number: int, _frame: FrameType | None) -> None:
        if dead and not over.is_set():
            raise RayDied(_ray_died(dead))

    def look() -> None:
        nonlocal dead
        missing, seen = "", dict[int, str]()
        while not missing and not over.wait(_LOOK_AT_START_S):
            there = children(_SERVERS)
            gone = seen | children(_SERVERS, dead=True)  # one may die before it is seen alive
            missing = ", ".join(gone[number] for number in gone.keys() - there - earlier)
            seen |= there
        for _ in range(math.ceil(_GIVES_UP_S / _SAYS_WHY_S)):
            if over.wait(_SAYS_WHY_S):
                return
            dead = missing
            signal.pthread_kill(main, signal.SIGUSR2)
        hang_up(f"{_ray_died(dead)}; the same command goes on")

    main = threading.get_ident()
    earlier = children(_SERVERS, dead=True).keys()  # of a start that failed
    before = signal.signal(signal.SIGUSR2, died)
    try:
        with in_thread("start", look, over):
            yield
    except (KeyboardInterrupt, Exception) as error:  # Ray's C++ only says that it waited in vain
        if dead:
            raise RayDied(_ray_died(dead)) from error
        raise
    finally:
        signal.signal(signal.SIGUSR2, before)


def _end_failed_start(root: Path) -> None:
    """Leave nothing of a Ray that did not start, neither processes nor its state in this one."""
    with contextlib.suppress(Exception):
        ray.shutdown()
    end_marked(root)


def _shut_down() -> None:
    """End Ray; what is left of one whose servers died would wait for them, now and at the exit."""
    if not dead_servers():
        thread = threading.Thread(target=ray.shutdown, daemon=True)
        thread.start()
        thread.join(_SHUT_DOWN_S)
        if not thread.is_alive():
            return
    atexit.unregister(ray.shutdown)
    atexit.register(_exit)


def _exit() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(WorkError.exit_code)


def _dead_soon() -> str:
    """As `dead_servers`; workers may be told of a death a moment before it."""
    for _ in range(10):
        if dead := dead_servers():
            return dead
        time.sleep(0.1)
    return ""


def dead_servers() -> str:
    """Name those of Ray's servers on this machine that have died; empty if none has."""
    node = ray._private.worker._global_node
    if node is None:
        return ""
    dead = [
        name
        for name in _SERVERS
        for info in node.all_processes.get(name, [])
        if info.process.poll() is not None
    ]
    return ", ".join(dead)


@contextmanager
def _watched(searcher: Retrying, limit_s: float, hang_up: Callable[[str], None]) -> Iterator[None]:
    """Look after Ray's servers and the trials from a thread, while Tune has this one.

    Without its servers Ray waits for a minute, mostly where no signal reaches it, and then takes
    the driver down without a word. So the thread itself ends the process if nothing else does.
    """
    over = threading.Event()
    watch = Watch(limit_s)
    main = threading.main_thread()

    def died(_number: int, _frame: FrameType | None) -> None:
        if dead := dead_servers():
            raise RayDied(dead)

    def look() -> None:
        while not over.wait(_LOOK_S):
            if dead := dead_servers():
                for _ in range(_SIGNALS):  # one may be lost in a library's own handling
                    if main.ident is not None:
                        signal.pthread_kill(main.ident, signal.SIGUSR2)
                    if over.wait(_LOOK_S):
                        return
                hang_up(f"{_ray_died(dead)}; the same command goes on")
                return
            for number in watch.silent(searcher.signs()):
                with contextlib.suppress(OSError):
                    searcher.end_hung(number, limit_s)

    before = signal.signal(signal.SIGUSR2, died)
    try:
        with in_thread("watch", look, over):
            yield
    finally:
        signal.signal(signal.SIGUSR2, before)


def run_trials(
    directory: SweepDirectory,
    sweep: SweepFile,
    ledger: Ledger,
    concurrency: int,
    on_change: Callable[[TrialState], None],
    finetune: Finetune | None = None,
    *,
    allows: Callable[[], bool],
    hang_up: Callable[[str], None],
) -> None:
    """Run trials until the study has all it wants; call it inside `cluster`.

    Args:
        directory: The sweep's directory, which workers read and write.
        sweep: The sweep.
        ledger: Its study.
        concurrency: Trials under way at once.
        on_change: Called in this thread with every new state of a trial.
        finetune: Training function of the workers; default: the real one.
        allows: Asked before each trial whether there is disk space for one more.
        hang_up: Ends this process with a line, from any thread, when Ray is gone and Tune hangs.

    Raises:
        Aborted: The record cannot be kept, or Ray cannot go on; the cause is attached.
    """
    gpu = sweep.resources.gpu
    searcher = Retrying(ledger, concurrency, on_change, directory, allows)
    root, working_directory = directory.root, os.getcwd()

    def work(config: dict[str, Any]) -> None:
        def report(said: dict[str, Any]) -> None:
            tune.report({_SAID: json.dumps(said)})

        os.chdir(working_directory)
        run_trial(root, config["trial"], report, finetune)

    directory.drop_ray_files()
    keep_credentials()
    tuner = tune.Tuner(
        tune.with_resources(work, {"cpu": sweep.resources.cpu, "gpu": gpu}),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=Verdicts(searcher),
            num_samples=-1,  # the searcher says when it is enough
            # A GPU's memory is freed for certain only when the process ends.
            reuse_actors=gpu == 0,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(directory.ray),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=0),  # the searcher tries again
        ),
    )
    try:
        with _watched(searcher, sweep.trial_timeout_s, hang_up):
            tuner.fit()
    except KeyboardInterrupt:
        if dead := dead_servers():
            raise Aborted from WorkError(f"{_ray_died(dead)}; the same command goes on")
        raise
    except Exception as error:
        if dead := dead_servers():
            raise Aborted from WorkError(f"{_ray_died(dead)}; the same command goes on")
        raise Aborted from error


def keep_credentials() -> None:
    """Let Tune copy none of the driver's to the workers: Ray's agent writes them to its log."""
    copied = class_cache.ENV_VARS_TO_PROPAGATE
    copied.difference_update([name for name in copied if is_secret(name)])


def _ray_died(dead: str) -> str:
    return f"Ray's {dead} died"


@contextmanager
def _environment(root: Path) -> Iterator[None]:
    """What Ray's processes, and so the workers, inherit; the driver's own is as before."""
    before = dict(os.environ)
    paths = [str(_ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ[MARK] = str(root)
    for name in set(os.environ) - set(for_workers(os.environ)):
        del os.environ[name]
    try:
        yield
    finally:
        _restore(before)


def _restore(environment: Mapping[str, str]) -> None:
    for name in set(os.environ) - set(environment):
        if name not in _ENVIRONMENT:  # Tune reads these in the driver, later
            del os.environ[name]
    os.environ.update(environment)
