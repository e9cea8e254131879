"""The first day of docs/: its commands, read from the page and run in order on the tiny base.

Both languages have the same commands. A working directory is set up as the page says: the model in
`models/`, the recordings' list beside it. Only paths are exchanged, by the table `EXCHANGED`; the
sweep file in the place of telephone.yaml is that file made small.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from conf.model_dir import RELEASED
from tests.conftest import BASE, ROOT, write_cut
from tests.documents import Page, page_at
from tests.end_to_end.conftest import Workspace, clean_environment
from tests.servers import free_port, serving

PAGES = (page_at("docs/first_day.md"), page_at("docs/zh/first_day.md"))
LOCK = ROOT / "requirements.lock"
MODEL = "models/Fun-ASR-Nano-2512"
EXCHANGED = {"conf/sweep/telephone.yaml": "small.yaml"}
COUNT = 72
"""Recordings on the first day."""
SMALL = {
    "trials": 4,
    "startup_trials": 4,
    "concurrency": 2,
    "resources": {"cpu": 1, "gpu": 0},
    "set": {
        "optim_conf.lr": 1e-3,
        "scheduler_conf.warmup_steps": 4,
        "dataset_conf.batch_type": "example",
        "dataset_conf.batch_size": 8,
        "dataset_conf.num_workers": 0,
        "train_conf.max_epoch": 1,
        "finetune_conf.max_new_tokens": 32,
    },
}
"""What a sweep on two CPU cores takes the place of a night on GPUs with."""


def commands(page: Page) -> dict[str, list[str]]:
    """The page's commands by step."""
    return {name: list(shown.commands) for name, shown in page.steps.items()}


@pytest.mark.quick
def test_both_languages_have_the_same_commands() -> None:
    english, chinese = map(commands, PAGES)
    assert english == chinese
    assert list(english) == [
        *("setup", "model", "data", "check", "forecast", "sweep", "compare", "export", "serve"),
        "train",
    ]


@pytest.fixture(scope="module")
def day(workspace: Workspace, corpus: Path) -> Workspace:
    """A machine on the morning of the first day, its model not yet fetched."""
    directory = workspace.directory
    write_cut(corpus, "train", COUNT, directory / "calls.jsonl")
    write_cut(corpus, "wideband", 8, directory / "wideband.jsonl")
    sweep = yaml.safe_load((ROOT / "conf/sweep/telephone.yaml").read_text(encoding="utf-8")) | SMALL
    # PyYAML reads 5e-5 as text; the ends of the range are the file's all the same.
    sweep["space"]["train_conf.max_epoch"] = {"choices": [1, 2]}
    (directory / "small.yaml").write_text(yaml.safe_dump(sweep, sort_keys=False), encoding="utf-8")
    return workspace


def shows(step: str, output: str) -> None:
    """The page shows, below the commands of a step, what they printed."""
    assert PAGES[0].steps[step].missing(output) is None, output


def run(day: Workspace, command: str, code: int = 0) -> str:
    """Runs a command of the page; returns what it printed."""
    for theirs, ours in EXCHANGED.items():
        command = command.replace(theirs, ours)
    finished = day.run("bash", "-c", command)
    assert finished.returncode == code, f"{command}\n{finished.stdout}{finished.stderr}"[-4000:]
    return finished.stderr + finished.stdout  # in the order of a screen: progress, then results


@pytest.fixture(scope="module")
def said_without_a_model(day: Workspace) -> dict[str, str]:
    """What commands say before the model is fetched; then it is there."""
    page = commands(PAGES[0])
    from_hub = page["train"][0].replace("telephone.yaml --model", "telephone_from_hub.yaml --model")
    by_name = (from_hub.replace(f"--model {MODEL} ", ""), from_hub.replace(MODEL, RELEASED))
    early = (*page["check"], *page["train"], *page["forecast"], *by_name)
    said = {command: run(day, command, code=2) for command in early}
    shutil.copytree(BASE, day.directory / MODEL)
    return said


@pytest.fixture(scope="module")
def prepared(day: Workspace, said_without_a_model: dict[str, str]) -> Workspace:
    """The same machine with model and data."""
    [prepare] = commands(PAGES[0])["data"]
    shows("data", run(day, prepare))
    shutil.move(day.directory / "wideband.jsonl", day.directory / "data/telephone")
    return day


def test_without_a_network_one_line_names_the_pages_first_commands(
    said_without_a_model: dict[str, str],
) -> None:
    fetch = commands(PAGES[0])["model"]
    for said in said_without_a_model.values():
        [line] = [line for line in said.splitlines() if "Fun-ASR-Nano-2512, expected" in line]
        assert all(f"`{command}`" in line for command in fetch), line


@pytest.mark.quick
def test_what_the_set_up_installs_is_what_this_runs_in() -> None:
    """Without a network it cannot be installed once more."""
    assert commands(PAGES[0])["setup"][-1] == "uv pip install -r requirements.lock"
    pinned = re.findall(r"^([\w.-]+)==([^\s;]+)$", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(pinned) > 100
    assert {name: version(name) for name, _ in pinned} == dict(pinned)


def test_the_morning(prepared: Workspace) -> None:
    """Data, checks, the base's scores; one fine-tune."""
    page = commands(PAGES[0])
    for split in ("train", "valid", "test"):
        assert (prepared.directory / f"data/telephone/{split}.jsonl").is_file()
    for report in ("data_report.html", "data_report_zh.html"):
        assert (prepared.directory / "data/telephone" / report).is_file()
    checked, evaluated = (run(prepared, command) for command in page["check"])
    assert "coverage" in checked
    assert "CER %" in evaluated
    shows("check", checked + evaluated)
    shows("train", run(prepared, page["train"][0]))


@pytest.mark.slow
def test_the_afternoon(prepared: Workspace) -> None:
    """The forecast; the sweep, watched; tables, report, the exported model and its scores."""
    page = commands(PAGES[0])
    forecast = run(prepared, page["forecast"][0])
    shows("forecast", forecast)
    assert forecast.count("which fits 24, 40 and 80 GB") == 8, "tiny and full size of four stages"
    assert re.search(r"sweep: 4 trials, \d+ epochs in \d+ s if none is pruned", forecast)
    sweep, status, look = page["sweep"]
    shows("sweep", run(prepared, sweep) + run(prepared, status))
    with _served(prepared, look, "health"):
        pass
    compare, report = page["compare"]
    shows("compare", run(prepared, compare) + run(prepared, report))
    assert (prepared.directory / "reports/calls/report.html").is_file()
    export, evaluate = page["export"]
    shows("export", run(prepared, export) + run(prepared, evaluate))
    serve, ask = page["serve"]
    line = json.loads((prepared.directory / "calls.jsonl").read_text("utf-8").splitlines()[0])
    shutil.copy(line["source"], prepared.directory / "call.wav")
    with _served(prepared, serve, "ping") as port:
        answer = json.loads(run(prepared, ask.replace("5001", str(port))))
    [text] = answer["predictions"]
    assert isinstance(text, str)
    assert text


@contextmanager
def _served(day: Workspace, command: str, alive: str) -> Iterator[int]:
    """Runs a server of the page's on a port of its own; yields that when it answers."""
    port = free_port()
    command = f"{re.sub(' --port [0-9]+', '', command)} --port {port} --workers 1"
    with serving(
        ["bash", "-c", command],
        f"http://127.0.0.1:{port}/{alive}",
        cwd=day.directory,
        env=clean_environment(),
    ):
        yield port
