"""Proven effects as documents and checks read them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from conf import effects
from conf.delta import classify
from conf.errors import ConfigError
from conf.load import load_config, stage_config_path

pytestmark = pytest.mark.quick

TEXT = """\
funasr: "1.4.16"
keys:
  optim_conf.lr:
    stages: {8k: both, s1: both}
    read_by: funasr/train_utils/trainer_ds.py:Trainer
  ctc_weight:
    stages: {8k: here, s1: none}
    note: stored upstream and never read
"""


@pytest.fixture
def proven(replace_effects: Callable[[str], Path]) -> Path:
    """An effects.yaml of two keys."""
    return replace_effects(TEXT)


@pytest.mark.usefixtures("proven")
def test_effects_of_keys() -> None:
    """By stage; a custom stage has what all stages agree on; the rest is unproven."""
    assert effects.effect_of("ctc_weight", "8k") == "here"
    assert effects.effect_of("ctc_weight", "custom") is None
    assert effects.effect_of("optim_conf.lr", "custom") == "both"
    assert effects.effect_of("optim_conf.eps", "8k") is None
    assert effects.funasr_version() == "1.4.16"
    assert effects.load_effects()["optim_conf.lr"].read_by.endswith(":Trainer")
    deltas = {d.key: d.effect for d in classify(load_config(stage_config_path("s1")))}
    assert (deltas["ctc_weight"], deltas["optim_conf.lr"]) == ("none", "both")


@pytest.mark.parametrize("text", ["keys: {a: {stages: {8k: maybe}}}", "- 1", "keys: 3", "a: [", ""])
def test_a_file_that_is_none(proven: Path, text: str) -> None:
    """One line that names it."""
    proven.with_name("other.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"other\.yaml: "):
        effects._effects(proven.with_name("other.yaml"))


def test_parameters(tmp_path: Path) -> None:
    """Counts by stage and module; nothing where nobody counted."""
    path = tmp_path / "parameters.yaml"
    assert effects._parameters(path) == {}
    other = tmp_path / "p.yaml"
    other.write_text("stages: {8k: {ctc: {parameters: 7, trainable: 0}}}")
    assert effects._parameters(other)["8k"]["ctc"] == effects.Parameters(7, 0)
