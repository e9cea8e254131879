"""Models of MLflow's registry: what is written, which versions there are, what a failure leaves."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conf.errors import WorkError
from trainer.export import mlflow_model
from trainer.export.mlflow_model import Registered, register, save
from trainer.tracking.mlflow_store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    place = tmp_path_factory.mktemp("store")
    before = Path.cwd()
    os.chdir(place)
    try:
        return Store.open(environment={})
    finally:
        os.chdir(before)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    (directory / "Qwen3-tiny").mkdir(parents=True)
    (directory / "model.pt").write_bytes(b"weights")
    (directory / "Qwen3-tiny" / "config.json").write_text("{}")
    return directory


def client(store: Store) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(store.uri)


def test_what_is_written_is_complete_and_names_no_place(model: Path, tmp_path: Path) -> None:
    served = tmp_path / "served"
    save(model, served)
    code = served / "served_model.py"
    assert code.read_text() == mlflow_model.CODE.read_text()
    assert (served / "artifacts/model/Qwen3-tiny/config.json").read_text() == "{}"
    assert not re.search(r"^\s*(from|import) (conf|trainer|analysis)\b", code.read_text(), re.M)
    requirements = (served / "requirements.txt").read_text().splitlines()
    assert [line.partition("==")[0] for line in requirements] == list(mlflow_model.REQUIREMENTS)
    assert all(re.fullmatch(r"[\w-]+==\d[\w.]*", line) for line in requirements)
    texts = [path.read_text() for path in served.iterdir() if path.is_file()]
    for word in (str(tmp_path), str(Path(mlflow_model.__file__).parent), "http", "index-url"):
        assert not any(word in text for text in texts if text != code.read_text()), word
    example = json.loads((served / "serving_input_example.json").read_text())
    assert example["inputs"]["audio"] == mlflow_model.example()


def test_the_same_files_are_one_version_and_others_the_next(
    store: Store, model: Path, tmp_path: Path
) -> None:
    run_id = store.ensure_run(kind="trial", name="t")
    tags = {"sweep": "demo", "valid/cer": "0.23"}
    save(model, tmp_path / "a")
    first = register(tmp_path / "a", store.uri, "calls", run_id, tags)
    save(model, tmp_path / "b")
    again = register(tmp_path / "b", store.uri, "calls", run_id, tags)
    (model / "model.pt").unlink()  # the saved ones share it
    (model / "model.pt").write_bytes(b"better weights")
    save(model, tmp_path / "c")
    other = register(tmp_path / "c", store.uri, "calls", run_id, tags)
    assert [first, again, other] == [
        Registered("calls", "1", created=True, former=None),
        Registered("calls", "1", created=False, former=None),
        Registered("calls", "2", created=True, former="1"),
    ]
    assert str(again) == "models:/calls@champion is version 1, as before"
    assert str(other) == "models:/calls@champion is version 2, instead of version 1"
    champion = client(store).get_model_version_by_alias("calls", "champion")
    assert (str(champion.version), champion.run_id) == ("2", run_id)
    assert tags.items() <= champion.tags.items()
    outputs = client(store).get_run(run_id).outputs.model_outputs
    assert sum(output.model_id in champion.source for output in outputs) == 1
    assert len(outputs) == 2


def test_a_failure_leaves_the_registry_as_it_was(
    store: Store, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    run_id = store.ensure_run(kind="trial", name="u")
    (model / "model.pt").write_bytes(b"those of nobody else")
    save(model, tmp_path / "served")
    place = Path(client(store).get_run(run_id).info.artifact_uri.removeprefix("file://"))
    models = place.parents[1] / "models"
    before = sorted(models.glob("*"))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", "a/model.pt")

    for step in ("log_model_artifacts", "set_registered_model_alias"):
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, step, full)
            with pytest.raises(
                WorkError, match=r"^MLflow registry sqlite:.*: No space left on dev"
            ):
                register(tmp_path / "served", store.uri, "nobody", run_id, {})
        assert [m.name for m in client(store).search_registered_models("name = 'nobody'")] == []
        assert sorted(models.glob("*")) == before


def test_importing_needs_neither_torch_nor_mlflow() -> None:
    code = (
        "import sys, trainer.export.mlflow_model, trainer.export.verify;"
        "sys.exit(bool({'torch', 'mlflow', 'funasr'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
