"""Shared real parts: the tiny base, the demonstration's corpus, small cuts of it."""

from __future__ import annotations

import atexit
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from conf.load import Config
    from trainer.finetune.result import Evaluation

ROOT = Path(__file__).parent.parent
BASE = ROOT / "trainer" / "demo" / "base"

# The figures of a trial are those of one CPU thread, as sweeps train it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell's background command ignores Ctrl-C, and so would all processes that tests interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

HANG_S = 900.0
"""What is waited for at most: a guard against hanging, which no busy machine comes near."""

# Hypothesis would fail an example after 200 ms, or one that is drawn slowly: a busy machine does.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")

# Features go to a directory of this session: the user's cache neither fills nor decides a test.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="telesweep-tests-")
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

TINY_SETTINGS: Mapping[str, Any] = {
    "optim_conf.lr": 1e-3,
    "scheduler_conf.warmup_steps": 4,
    "dataset_conf.batch_type": "example",
    "dataset_conf.batch_size": 8,
    "train_conf.max_epoch": 2,
    "finetune_conf.max_new_tokens": 32,
}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With REQUIRE_ALL=1 a skipped test is a failed one."""
    return _required((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a file that skips itself."""
    return _required((yield))


def _required(report: Any) -> Any:
    if report.skipped and os.environ.get("REQUIRE_ALL") == "1":
        report.outcome = "failed"
        report.longrepr = f"skipped with REQUIRE_ALL=1: {report.longrepr}"
    return report


class Interrupted(Exception):
    """Ends a fine-tune between two epochs."""


def interrupt_after_first_epoch(evaluation: Evaluation) -> None:
    """What a fine-tune calls at each evaluation, to be interrupted."""
    if evaluation.epoch == 1:
        raise Interrupted


def until(true: Callable[[], object]) -> None:
    """Wait for something that happens in another process."""
    end = time.monotonic() + HANG_S
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def cpu_s(*command: str, **options: Any) -> float:
    """Run a command to its good end; the seconds of CPU that it took, whoever else wants the CPU.

    Args:
        command: What to run.
        options: As for `subprocess.run`.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, **options)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.fixture(scope="session")
def torch_s() -> float:
    """CPU seconds that loading torch takes here: the measure of what must not need it."""
    return cpu_s(sys.executable, "-c", "import torch")


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The demonstration's corpus, made on first use."""
    from trainer.demo.corpus import ensure

    return ensure(ROOT / "data" / "demo")


def write_cut(corpus: Path, split: str, count: int, path: Path) -> Path:
    """Write a manifest of the first utterances of one of the corpus's sets."""
    lines = (corpus / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()[:count]
    with path.open("w", encoding="utf-8") as file:
        for line in map(json.loads, lines):
            line["source"] = str(corpus / line["source"])
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return path


@pytest.fixture
def cut(corpus: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes a manifest of the first utterances of one of the corpus's sets."""

    def make(split: str, count: int) -> Path:
        return write_cut(corpus, split, count, tmp_path / f"{split}-{count}.jsonl")

    return make


def base_without_ctc(directory: Path) -> Path:
    """Copy the tiny base without its CTC decoder, as one hub's copy of the model has it."""
    import torch

    shutil.copytree(BASE, directory)
    state = torch.load(directory / "model.pt", weights_only=True)
    weights = state.get("state_dict", state)
    for name in [name for name in weights if name.startswith("ctc")]:
        del weights[name]
    torch.save(state, directory / "model.pt")
    return directory


@pytest.fixture
def replace_effects(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Path]:
    """Puts a text in the place of `effects.yaml`, which says what each key does."""
    from conf import effects

    def replace(text: str) -> Path:
        path = tmp_path / "effects.yaml"
        path.write_text(text, encoding="utf-8")
        monkeypatch.setattr(effects, "EFFECTS_FILE", path)
        return path

    return replace


@pytest.fixture
def tiny_config(cut: Callable[..., Path], tmp_path: Path) -> Callable[..., Config]:
    """Makes the configuration of a short fine-tune of the tiny base."""
    from conf.load import load_config, stage_config_path

    def make(stage: str = "8k", train: int = 24, valid: int = 6, **overrides: Any) -> Config:
        settings = {
            **TINY_SETTINGS,
            "train_data_set_list": str(cut("train", train)),
            "valid_data_set_list": str(cut("valid", valid)),
            "output_dir": str(tmp_path / "run"),
            **{key.replace("__", "."): value for key, value in overrides.items()},
        }
        return load_config(
            stage_config_path(stage), init_param=BASE / "model.pt", layers=[("test", settings)]
        )

    return make


@pytest.fixture(scope="module")
def chromium() -> Generator[Browser, None, None]:
    """Debian's browser, without a window."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("needs Debian's chromium (apt-get install chromium)")
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with api.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--enable-unsafe-swiftshader"]
        browser = playwright.chromium.launch(
            executable_path=path, args=arguments, timeout=1000 * HANG_S
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Browser) -> Generator[Callable[..., Page], None, None]:
    """Opens a page of ours from disk; afterwards nothing may have gone wrong or been asked for."""
    faults: list[str] = []
    pages: list[Page] = []

    def make(path: Path, width: int = 1280) -> Page:
        page = chromium.new_page(viewport={"width": width, "height": 900})
        pages.append(page)
        page.set_default_timeout(1000 * HANG_S)
        page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "request",
            lambda r: r.url.startswith(("file:", "data:", "blob:")) or faults.append(r.url),
        )
        page.goto(path.as_uri())
        page.wait_for_selector("body[data-ready=true]")
        return page

    yield make
    for page in pages:
        page.close()
    assert faults == []
