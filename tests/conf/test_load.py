"""Layers, references, the weights' directory, fingerprints; and every mistake in one clear line."""

import pickle
from pathlib import Path
from typing import Any

import pytest

from conf.errors import ConfigError
from conf.load import (
    Config,
    is_override,
    load_config,
    parse_overrides,
    read_yaml,
    stage_config_path,
)

pytestmark = pytest.mark.quick

TINY = """\
model: FunASRNano
audio_encoder_conf: {freeze: false, output_size: 64, num_blocks: 2, new_upstream_key: 7}
audio_adaptor_conf: {downsample_rate: 8}
frontend_conf: {fs: 16000, lfr_m: 7, lfr_n: 6}
llm_conf: {init_param_path: LLM, llm_dtype: fp32}
tokenizer_conf: {init_param_path: "${llm_conf.init_param_path}"}
optim_conf: {lr: 1.0}
train_conf: {some_old_key: 1}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A model directory as far as configurations are concerned."""
    directory = tmp_path / "tiny"
    directory.mkdir()
    (directory / "config.yaml").write_text(TINY, encoding="utf-8")
    (directory / "model.pt").write_bytes(b"")
    return directory


def load(directory: Path, text: str, **arguments: Any) -> Config:
    """Load a file `my.yaml` with that text."""
    path = directory / "my.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, **arguments)


def problems(directory: Path, text: str = "", **arguments: Any) -> list[str]:
    """The lines of the error, without the directory."""
    with pytest.raises(ConfigError) as caught:
        load(directory, text, **arguments)
    return [line.replace(f"{directory}/", "") for line in caught.value.problems]


def test_layers_in_order(tmp_path: Path) -> None:
    """Pretrained, file, a sweep's layers, command line: the later wins."""
    text = "optim_conf: {lr: 1e-4, weight_decay: 0.1}\nscheduler_conf: {warmup_steps: 10}\n"
    config = load(
        tmp_path,
        text,
        layers=[("set", {"optim_conf.weight_decay": 0.2, "train_conf": {"max_epoch": 3}})],
        overrides=["++train_conf.max_epoch=4", "--finetune_conf.seed=5"],
    )
    assert config["optim_conf"] == {"lr": 1e-4, "weight_decay": 0.2}
    assert (config["scheduler_conf.warmup_steps"], config["train_conf.max_epoch"]) == (10, 4)
    assert config["dataset_conf.batch_size"] == 6000
    assert config.base["optim_conf"] == {"lr": 5e-6, "weight_decay": 0.0}
    assert config.in_file == {
        "optim_conf.lr",
        "optim_conf.weight_decay",
        "scheduler_conf.warmup_steps",
        "train_conf.max_epoch",
        "finetune_conf.seed",
    }
    assert (config.stage, config.model_dir) == ("custom", None)
    assert config.get("optim_conf.betas") is None
    with pytest.raises(KeyError):
        config["optim_conf.betas"]


def test_architecture_comes_with_the_weights(tiny: Path, tmp_path: Path) -> None:
    """And training does not: neither its learning rate nor what it froze."""
    config = load(tmp_path, "frontend_conf: {dither: 0.0}\n", init_param=tiny / "model.pt")
    assert config["audio_encoder_conf.output_size"] == 64
    assert config["tokenizer_conf.init_param_path"] == "LLM"
    assert config["dataset_conf.audio_adaptor_downsample_rate"] == 8
    assert config["audio_encoder_conf.freeze"] is True
    assert config["optim_conf.lr"] == 5e-6
    assert config.get("audio_encoder_conf.linear_units") is None, "unset: the code's default"
    assert config["audio_encoder_conf.new_upstream_key"] == 7, "the model may read it"
    assert config.get("train_conf.some_old_key") is None
    assert config["init_param"] == str(tiny / "model.pt")
    assert config.model_dir == tiny
    assert config.base["frontend_conf"] == {"fs": 16000, "lfr_m": 7, "lfr_n": 6}


@pytest.mark.parametrize("text", ["", "model: {place}\nhub: hf\n", "init_param: {place}/model.pt"])
def test_three_ways_to_name_the_weights(tiny: Path, tmp_path: Path, text: str) -> None:
    """`--model`, `model:` and `init_param:` give the same configuration."""
    model = None if text else tiny
    config = load(tmp_path, text.replace("{place}", str(tiny)), model=model)
    assert config.model_dir == tiny
    assert config["model"] == "FunASRNano"
    assert config["init_param"] == str(tiny / "model.pt")
    assert config["audio_encoder_conf.num_blocks"] == 2


def test_weights_that_are_not_there(tiny: Path, tmp_path: Path) -> None:
    """A name without a local copy, a missing file, a directory without config.yaml."""
    hub = stage_config_path("8k").with_name("config_8k_telephone_from_hub.yaml")
    line = read_yaml(hub).lines["model"]
    with pytest.raises(ConfigError) as caught:
        load_config(hub)
    assert str(caught.value).startswith(f"{hub}:{line}: model: got FunAudioLLM/Fun-ASR-Nano-2512,")
    assert "modelscope download FunAudioLLM/Fun-ASR-Nano-2512" in str(caught.value)
    assert len(caught.value.problems) == 1
    assert load_config(hub, model=tiny).model_dir == tiny
    assert problems(tmp_path, init_param="none.pt") == [
        "command line: init_param: got none.pt, expected a file of weights such as MODEL/model.pt"
    ]
    (tiny / "config.yaml").unlink()
    [line_] = problems(tmp_path, model=tiny)
    assert line_.endswith("expected a model directory: it holds no config.yaml")


def test_references(tmp_path: Path) -> None:
    """They follow what they refer to, through overrides too, and within text."""
    config = load(tmp_path, "llm_conf: {use_lora: true}\noutput_dir: out/${optim}-${optim_conf.lr}")
    assert config["train_conf.use_lora"] is True
    assert config["output_dir"] == "out/adamw-5e-06"
    assert config.base["train_conf"]["use_lora"] is False
    again = config.replace({"llm_conf.use_lora": False}, "trial 7")
    assert again["train_conf.use_lora"] is False


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    """Each with where, key, what was got and what was expected; the nearest key of an unknown."""
    text = """\
optm_conf:
  lr: 1e-4
audio_encoder_conf:
  freeze: 'yes'
  frezee: true
train_conf: 3
optim_conf:
  lr: high
  weight_decay: -0.1
  betas: [0.9]
specaug: SpecAug
specaug_conf:
  freq_mask_width_range: [15, 0]
dataset_conf:
  batch_size: 10.5
llm_conf:
  load_kwargs: {trust_remote_code: true}
  llm_dtype: ${nowhere}
scheduler_conf:
"""
    assert problems(tmp_path, text, overrides=["warmup=3"]) == [
        "my.yaml:2: optm_conf.lr: got an unknown key, expected a known one"
        " (nearest: optim_conf.lr)",
        "my.yaml:5: audio_encoder_conf.frezee: got an unknown key, expected a known one"
        " (nearest: audio_encoder_conf.freeze)",
        "my.yaml:6: train_conf: got 3, expected a block of keys",
        "my.yaml:17: llm_conf.load_kwargs.trust_remote_code: got true, expected no such key:"
        " no foreign code is run",
        "my.yaml:19: scheduler_conf: got null, expected a block of keys",
        "command line: warmup: got an unknown key, expected a known one"
        " (nearest: scheduler_conf.warmup_steps)",
        "my.yaml:18: llm_conf.llm_dtype: got ${nowhere}, expected a reference to a key that is"
        " set (nowhere is not)",
        "my.yaml:4: audio_encoder_conf.freeze: got 'yes', expected true or false",
        "my.yaml:11: specaug: got SpecAug, expected SpecAugLFR or null",
        "my.yaml:13: specaug_conf.freq_mask_width_range: got [15, 0], expected [low, high] with"
        " 0 <= low <= high",
        "my.yaml:8: optim_conf.lr: got high, expected a number > 0",
        "my.yaml:9: optim_conf.weight_decay: got -0.1, expected a number >= 0",
        "my.yaml:10: optim_conf.betas: got [0.9], expected a list of 2 numbers",
        "my.yaml:15: dataset_conf.batch_size: got 10.5, expected a whole number >= 1",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("trust_remote_code: true", "my.yaml:1: trust_remote_code: got true, expected no such key"),
        ("remote_code: m.py", "my.yaml:1: remote_code: got m.py, expected no such key"),
        ("optim_conf.lr: 1", "my.yaml:1: optim_conf.lr: got a dotted name, expected nested blocks"),
        ("optim_conf: {lr: .nan}", "my.yaml:1: optim_conf.lr: got nan, expected a number > 0"),
        ("optim_conf: {lr: {x: 1}}", "my.yaml:1: optim_conf.lr.x: got an unknown key"),
        ("model: Whisper", "my.yaml:1: model: got Whisper, expected FunASRNano"),
        (
            "optim: ${scheduler}\nscheduler: ${optim}",
            "my.yaml:1: optim: got ${scheduler}, expected a reference that ends at a value,"
            " not in a circle (optim -> scheduler -> optim)",
        ),
        (
            "train_conf:\n  optim_conf:\n    lr: 1",
            "my.yaml:3: train_conf.optim_conf.lr: got an unknown key, expected a known one"
            " (nearest: optim_conf.lr)",
        ),
        ("seed: 1", "my.yaml:1: seed: got an unknown key, expected a known one (nearest: finetune"),
    ],
)
def test_one_mistake(tmp_path: Path, text: str, line: str) -> None:
    """The first line of the error."""
    assert problems(tmp_path, text)[0].startswith(line)


def test_code_beside_the_weights_is_refused(tiny: Path, tmp_path: Path) -> None:
    """Also where the model's own config.yaml asks for it."""
    with (tiny / "config.yaml").open("a", encoding="utf-8") as file:
        file.write("trust_remote_code: true\n")
    assert problems(tmp_path, model=tiny) == [
        "tiny/config.yaml:9: trust_remote_code: got true, expected no such key:"
        " no foreign code is run"
    ]


def test_replace_is_checked(tmp_path: Path) -> None:
    """It makes a new configuration, and the label stands in its messages."""
    config = load(tmp_path, "")
    assert config.replace({"optim_conf.lr": 1e-3}, "trial 7")["optim_conf.lr"] == 1e-3
    assert config["optim_conf.lr"] == 5e-6
    with pytest.raises(ConfigError, match=r"^trial 7: optim_conf.lr: got -1, expected a number"):
        config.replace({"optim_conf.lr": -1}, "trial 7")
    assert pickle.loads(pickle.dumps(config)) == config


def test_fingerprint(tmp_path: Path) -> None:
    """It depends on values alone: not on order, spelling, paths or where a value was said."""
    one = load(tmp_path, "optim_conf:\n  lr: 5e-5\n  weight_decay: 1\ntrain_conf: {max_epoch: 3}\n")
    two = load(
        tmp_path,
        "train_conf: {max_epoch: 3}\noptim_conf: {weight_decay: 1.0, lr: 0.00005}\n"
        "output_dir: elsewhere\ntrain_data_set_list: t.jsonl\n",
    )
    three = load(tmp_path, "optim_conf: {lr: 5e-5}\n", overrides=["train_conf.max_epoch=3"])
    assert one.fingerprint() == two.fingerprint()
    assert one.fingerprint() != three.fingerprint()
    assert three.replace({"optim_conf.weight_decay": 1}, "x").fingerprint() == one.fingerprint()


def test_to_yaml_reads_back(tiny: Path, tmp_path: Path) -> None:
    """As the same configuration, stage and keys unknown to the schema included."""
    config = load_config(stage_config_path("s1"), model=tiny)
    again = load(tmp_path, config.to_yaml(), model=tiny)
    assert (again.values, again.stage) == (config.values, "s1")
    assert again.to_yaml() == config.to_yaml()


def test_parse_overrides() -> None:
    """All spellings; a negative value is a value."""
    arguments = ["--optim_conf.lr", "1e-4", "--a.b=1", "++c=[0,1]", "d=x=y"]
    assert parse_overrides([*arguments, "--audio_encoder_conf.layer", "-1"]) == [
        "optim_conf.lr=1e-4",
        "a.b=1",
        "c=[0,1]",
        "d=x=y",
        "audio_encoder_conf.layer=-1",
    ]


@pytest.mark.parametrize("argument", ["word", "--alone", "=1", "--", "++x"])
def test_overrides_that_are_none(argument: str) -> None:
    """The word itself is shown."""
    with pytest.raises(ConfigError, match=r"^command line: got '.*', expected KEY=VALUE"):
        parse_overrides([argument])


def test_override_with_a_block(tmp_path: Path) -> None:
    """One value per override."""
    assert problems(tmp_path, overrides=["optim_conf={lr: 1}"]) == [
        "command line: optim_conf: got '{lr: 1}', expected one value, not a block"
    ]


def test_unknown_stage() -> None:
    """The known ones are named."""
    with pytest.raises(ConfigError, match=r"^stage: got 's4', expected one of 8k, s1, s2, s3$"):
        stage_config_path("s4")


@pytest.mark.parametrize(
    ("argument", "is_one"),
    [
        ("finetune_conf.max_new_tokens=20", True),
        ("finetune_conf.max_new_token=20", True),  # misspelt: the block's keys are then named
        ("++anything=1", True),
        ("device=cpu", True),
        ("telephone=calls.jsonl", False),
        ("calls.v2=calls.jsonl", False),
        ("device", False),
        ("data/calls.jsonl", False),
    ],
)
def test_an_override_is_told_from_a_named_file(argument: str, is_one: bool) -> None:
    assert is_override(argument) is is_one
