"""A rehearsal of the first day at the released model's size, on the CPU, with random weights.

    pytest -m released_size
    RELEASED_SIZE_DIR=models/rehearsal pytest -m released_size    # with one that is there

It needs the extra `rehearsal`, 10 GB of memory and 15 GB of disk space. Stages are trained for one
update each. Everything is done twice: with a directory whose `configuration.json` does not list the
CTC vocabulary, as the released one, and with one that does.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from conf.files import link, write_json
from conf.load import stage_config_path
from tests.conftest import write_cut
from tests.end_to_end.conftest import Workspace
from trainer.demo.released_size import CTC_RANKS, LLM_FOLDER, LLM_RANKS
from trainer.demo.tiny_base import configuration

pytestmark = [pytest.mark.slow, pytest.mark.released_size, pytest.mark.timeout(3600)]

TIMEOUT_S = 3000.0
COUNTS = {"train": 2, "valid": 2, "test": 1}
SETTINGS = {
    "dataset_conf.batch_type": "example",
    "dataset_conf.batch_size": 2,
    "dataset_conf.num_workers": 0,
    "scheduler_conf.warmup_steps": 1,
    "train_conf.accum_grad": 1,
    "train_conf.max_epoch": 1,
    "finetune_conf.max_new_tokens": 6,
}
"""One batch an epoch, so one update; texts end after few tokens, since these never end."""
OVERRIDES = [f"++{key}={value}" for key, value in SETTINGS.items()]
SWEEP = {
    "name": "rehearsal",
    "base": "model",
    "data": {split: f"{split}.jsonl" for split in COUNTS},
    "stages": ["s2", "s3"],
    "set": SETTINGS,
    "space": {"optim_conf.lr": {"low": 5e-5, "high": 1e-4, "log": True}},
    "trials": 2,
    "startup_trials": 2,
    "concurrency": 1,
    "resources": {"cpu": 1, "gpu": 0},
}
FREE_FOR_8K = 14e9


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory as the command makes it, or one that it made before."""
    if given := os.environ.get("RELEASED_SIZE_DIR"):
        return Path(given)
    if CTC_RANKS.path() is None or LLM_RANKS.path() is None:
        pytest.skip("needs openai-whisper and qwen-agent (the extra rehearsal)")
    workspace = Workspace(tmp_path_factory.mktemp("made"))
    workspace.python("-m", "trainer", "demo", "--released-size", "released")
    return workspace.directory / "released"


@pytest.fixture(scope="module", params=[False, True], ids=["unlisted", "listed"])
def rehearsal(
    request: pytest.FixtureRequest,
    made: Path,
    tmp_path_factory: pytest.TempPathFactory,
    corpus: Path,
) -> Iterator[Workspace]:
    """A machine with the model in `model/`, and cuts of the corpus."""
    workspace = Workspace(tmp_path_factory.mktemp("rehearsal"))
    directory = workspace.directory
    for path in made.rglob("*"):
        if path.is_file():
            link(path.resolve(), directory / "model" / path.relative_to(made))
    listed = configuration(LLM_FOLDER, ctc_vocabulary=request.param)
    write_json(directory / "model" / "configuration.json", listed)
    for split, count in COUNTS.items():
        write_cut(corpus, split, count, directory / f"{split}.jsonl")
    (directory / "rehearsal.yaml").write_text(yaml.safe_dump(SWEEP, sort_keys=False), "utf-8")
    yield workspace
    shutil.rmtree(directory)


def _run(workspace: Workspace, *arguments: str) -> str:
    finished = workspace.python("-m", *arguments, timeout_s=TIMEOUT_S)
    return finished.stderr + finished.stdout


def _fine_tune(command: str, stage: str) -> list[str]:
    return [
        *("trainer", command, "--config", str(stage_config_path(stage)), "--model", "model"),
        *("--train_data_set_list", "train.jsonl", "--valid_data_set_list", "valid.jsonl"),
    ]


def _trained(workspace: Workspace, stage: str) -> Path:
    """The run of one update of a stage, trained where it is not there."""
    run = workspace.directory / "outputs" / stage
    if not run.is_dir():
        place = ["--output_dir", f"outputs/{stage}", "--no_mlflow"]
        said = _run(workspace, *_fine_tune("train", stage), *place, *OVERRIDES)
        assert "1 batches an epoch, 1 updates in all" in said
        assert re.search(r"epoch 1: valid/cer \d+\.\d\d %", said), said
    return run


def test_check(rehearsal: Workspace) -> None:
    said = _run(rehearsal, *_fine_tune("check", "s2"), *OVERRIDES)
    assert "audio_encoder 914/914, audio_adaptor 36/36, llm 311/311, ctc_decoder 84/84" in said


def test_evaluate(rehearsal: Workspace) -> None:
    place = ["--data", "valid=valid.jsonl", "--output_dir", "outputs/base"]
    overrides = ["++frontend_conf.dither=0.0", *OVERRIDES[-1:]]
    said = _run(rehearsal, "trainer", "evaluate", "--model", "model", *place, *overrides)
    assert re.search(r"cut at max_new_tokens +2\n", said)
    [path] = (rehearsal.directory / "outputs/base/hypotheses").iterdir()
    assert path.read_text("utf-8").count("喂" * 6) >= COUNTS["valid"]


@pytest.mark.parametrize(("stage", "in_fp32"), [("s2", "audio_adaptor"), ("s3", "")])
def test_a_packaged_update_gives_the_logged_texts_in_stock(
    rehearsal: Workspace, stage: str, in_fp32: str
) -> None:
    run = _trained(rehearsal, stage)
    target = f"packages/{stage}"
    said = _run(rehearsal, "trainer", "package", "--run", str(run), "--output_dir", target)
    assert "stock FunASR gives 2 of 2 logged texts" in said
    _same_layout(rehearsal.directory / target, rehearsal.directory / "model", in_fp32)


def _same_layout(ours: Path, base: Path, trained: str) -> None:
    """Names and shapes are the base's; number formats too, but for what was trained in fp32."""
    mine, theirs = (
        torch.load(place / "model.pt", weights_only=True, mmap=True)["state_dict"]
        for place in (ours, base)
    )
    assert {name: t.shape for name, t in mine.items()} == {n: t.shape for n, t in theirs.items()}
    others = {name.split(".")[0] for name in mine if mine[name].dtype != theirs[name].dtype}
    assert others <= {trained}
    size = (ours / "model.pt").stat().st_size
    assert size == pytest.approx((base / "model.pt").stat().st_size, rel=0.02)


def test_one_update_of_8k(rehearsal: Workspace) -> None:
    free = _available_bytes()
    if free < FREE_FOR_8K:
        pytest.skip(f"needs 14 GB of free memory, got {free / 1e9:.1f}")
    _trained(rehearsal, "8k")


def _available_bytes() -> int:
    found = re.search(r"MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text())
    assert found
    return 1024 * int(found[1])


def test_dry_run(rehearsal: Workspace) -> None:
    said = _run(rehearsal, "sweeps", "run", "rehearsal.yaml", "--dry-run")
    for stage in ("s2", "s3"):
        assert re.search(rf"stage {stage}: memory \d\.\d GB for the longest batch", said), said
    assert "2 trials checked; nothing was started." in said


def test_a_sweep_of_two_trials_is_compared_and_exported(rehearsal: Workspace) -> None:
    said = _run(rehearsal, "sweeps", "run", "rehearsal.yaml")
    assert "Best of 2 trials (2 completed)" in said
    compared = _run(rehearsal, "analysis", "compare", "--sweep", "rehearsal")
    assert re.search(r"\bs2\b.*\bs3\b|\bs3\b.*\bs2\b", compared, re.DOTALL)
    place = ["--output_dir", "exports/rehearsal"]
    exported = _run(rehearsal, "analysis", "export", "--sweep", "rehearsal", *place)
    assert "stock FunASR gives 2 of 2 logged texts" in exported
    assert "MLflow pyfunc" in exported
    model = rehearsal.directory / "exports/rehearsal/model"
    _same_layout(model, rehearsal.directory / "model", "audio_adaptor")
