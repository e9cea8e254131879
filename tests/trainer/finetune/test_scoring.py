"""A fine-tune's scores: which sets, with which losses, against which texts of the base."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from conf.load import Config
from trainer.data.sets import read_data
from trainer.finetune.scoring import Scoring
from trainer.model.build import Nano, build
from trainer.model.losses import Objective
from trainer.tracking.event_log import EventLog, read_events


@pytest.fixture
def config(tiny_config: Callable[..., Config], cut: Callable[..., Path]) -> Config:
    return tiny_config(
        "8k",
        train=2,
        valid=4,
        finetune_conf__valid_subset=3,
        finetune_conf__wideband_data_set_list=str(cut("wideband", 2)),
        finetune_conf__test_data_set_list=str(cut("test", 2)),
    )


@pytest.fixture
def scoring(config: Config) -> Callable[[], Scoring]:
    """Makes one, as each process of a run does."""
    nano: Nano = build(config)

    def make() -> Scoring:
        return Scoring(
            config,
            read_data(config),
            EventLog(Path(config["output_dir"]), resume=True),
            lambda: nano,
            lambda: Objective(nano.model, config),
        )

    return make


def test_nothing_is_chosen_by_the_test_set_and_only_validation_has_losses(
    scoring: Callable[[], Scoring],
) -> None:
    found = scoring().sets()
    assert {split: len(scores.utterances) for split, scores in found.items()} == {
        "valid": 3,
        "wideband": 2,
    }
    assert found["valid"].loss is not None
    assert found["wideband"].loss is None


def test_the_base_s_texts_outlast_the_process(scoring: Callable[[], Scoring]) -> None:
    before = scoring()
    first = before.sets()["valid"]
    assert "valid/changed" not in first.metrics("valid")
    before.keep_as_base("valid", first)
    after = scoring()
    after.read_base()
    for each in (before, after):
        assert each.sets()["valid"].metrics("valid")["valid/changed"] == 0.0


def test_texts_are_written_and_logged(scoring: Callable[[], Scoring], config: Config) -> None:
    made = scoring()
    scores = made.sets()["wideband"]
    made.write("wideband", scores)
    directory = Path(config["output_dir"])
    lines = (directory / "hypotheses" / "wideband.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2
    logged = [event["artifact"] for event in read_events(directory) if "artifact" in event]
    assert logged == ["hypotheses/wideband.jsonl"]
