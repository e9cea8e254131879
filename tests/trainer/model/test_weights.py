"""A run starts from a released model, our checkpoint or stock's; every weight is accounted for."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from conf.errors import ConfigError, DataError
from conf.files import file_sha256
from conf.load import Config, load_config, stage_config_path
from tests.conftest import BASE
from trainer.data.manifest import read_data_list, read_headers
from trainer.finetune import stock_engine
from trainer.model import stages
from trainer.model.build import build
from trainer.model.checkpoint import CheckpointFolder


def _start(stage: str, init_param: Path, model: Path | None = BASE, **settings: Any) -> Config:
    layers = [("test", {key.replace("__", "."): value for key, value in settings.items()})]
    return load_config(stage_config_path(stage), model=model, init_param=init_param, layers=layers)


def _ours(directory: Path, config: Config, base_sha256: str | None = None) -> Path:
    """A checkpoint as a run writes it, of weights that differ from the base's."""
    model = build(config).model
    stages.apply(model, config)
    state = {name: value + 0.5 for name, value in stages.trainable_state(model).items()}
    folder = CheckpointFolder(directory, 1, base_sha256 or file_sha256(BASE / "model.pt"))
    checkpoint = folder.add(3, 0.2)
    folder.write(checkpoint, state)
    return checkpoint.path


@pytest.fixture(scope="module")
def stock_dir(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What FunASR's own training leaves, checkpoints within the epoch among it."""
    directory = tmp_path_factory.mktemp("stock")
    settings: dict[str, Any] = {
        "dataset_conf.batch_type": "example",
        "dataset_conf.batch_size": 2,
        "dataset_conf.num_workers": 0,
        "dataset_conf.data_split_num": 1,
        "train_conf.max_epoch": 1,
        "train_conf.save_checkpoint_interval": 1,
        "train_conf.effective_save_name_excludes": ["llm."],
        "output_dir": str(directory / "exp"),
    }
    for key, split, count in (("train", "train", 4), ("valid", "valid", 2)):
        utterances = list(read_data_list(corpus / f"{split}.jsonl"))[:count]
        path = directory / f"{split}.jsonl"
        stock_engine.write_manifest(path, utterances, read_headers(utterances), len)
        settings[f"{key}_data_set_list"] = str(path)
    config = load_config(
        stage_config_path("8k"), init_param=BASE / "model.pt", layers=[("test", settings)]
    )
    stock_engine.train(stock_engine.arguments(config))
    return directory / "exp"


def test_our_checkpoint_is_filled_from_the_model_directory(tmp_path: Path) -> None:
    path = _ours(tmp_path, _start("s1", BASE / "model.pt"))
    nano = build(_start("s2", path))
    base = torch.load(BASE / "model.pt", weights_only=True)["state_dict"]
    for name, value in nano.model.state_dict().items():
        shift = 0.5 if name.startswith("audio_encoder.") else 0.0
        assert torch.equal(value, base[name] + shift), name
    coverage = nano.coverage
    assert coverage.loaded == coverage.expected
    assert coverage.filled == {**coverage.expected, "audio_encoder": 0}
    assert coverage.sha256 == file_sha256(path)
    assert coverage.base_sha256 == file_sha256(BASE / "model.pt")
    assert f"of these from {BASE / 'model.pt'} ({coverage.base_sha256}): audio_adap" in str(
        coverage
    )


def test_our_lora_checkpoint_goes_on_with_its_adapters(tmp_path: Path) -> None:
    path = _ours(tmp_path, _start("s3", BASE / "model.pt"))
    nano = build(_start("s3", path))
    adapters = [p for name, p in nano.model.named_parameters() if name.endswith(".lora_B")]
    assert all(torch.equal(p, torch.full_like(p, 0.5)) for p in adapters)
    assert nano.coverage.num_lora == 2 * len(adapters)
    with pytest.raises(DataError, match=r"LoRA weights, .*package the run first") as caught:
        build(_start("s2", path))
    assert len(caught.value.problems) == 1
    with pytest.raises(DataError, match=r"lora_A: got \(16, 64\), expected \(4, 64\)"):
        build(_start("s3", path, llm_conf__lora_conf__r=4))
    with pytest.raises(DataError, match=r"k_proj\.lora_A: got .*expected no such adapter"):
        build(_start("s3", path, llm_conf__lora_conf__target_modules=["q_proj"]))


def test_our_checkpoint_of_another_base_is_refused(tmp_path: Path) -> None:
    path = _ours(tmp_path, _start("s1", BASE / "model.pt"), base_sha256="0123456789abcdef")
    with pytest.raises(DataError, match="trained from weights 0123456789ab, expected those of"):
        build(_start("s1", path))


@pytest.mark.parametrize("name", ["model.pt", "model.pt.ep0.1", "model.pt.ep1", "model.pt.avg10"])
def test_a_stock_checkpoint_without_llm_is_filled(stock_dir: Path, name: str) -> None:
    [path] = stock_dir.glob(name.replace("avg10", "avg*"))
    state = torch.load(path, weights_only=True)["state_dict"]
    assert not any(weight.startswith("llm.") for weight in state)
    nano = build(_start("8k", path))
    own = nano.model.state_dict()
    assert all(torch.equal(own[weight], value) for weight, value in state.items())
    assert nano.coverage.filled["llm"] == nano.coverage.expected["llm"]
    assert sum(nano.coverage.filled.values()) == nano.coverage.filled["llm"]
    base = torch.load(BASE / "model.pt", weights_only=True)
    base = base.get("state_dict", base)
    llm = {weight: value for weight, value in base.items() if weight.startswith("llm.")}
    assert llm
    assert all(torch.equal(own[weight], value) for weight, value in llm.items())


def test_only_a_base_with_an_llm_fills_it(stock_dir: Path, tmp_path: Path) -> None:
    """Its own directory holds nothing but such checkpoints; a base may lack weights too."""
    base = tmp_path / "base"
    shutil.copytree(BASE, base)
    shutil.copy(stock_dir / "model.pt", base / "model.pt")
    with pytest.raises(DataError, match=r"llm: got 0 of \d+ weights .*--model DIR") as caught:
        build(_start("8k", base / "model.pt", model=None))
    assert len(caught.value.problems) == 1
    with pytest.raises(DataError, match=r"llm: got 0 of .*nor of that shape in .*base/model\.pt"):
        build(_start("8k", stock_dir / "model.pt.ep1", model=base))


def test_what_stock_does_not_leave_out_is_not_filled(stock_dir: Path, tmp_path: Path) -> None:
    saved = torch.load(stock_dir / "model.pt.ep1", weights_only=True)
    for name in [name for name in saved["state_dict"] if name.startswith("ctc.")]:
        del saved["state_dict"][name]
    torch.save(saved, tmp_path / "model.pt.ep1")
    with pytest.raises(DataError, match=r"ctc: got 0 of 2 weights .*missing ctc\.") as caught:
        build(_start("8k", tmp_path / "model.pt.ep1"))
    assert len(caught.value.problems) == 1


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "epoch": Path("x")}, tmp_path / "model.pt.ep1")
    with pytest.raises(DataError, match="expected a torch checkpoint"):
        build(_start("8k", tmp_path / "model.pt.ep1"))


def test_weights_outside_the_model_directory(tmp_path: Path) -> None:
    """The model directory is the one that --model names, or the run's that wrote the checkpoint;
    a configuration written and read again still knows it."""
    first = _start("s1", BASE / "model.pt", model=None)
    run = tmp_path / "run"
    path = _ours(run / "checkpoints", first)
    with pytest.raises(ConfigError, match=r"it holds no config\.yaml \(--model DIR"):
        _start("s2", path, model=None)
    (run / "config.yaml").write_text(first.to_yaml(), encoding="utf-8")
    config = _start("s2", path, model=None)
    assert config.model_dir == BASE
    assert config == _start("s2", path)
    (tmp_path / "again.yaml").write_text(config.to_yaml(), encoding="utf-8")
    again = load_config(tmp_path / "again.yaml")
    assert (again.model_dir, again.values) == (BASE, config.values)
