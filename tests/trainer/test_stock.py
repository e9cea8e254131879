"""Stock FunASR's own training, on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from conf.load import Config
from trainer import stock
from trainer.manifest import read_data_list, read_headers


@pytest.fixture
def stock_config(tiny_config: Callable[..., Config], tmp_path: Path) -> Config:
    """A short fine-tune whose data are in the form that stock reads."""
    config = tiny_config("8k", dataset_conf__num_workers=0, dataset_conf__data_split_num=1)
    lists: dict[str, Any] = {}
    for key in ("train_data_set_list", "valid_data_set_list"):
        utterances = read_data_list(config[key])
        path = stock.write_manifest(
            tmp_path / f"{key}.jsonl", utterances, read_headers(utterances), len
        )
        assert [item.target for item in read_data_list(path)] == [u.target for u in utterances]
        lists[key] = str(path)
    return config.replace(lists, "test")


def test_stock_trains_on_the_cpu_and_stops_when_told(stock_config: Config) -> None:
    trainer_class = stock.training_module().Trainer
    seen: list[tuple[int, float, float]] = []
    weights: list[torch.Tensor] = []

    def look(update: stock.Update) -> None:
        seen.append((update.number, update.loss, update.learning_rate))
        weights.append(update.model.audio_encoder.after_norm.weight.detach().clone())

    run = stock.train(stock.arguments(stock_config), max_updates=3, hooks=stock.Hooks(update=look))
    assert [number for number, _, _ in seen] == [1, 2, 3]
    assert all(loss > 0 for _, loss, _ in seen)
    # warmuplr with 4 steps: the Noam curve up to lr.
    expected = [1e-3 * step / 4 for step in (1, 2, 3)]
    assert [rate for _, _, rate in seen] == pytest.approx(expected)
    assert not torch.equal(weights[0], weights[-1])
    assert stock.training_module().Trainer is trainer_class
    assert not (Path(stock_config["output_dir"]) / "model.pt").exists()

    source = read_data_list(stock_config["valid_data_set_list"])[0].source
    assert {"text", "ctc_text"} <= set(run.transcribe(source))


def test_stock_repeats_itself(stock_config: Config) -> None:
    def losses() -> list[float]:
        found: list[float] = []
        stock.train(
            stock.arguments(stock_config),
            max_updates=2,
            hooks=stock.Hooks(update=lambda update: found.append(update.loss)),
        )
        return found

    assert losses() == losses()
