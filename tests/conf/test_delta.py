"""Deltas against the released model, and the annotated configuration that trains again."""

import json
from pathlib import Path

import pytest

from conf import effects
from conf.delta import Delta, against, annotate, classify, counts, deltas_json, deltas_markdown
from conf.errors import ConfigError
from conf.load import STAGES, Config, load_config, stage_config_path

pytestmark = pytest.mark.quick


def deltas_of(config: Config) -> dict[str, Delta]:
    """The deltas by key."""
    return {delta.key: delta for delta in classify(config)}


@pytest.fixture
def nothing_proven(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No effects.yaml."""
    monkeypatch.setattr(effects, "EFFECTS_FILE", tmp_path / "none.yaml")


@pytest.mark.usefixtures("nothing_proven")
def test_the_four_changes() -> None:
    """With the reason from the file, and what a left-out key would be in a standalone file."""
    deltas = deltas_of(load_config(stage_config_path("8k")))
    assert deltas["optim_conf.lr"] == Delta(
        "optim_conf.lr", 5e-6, 5e-5, "MODIFIED", "critical", reason="the encoder has far to go"
    )
    assert (deltas["specaug"].base, deltas["specaug"].value) == (None, "SpecAugLFR")
    assert (deltas["specaug"].change, deltas["specaug"].severity) == ("NEW", "important")
    assert deltas["llm_conf.freeze"].change == "ALIGNED"
    assert deltas["audio_encoder_conf.num_blocks"] == Delta(
        "audio_encoder_conf.num_blocks", 50, 50, "OMITTED", "important", note="standalone: 6"
    )
    assert deltas["audio_encoder_conf.dropout_rate"].note == "", "the code's default is the same"
    assert "output_dir" not in deltas, "a place is not a difference"


def test_the_documents_three_critical_changes() -> None:
    """Encoder, learning rate and DeepSpeed: those of the source document, and no others."""
    critical = [
        delta.key
        for delta in classify(load_config(stage_config_path("8k")))
        if delta.is_change and delta.severity == "critical"
    ]
    assert critical == ["audio_encoder_conf.freeze", "train_conf.use_deepspeed", "optim_conf.lr"]


def test_a_key_that_follows_another() -> None:
    """Stage 3 sets llm_conf.use_lora; train_conf.use_lora refers to it."""
    delta = deltas_of(load_config(stage_config_path("s3")))["train_conf.use_lora"]
    assert (delta.change, delta.value, delta.note) == ("MODIFIED", True, "follows another key")


def test_counts_agree_with_the_files() -> None:
    """They are counted, so they cannot drift; the base has none."""
    base = load_config(stage_config_path("8k").with_name("pretrained.yaml"))
    assert counts(classify(base)) == {"critical": 0, "modified": 0, "new": 0}
    config = load_config(stage_config_path("s1"), overrides=["finetune_conf.seed=1"])
    deltas = classify(config)
    assert counts(deltas) == {
        "critical": 5,
        "modified": len([d for d in deltas if d.value != d.base and d.change == "MODIFIED"]),
        "new": len(config.flat().keys() - _flat_base(config)),
    }


def _flat_base(config: Config) -> set[str]:
    from conf.reading import flatten

    return set(flatten(config.base))


@pytest.mark.usefixtures("nothing_proven")
def test_markdown_and_json() -> None:
    """Most severe first; effects are unproven as long as nothing proves them."""
    deltas = classify(load_config(stage_config_path("s2")))
    lines = deltas_markdown(deltas).splitlines()
    assert lines[6].startswith("| `audio_encoder_conf.freeze` |") is False
    assert lines[6] == (
        "| `audio_adaptor_conf.freeze` | `true` | `false` | MODIFIED | critical | unproven"
        " | learns to hand the new encoder's output to the LLM |"
    )
    severities = [line.split(" | ")[4] for line in lines[6:] if "unproven" in line]
    assert severities == sorted(severities, key=["critical", "important", "minor"].index)
    rows = json.loads(deltas_json(deltas))
    assert [row["key"] for row in rows] == [delta.key for delta in deltas]
    assert {row["effect"] for row in rows} == {None}


@pytest.mark.parametrize("short", STAGES)
def test_annotated_configuration_reads_back(short: str, tmp_path: Path) -> None:
    """The whole, with the released value beside each change; the same when annotated again."""
    config = load_config(stage_config_path(short), overrides=["finetune_conf.seed=1"])
    text = annotate(config)
    path = tmp_path / "best_config.yaml"
    path.write_text(text, encoding="utf-8")
    again = load_config(path)
    assert (again.values, again.stage) == (config.values, short)
    assert again.fingerprint() == config.fingerprint()
    assert annotate(again) == text


def test_annotations() -> None:
    """One mark per key."""
    text = annotate(load_config(stage_config_path("8k"), overrides=["finetune_conf.seed=1"]))
    marks = {line.split(":")[0].strip(): line.partition("  # ")[2] for line in text.splitlines()}
    assert marks["lr"] == "[MODIFIED] pretrained: 5e-6"
    assert marks["use_deepspeed"] == "[MODIFIED] pretrained: true"
    assert marks["specaug"] == "[NEW]"
    assert marks["num_blocks"] == "[ALIGNED]"
    assert marks["seed"] == "[MODIFIED] default: 0"
    assert marks["output_dir"] == ""


def test_reason_without_marks_of_ours(tmp_path: Path) -> None:
    """A file that was annotated says its reasons as before; a sampled value has none."""
    path = tmp_path / "my.yaml"
    path.write_text(
        "optim_conf:\n  lr: 1e-4  # mine  # [MODIFIED] pretrained: 5e-6\n"
        "train_conf: {max_epoch: 3}  # [MODIFIED] pretrained: 2\n"
    )
    config = load_config(path)
    assert deltas_of(config)["optim_conf.lr"].reason == "mine"
    assert deltas_of(config)["train_conf.max_epoch"].reason == ""
    sampled = config.replace({"optim_conf.lr": 2e-4}, "trial 7")
    assert deltas_of(sampled)["optim_conf.lr"].reason == ""


def test_against_another_configuration() -> None:
    """What one sets and the other leaves out is a change too, both ways."""
    one, two = (load_config(stage_config_path(short)) for short in ("8k", "s1"))
    deltas = deltas_of(against(two, one))
    assert (deltas["optim_conf.lr"].base, deltas["optim_conf.lr"].value) == (5e-5, 1e-4)
    assert deltas["optim_conf.weight_decay"].change == "ALIGNED"
    plain = load_config(stage_config_path("8k").with_name("pretrained.yaml"))
    gone = deltas_of(against(plain, one))["specaug"]
    assert (gone.base, gone.value, gone.note) == ("SpecAugLFR", None, "not set: the code's default")
    assert gone.is_change


def test_unknown_keys_are_let_through_and_recorded(tmp_path: Path) -> None:
    """The flag lets them through; the result names them, and loads again without the flag."""
    path = tmp_path / "my.yaml"
    path.write_text("audio_encoder_conf: {rope_theta: 1e4}\nnew_block: {a: [1, 2]}\n")
    with pytest.raises(ConfigError, match="rope_theta: got an unknown key"):
        load_config(path)
    config = load_config(path, allow_unknown=True)
    assert config["audio_encoder_conf.rope_theta"] == 1e4
    delta = deltas_of(config)["new_block.a"]
    assert (delta.change, delta.severity, delta.note) == ("NEW", "minor", "not in the schema")
    assert deltas_of(config)["finetune_conf.allow_unknown"].value == [
        "audio_encoder_conf.rope_theta",
        "new_block.a",
    ]
    again = tmp_path / "again.yaml"
    again.write_text(config.to_yaml())
    assert load_config(again).values == config.values
    replaced = config.replace({"optim_conf.lr": 1e-3}, "trial 1")
    assert replaced["new_block.a"] == [1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trust_remote_code: true", "expected no such key"),
        ("optim_conf: {lr: {x: 1}}", "optim_conf.lr.x: got an unknown key"),
        ("optim_conf: 3", "expected a block of keys"),
        ("optim_conf: {lr: high}", "expected a number > 0"),
    ],
)
def test_allow_unknown_allows_nothing_else(tmp_path: Path, text: str, message: str) -> None:
    """Foreign code, wrong nesting and wrong types stay errors."""
    (tmp_path / "my.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / "my.yaml", allow_unknown=True)
