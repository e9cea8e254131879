"""Stock FunASR's own training, on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from conf.errors import WorkError
from conf.load import Config, load_config, stage_config_path
from trainer.data.manifest import read_data_list, read_headers
from trainer.data.sets import read_data
from trainer.evaluation.evaluate import evaluate
from trainer.finetune import stock_engine
from trainer.finetune.engine import EpochSummary
from trainer.model.build import build
from trainer.model.losses import Objective


@pytest.fixture
def stock_config(tiny_config: Callable[..., Config], tmp_path: Path) -> Config:
    """A short fine-tune whose data are in the form that stock reads."""
    config = tiny_config("8k", dataset_conf__num_workers=0, dataset_conf__data_split_num=1)
    lists: dict[str, Any] = {}
    for key in ("train_data_set_list", "valid_data_set_list"):
        utterances = read_data_list(config[key])
        path = stock_engine.write_manifest(
            tmp_path / f"{key}.jsonl", utterances, read_headers(utterances), len
        )
        assert [item.target for item in read_data_list(path)] == [u.target for u in utterances]
        lists[key] = str(path)
    return config.replace(lists, "test")


@pytest.mark.quick
def test_stock_validates_where_it_saves_instead_of_at_the_ends_of_epochs_alone() -> None:
    """It takes no null, and deletes only checkpoints that it validated."""
    config = load_config(stage_config_path("s3"))
    assert config["train_conf.validate_interval"] is None
    assert stock_engine.stock_interval(config) == {"train_conf.validate_interval": 200}
    asked = config.replace({"train_conf.validate_interval": 50}, "test")
    assert stock_engine.stock_interval(asked) == {}


def test_stock_trains_on_the_cpu_and_stops_when_told(stock_config: Config) -> None:
    trainer_class = stock_engine.training_module().Trainer
    seen: list[tuple[int, float, float]] = []
    weights: list[torch.Tensor] = []

    def look(update: stock_engine.Update) -> None:
        seen.append((update.number, update.loss, update.learning_rate))
        weights.append(update.model.audio_encoder.after_norm.weight.detach().clone())

    run = stock_engine.train(
        stock_engine.arguments(stock_config), max_updates=3, hooks=stock_engine.Hooks(update=look)
    )
    assert [number for number, _, _ in seen] == [1, 2, 3]
    assert all(loss > 0 for _, loss, _ in seen)
    # warmuplr with 4 steps: the Noam curve up to lr.
    expected = [1e-3 * step / 4 for step in (1, 2, 3)]
    assert [rate for _, _, rate in seen] == pytest.approx(expected)
    assert not torch.equal(weights[0], weights[-1])
    assert stock_engine.training_module().Trainer is trainer_class
    assert not (Path(stock_config["output_dir"]) / "model.pt").exists()

    source = read_data_list(stock_config["valid_data_set_list"])[0].source
    assert {"text", "ctc_text"} <= set(run.transcribe(source))


def test_stock_repeats_itself(stock_config: Config) -> None:
    def losses() -> list[float]:
        found: list[float] = []
        stock_engine.train(
            stock_engine.arguments(stock_config),
            max_updates=2,
            hooks=stock_engine.Hooks(update=lambda update: found.append(update.loss)),
        )
        return found

    assert losses() == losses()


# Behind the seam of our own trainer


def engine_of(
    config: Config,
) -> tuple[stock_engine.StockEngine, list[tuple[int, dict[str, float]]]]:
    logged: list[tuple[int, dict[str, float]]] = []
    engine = stock_engine.StockEngine(
        config, build(config), read_data(config), lambda *entry: logged.append(entry)
    )
    return engine, logged


def test_the_engine_trains_as_stock_does_and_is_evaluated_by_us(
    tiny_config: Callable[..., Config], stock_config: Config
) -> None:
    config = tiny_config("8k", dataset_conf__num_workers=0, train_conf__log_interval=2)
    engine, logged = engine_of(config)
    epochs: list[tuple[int, int, EpochSummary]] = []

    def on_epoch(epoch: int, summary: EpochSummary) -> None:
        scores = evaluate(
            engine.nano,
            read_data_list(config["valid_data_set_list"]),
            max_new_tokens=32,
            batch_size=4,
            objective=Objective(engine.nano.model, config),
        )
        assert 0 < scores.cer.rate < 1.5
        torch.rand(3)  # what evaluation draws changes nothing
        epochs.append((epoch, engine.step, summary))

    engine.train(on_epoch)
    assert [(epoch, step) for epoch, step, _ in epochs] == [(1, 3), (2, 6)]
    assert all(0 < s.loss < 10 and s.utterances_per_s > 0 for _, _, s in epochs)
    assert [step for step, _ in logged] == [2, 4, 6]
    assert logged[0][1]["train/lr"] == pytest.approx(1e-3 * 2 / 4)
    assert (Path(config["output_dir"]) / "stock" / "model.pt.ep2").exists()

    plain = stock_engine.train(stock_engine.arguments(stock_config), max_updates=6)
    expected = dict(plain.model.named_parameters())
    for name, parameter in engine.nano.model.named_parameters():
        assert torch.equal(parameter, expected[name]), name


def test_the_engine_names_what_stock_ignores(
    tiny_config: Callable[..., Config], caplog: pytest.LogCaptureFixture
) -> None:
    engine_of(tiny_config("8k"))
    ignored = stock_engine.ignored_keys(tiny_config("8k"))
    assert {"ctc_weight", "specaug", "finetune_conf.decay_norm_and_bias"} <= {*ignored}
    assert "finetune_conf.zero_padding" in ignored
    assert "specaug_conf.time_mask_width_range" in ignored
    assert "finetune_conf.max_new_tokens" not in ignored  # evaluation is ours
    assert len(caplog.records) == 2  # the user is told of these, and of the one manifest
    off = tiny_config(
        "8k",
        ctc_weight=0.0,
        specaug=None,
        finetune_conf__decay_norm_and_bias=True,
        finetune_conf__frozen_dropout=True,
        finetune_conf__zero_padding=False,
    )
    assert stock_engine.ignored_keys(off) == []


def test_the_engine_starts_anew_and_ends_with_what_is_raised(
    tiny_config: Callable[..., Config], caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny_config("8k", dataset_conf__num_workers=0)
    engine, _ = engine_of(config)

    class Pruned(Exception):
        pass

    def prune(epoch: int, _: EpochSummary) -> None:
        assert epoch == 1
        raise Pruned

    with pytest.raises(Pruned):
        engine.train(prune, start_epoch=2)
    assert str(config["output_dir"]) in caplog.messages[-1]  # the user is told what was emptied


def test_what_stock_fails_at_is_one_line(tiny_config: Callable[..., Config]) -> None:
    # Nothing that the LLM's text depends on learns: stock has no gradient to follow.
    config = tiny_config("s2", dataset_conf__num_workers=0, audio_adaptor_conf__freeze=True)
    engine, _ = engine_of(config)
    with pytest.raises(WorkError, match=r"stock FunASR's trainer, update 1: RuntimeError: element"):
        engine.train(lambda *_: None)
