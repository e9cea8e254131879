"""One short fine-tune, served by MLflow's own server, and trained anew by stock's own command."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import pytest
import soundfile

from tests.conftest import BASE, TINY_SETTINGS, write_cut
from tests.end_to_end.conftest import clean_environment
from tests.servers import free_port, serving

pytestmark = pytest.mark.slow

COUNTS = {"train": 24, "valid": 6}
ON_CPU = """\
#!{python}
import sys
from funasr.bin import train_ds


class OnCpu(train_ds.Trainer):
    device = property(lambda self: "cpu", lambda self, value: None)


train_ds.Trainer = OnCpu
sys.exit(train_ds.main_hydra())
"""
"""FunASR's command as its package installs it, but for the device."""


@dataclass(frozen=True)
class Exported:
    """A fine-tune as an export leaves it, and its logged texts by recording."""

    directory: Path
    texts: dict[Path, str]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Exported:
    from conf.delta import annotate
    from conf.load import load_config, stage_config_path
    from trainer.export.package import package
    from trainer.finetune.run import finetune
    from trainer.tracking.event_log import EventLog

    place = tmp_path_factory.mktemp("exported")
    lists, sources = {}, {}
    for split, count in COUNTS.items():
        path = write_cut(corpus, split, count, place / f"{split}.jsonl")
        for line in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            sources[line["key"]] = Path(line["source"])
        lists[f"{split}_data_set_list"] = str(path)
    settings = {**TINY_SETTINGS, **lists, "output_dir": str(place / "run"), "device": "cpu"}
    # Stage 3: its LoRA is merged, and what it reads is resampled.
    config = load_config(
        stage_config_path("s3"), init_param=BASE / "model.pt", layers=[("test", settings)]
    )
    finetune(config, EventLog(place / "run"), lambda _: None)
    directory = place / "best"
    package(place / "run", directory / "model", stock_dir=directory / "stock")
    text = annotate(config.replace({"output_dir": None}, "export"))
    (directory / "best_config.yaml").write_text(text, encoding="utf-8")
    logged = (place / "run/hypotheses/valid.jsonl").read_text(encoding="utf-8").splitlines()
    texts = {sources[line["key"]]: line["text"] for line in map(json.loads, logged)}
    return Exported(directory, texts)


@pytest.fixture(scope="module")
def server(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `mlflow models serve` on the registered champion."""
    from trainer.export.mlflow_model import register, save
    from trainer.tracking.mlflow_store import Store

    place = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{place / 'mlflow.db'}"
    store = Store.open(environment={"MLFLOW_TRACKING_URI": uri})
    save(exported.directory / "model", exported.directory.parent / "served")
    registered = register(
        exported.directory.parent / "served", uri, "calls", store.ensure_run(kind="t", name="t"), {}
    )
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", registered.uri]
    command += ["--env-manager", "local", "--port", str(port)]
    address = f"http://127.0.0.1:{port}"
    environment = {**clean_environment(), "MLFLOW_TRACKING_URI": uri}
    with serving(command, f"{address}/ping", cwd=place, env=environment):
        yield f"{address}/invocations"


def ask(server: str, body: bytes | dict[str, Any], kind: str = "application/json") -> Any:
    """The server's status and answer."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(server, content, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_base64_and_samples_give_the_logged_texts(exported: Exported, server: str) -> None:
    encoded = [{"audio": base64.b64encode(path.read_bytes()).decode()} for path in exported.texts]
    sampled = []
    for path in exported.texts:
        samples, rate_hz = soundfile.read(path, dtype="float32")
        assert rate_hz == 8000
        sampled.append({"samples": samples.tolist(), "sample_rate_hz": rate_hz})
    expected = 200, {"predictions": list(exported.texts.values())}
    assert ask(server, {"dataframe_records": encoded}) == expected
    assert ask(server, {"dataframe_records": sampled}) == expected
    assert ask(server, {"inputs": encoded[0]})[1]["predictions"] == expected[1]["predictions"][:1]


def test_a_path_is_never_opened(exported: Exported, server: str, tmp_path: Path) -> None:
    wav = next(iter(exported.texts))
    paths = [str(wav), wav.as_uri(), "/etc/passwd", "file:///etc/passwd", "http://127.0.0.1:9/x"]
    said = set(exported.texts.values())
    for path in paths:
        for body in (
            {"dataframe_records": [{"audio": path}]},
            {"dataframe_split": {"columns": ["audio"], "data": [[path]]}},
            {"inputs": {"audio": path}},
            {"inputs": [path]},
            {"instances": [{"audio": path}]},
            {"dataframe_records": [{"audio": {"path": path}}]},
            {"dataframe_records": [{"path": path}]},
        ):
            status, answer = ask(server, body)
            assert status == 400, answer
            assert "stack_trace" not in answer
            assert "predictions" not in answer
            assert not any(text in answer["message"] for text in said if text)
        assert ask(server, f"audio\n{path}\n".encode(), "text/csv")[0] == 400


def test_what_is_missing_is_told(server: str) -> None:
    status, answer = ask(server, {"dataframe_records": [{"samples": [0.0, 0.1, 0.2]}]})
    assert status == 400
    assert "sample_rate_hz: got none, expected the rate of samples" in answer["message"]


def test_stocks_own_command_trains_what_was_exported(exported: Exported, tmp_path: Path) -> None:
    from trainer.data.manifest import read_data_list

    command = tmp_path / "bin" / "funasr-train-ds"
    command.parent.mkdir()
    command.write_text(ON_CPU.format(python=sys.executable))
    command.chmod(0o755)
    moved = tmp_path / "Ann's place" / "best"  # a blank and a quote, and not where it was made
    moved.parent.mkdir()
    shutil.copytree(exported.directory, moved)
    assert len(read_data_list(moved / "stock" / "train.jsonl")) == COUNTS["train"]
    environment = clean_environment()
    environment["PATH"] = f"{command.parent}{os.pathsep}{environment['PATH']}"
    output = tmp_path / "stock's output"
    finished = subprocess.run(
        [str(moved / "train_with_stock.sh"), "++train_conf.max_epoch=1"],
        cwd=tmp_path,
        env={**environment, "OUTPUT_DIR": str(output)},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    import torch

    start = torch.load(BASE / "model.pt", weights_only=True)["state_dict"]
    trained = torch.load(output / "model.pt.ep1", weights_only=False)["state_dict"]
    lora = {name: value for name, value in trained.items() if ".lora_B" in name}
    assert lora
    assert all(value.abs().max() > 0 for value in lora.values())  # zero before the first update
    encoder = [name for name in start if name.startswith("audio_encoder.")]
    assert encoder
    assert all(numpy.array_equal(trained[name], start[name]) for name in encoder)  # frozen
    assert not (tmp_path / "outputs").exists()  # Hydra's, for which nobody asked
