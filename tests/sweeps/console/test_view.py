"""What the console shows."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from sweeps.console.view import (
    LiveView,
    PlainView,
    Progress,
    chosen,
    describe,
    fitted,
    make_view,
    summary,
    table,
)
from sweeps.trial_state import TrialState

pytestmark = pytest.mark.quick

DONE = TrialState(
    0,
    "8k",
    baseline=True,
    epochs=2,
    values={"optim_conf.lr": 1e-3},
    curve={0: 0.8, 1: 0.4, 2: 0.2},
    outcome="completed",
    objective=0.2,
    started_ms=1_000,
    ended_ms=11_000,
)
PRUNED = TrialState(
    1,
    "s2",
    baseline=False,
    epochs=4,
    values={"optim_conf.lr": 3.4567e-5},
    curve={0: 0.8, 1: 0.7},
    outcome="pruned",
    started_ms=1_000,
    ended_ms=7_000,
)
FAILED = TrialState(
    2, "s3", baseline=False, epochs=4, values={}, outcome="failed", reason="RuntimeError: no"
)
RUNNING = TrialState(3, "s1", baseline=False, epochs=3, values={}, started_ms=11_000)


def progress(*states: TrialState) -> Progress:
    """Four trials, two at a time."""
    return Progress(trials=4, concurrency=2, objective="valid/cer", base=0.8, states=states)


def test_time_left_falls_with_what_runs() -> None:
    assert progress(RUNNING).seconds_left(11_000) is None
    # Mean 8 s; three to go (one of them running since 4 s), two at a time.
    now = progress(DONE, PRUNED, RUNNING)
    assert now.seconds_left(11_000) == pytest.approx((2 * 8) / 2)
    assert now.seconds_left(15_000) == pytest.approx((2 * 8 - 4) / 2)
    repeated = replace(now, repeats=8)
    assert repeated.seconds_left(15_000) == pytest.approx((10 * 8 - 4) / 2)
    assert " left if trials take their mean so far" in summary(repeated)


def test_what_another_trial_has_trained_is_said() -> None:
    went_on = replace(RUNNING, notes={"went_on.from": "calls/0", "went_on.after": "2"})
    said = describe(went_on, progress(went_on))
    assert said == "trial 3 s1 (): started, from trial calls/0 after 2 epochs"
    answered = replace(DONE, notes={"answered.from": "7"})
    said = describe(answered, progress(answered))
    assert "completed, valid/cer 20.0 % (base 80.0 %), answered from trial 7;" in said


def test_plain_lines_say_each_change_once() -> None:
    out = io.StringIO()
    view = make_view(Console(file=out, width=60))
    assert isinstance(view, PlainView)
    view.update(progress(RUNNING))
    view.update(progress(RUNNING))
    view.update(progress(PRUNED, FAILED, RUNNING))
    lines = out.getvalue().splitlines()
    assert lines[0] == "trial 3 s1 (): started"
    assert lines[1].startswith(
        "trial 1 s2 (lr 3.46e-5): pruned, valid/cer 70.0 % (base 80.0 %); 2/4"
    )
    assert "failed, RuntimeError: no" in lines[2]
    assert len(lines) == 3


def test_the_live_view_ends_cleanly_on_a_terminal() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with make_view(console) as view:
        assert isinstance(view, LiveView)
        view.say("starting")
        view.update(progress(DONE, PRUNED, FAILED, RUNNING))


def test_table_and_summary() -> None:
    console = Console(file=io.StringIO(), width=100)
    console.print(table(progress(DONE, PRUNED, RUNNING)))
    out = console.file.getvalue()  # type: ignore[attr-defined]
    assert "8k default" in out
    assert "█▄▂" in out
    assert "3.46e-5" in out
    assert "loading" in out
    text = summary(progress(DONE, PRUNED, FAILED, RUNNING))
    assert text.startswith("3/4 trials · 1 pruned · 1 failed · 1 running")
    assert "best 20.0 % (trial 0, 8k, base 80.0 %)" in text


def test_few_rows_show_the_running_and_the_best() -> None:
    shown = chosen([DONE, PRUNED, FAILED, RUNNING], rows=2)
    assert [state.number for state in shown] == [0, 3]


def test_a_narrow_terminal_does_without_columns() -> None:
    for width, without in ((100, ""), (70, "weight decay"), (55, "to base")):
        console = Console(file=io.StringIO(), width=width)
        values = {"optim_conf.lr": 1e-3, "optim_conf.weight_decay": 0.01}
        drawn = fitted(progress(replace(DONE, values=values), PRUNED), console)
        titles = [str(column.header) for column in drawn.columns]
        assert without not in titles
        assert titles[:3] == ["trial", "stage", "lr"]
        console.print(drawn)
        assert "…" not in console.file.getvalue()  # type: ignore[attr-defined]


def test_cost_is_that_of_trials_and_gpus() -> None:
    at = replace(progress(DONE), trial_hours=1.5, gpus=2.0, note="only 1 GB free")
    assert "cost 1.5 h of trials, 3.0 h of GPUs" in summary(at)
    assert summary(at).endswith("only 1 GB free")
    assert "GPUs" not in summary(replace(at, gpus=0.0))
