"""A fine-tune that goes on from a shorter one is the same as one that was trained at once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conf.errors import ConfigError
from conf.load import Config
from tests.trainer.finetune.test_resume import assert_equal, metrics
from trainer.finetune.extend import (
    Finished,
    can_extend,
    equivalence,
    extend_from,
    extended_from,
    has_begun,
    keep_texts,
    read_finished,
    reopen,
)
from trainer.finetune.result import Evaluation
from trainer.finetune.resume import refuse_another_run
from trainer.finetune.run import finetune
from trainer.tracking.event_log import EventLog, read_events


@pytest.fixture
def config(tiny_config: Callable[..., Config]) -> Callable[..., Config]:
    def make(output_dir: Path, epochs: int, **overrides: Any) -> Config:
        return tiny_config(
            "8k",
            output_dir=str(output_dir),
            train_conf__save_checkpoint_interval=2,
            train_conf__max_epoch=epochs,
            train_conf__keep_nbest_models=2,
            train_conf__avg_nbest_model=2,
            train_conf__log_interval=2,
            finetune_conf__max_new_tokens=8,
            finetune_conf__test_data_set_list=str(tiny_config()["valid_data_set_list"]),
            **overrides,
        )

    return make


def train(config: Config) -> list[Evaluation]:
    """Fine-tune as a sweep's worker does; what was evaluated."""
    evaluations: list[Evaluation] = []
    finetune(config, EventLog(Path(config["output_dir"]), resume=True), evaluations.append)
    return evaluations


def texts(directory: Path) -> dict[str, str]:
    """Every set's texts by file."""
    return {
        str(path.relative_to(directory)): path.read_text(encoding="utf-8")
        for path in (directory / "hypotheses").rglob("*.jsonl")
    }


def test_going_on_is_training_at_once(config: Callable[..., Config], tmp_path: Path) -> None:
    """Elsewhere, again from there, and in place: metrics, weights, texts and evaluations."""
    short, longer, anew = tmp_path / "1", tmp_path / "3", tmp_path / "anew"
    train(config(short, 1))
    reopen(short)
    train(config(short, 2))
    before = metrics(short)
    finished = read_finished(short)
    assert finished is not None
    assert finished.epochs == 2
    extend_from(finished, longer, "the shorter one")
    extend_from(finished, longer, "the shorter one")  # as after a crash
    assert extended_from(longer) == ("the shorter one", 2)
    evaluations, expected = train(config(longer, 4)), train(config(anew, 4))
    assert [e.metrics | {"train/utterances_per_s": 0} for e in evaluations] == [
        e.metrics | {"train/utterances_per_s": 0} for e in expected
    ]
    assert_equal(longer, anew)
    assert texts(longer) == texts(anew)
    params = [event["params"] for event in read_events(longer) if "params" in event]
    assert [found["train_conf.max_epoch"] for found in params] == [4]
    # The shorter one is as it was, and the same as one that was trained at once.
    assert metrics(short) == before
    train(config(tmp_path / "2", 2))
    assert_equal(short, tmp_path / "2")
    assert texts(short) == texts(tmp_path / "2")


def test_what_cannot_go_on_is_refused(config: Callable[..., Config], tmp_path: Path) -> None:
    def described(**overrides: Any) -> Config:
        made = config(tmp_path / "run", 2, **overrides)
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / "config.yaml").write_text(made.to_yaml())
        return made

    described()
    refuse_another_run(tmp_path / "run", config(tmp_path / "run", 3))
    assert can_extend(tmp_path / "run", config(tmp_path / "run", 3))
    with pytest.raises(ConfigError, match="max_epoch is 2 there; got 1"):
        refuse_another_run(tmp_path / "run", config(tmp_path / "run", 1))
    with pytest.raises(ConfigError, match=r"optim_conf.lr is 0.001 there; got 0.002"):
        refuse_another_run(tmp_path / "run", config(tmp_path / "run", 3, optim_conf__lr=2e-3))
    stock = described(finetune_conf__engine="stock")
    assert equivalence(stock) is None
    with pytest.raises(ConfigError, match="max_epoch is 2 there; got 3"):
        refuse_another_run(
            tmp_path / "run", config(tmp_path / "run", 3, finetune_conf__engine="stock")
        )


def test_without_its_point_a_run_has_nothing_to_go_on_from(
    config: Callable[..., Config], tmp_path: Path
) -> None:
    train(config(tmp_path / "run", 1))
    assert read_finished(tmp_path / "run") is not None
    [checkpoint] = (tmp_path / "run" / "checkpoints").iterdir()
    checkpoint.rename(tmp_path / "elsewhere")
    assert read_finished(tmp_path / "run") is None
    (tmp_path / "elsewhere").rename(checkpoint)
    assert read_finished(tmp_path / "run") is not None
    shutil.rmtree(tmp_path / "run" / "resume")
    assert read_finished(tmp_path / "run") is None
    assert read_finished(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    "damaged",
    [b"", b'{"from": "1", "ep', b"\xff\x00\x12", b"[]", b"2", b"{}", b'{"from": 1, "epochs": "2"}'],
)
def test_a_damaged_origin_is_named_and_written_again(
    tmp_path: Path, damaged: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    shorter, longer = tmp_path / "shorter", tmp_path / "longer"
    (shorter / "resume").mkdir(parents=True)
    (shorter / "resume" / "update-00000001-x.pt").write_bytes(b"point")
    finished = Finished(shorter, "", 2)
    extend_from(finished, longer, "1")
    (longer / "went_on_from.json").write_bytes(damaged)
    assert extended_from(longer) is None
    said = "is damaged, so this run is put again where a shorter one ended"
    assert [r.getMessage() for r in caplog.records] == [f"{longer / 'went_on_from.json'} {said}"]
    assert not has_begun(longer)  # so a sweep puts it there again
    extend_from(finished, longer, "1")
    assert extended_from(longer) == ("1", 2)


def test_the_best_epochs_texts_are_kept_from_the_end(tmp_path: Path) -> None:
    """What an average's texts replaced is there again; done twice it is still the epoch's."""
    shorter, directory = tmp_path / "shorter", tmp_path / "longer"
    (shorter / "hypotheses" / "base").mkdir(parents=True)
    (shorter / "resume").mkdir()
    (shorter / "resume" / "update-00000001-x.pt").write_bytes(b"point")
    (shorter / "result.json").write_text('{"identity": "", "epochs": 2, "run": {"kept": []}}')
    valid = shorter / "hypotheses" / "valid.jsonl"
    valid.write_text("of the best epoch")
    (shorter / "hypotheses" / "base" / "valid.jsonl").write_text("of the base")
    keep_texts(shorter)
    valid.write_text("of the average")
    keep_texts(shorter)
    finished = read_finished(shorter)
    assert finished is not None
    extend_from(finished, directory, "")
    assert sorted(texts(directory).values()) == ["of the base", "of the best epoch"]
    assert valid.read_text() == "of the average"
    reopen(shorter)
    assert valid.read_text() == "of the best epoch"
