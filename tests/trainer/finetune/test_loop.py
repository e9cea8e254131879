"""Updates: what one is made from, and when one must not be made."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conf.errors import WorkError
from conf.load import Config
from trainer.data.batch import Batch, collate, make_example
from trainer.data.loader import Loaded
from trainer.data.manifest import read_data_list
from trainer.finetune.loop import Listeners, LoopConf, Trainer
from trainer.finetune.result import Evaluation
from trainer.finetune.run import finetune
from trainer.model import stages
from trainer.model.build import build
from trainer.model.losses import Objective
from trainer.model.optim import build_optimizer, build_scheduler
from trainer.tracking.event_log import EventLog, NullTracker, read_events


class GivenBatches:
    """Loader and sampler of batches that a test has made."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self._batches = batches

    def epoch(self, number: int) -> list[list[int]]:
        return [[index] for index in range(len(self._batches))]

    def batches(self, plan: Sequence[Sequence[int]], epoch: int = 1) -> Iterator[Loaded]:
        for [index] in plan:
            yield Loaded(self._batches[index], ())


Make = Callable[..., tuple[Trainer, Any]]


@pytest.fixture
def batches(tiny_config: Callable[..., Config]) -> Callable[..., list[Batch]]:
    """Batches of so many utterances each, of different lengths."""

    def make(*sizes: int) -> list[Batch]:
        config = tiny_config("8k")
        nano = build(config)
        utterances = iter(read_data_list(config["train_data_set_list"]))
        return [
            collate([make_example(next(utterances), nano.extractor, nano.codec) for _ in range(n)])
            for n in sizes
        ]

    return make


@pytest.fixture
def trainer(tiny_config: Callable[..., Config]) -> Callable[..., Trainer]:
    def make(given: Sequence[Batch], **overrides: Any) -> Trainer:
        config = tiny_config(
            "8k", **{"specaug": None, "train_conf__max_epoch": 1, "optim": "adamw", **overrides}
        )
        nano = build(config)
        stages.apply(nano.model, config)
        for module in nano.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        optimizer = build_optimizer(nano.model, config)
        source: Any = GivenBatches(given)
        return Trainer(
            nano,
            Objective(nano.model, config),
            optimizer,
            build_scheduler(optimizer, config),
            source,
            source,
            LoopConf.of(config),
            Listeners(on_log=lambda step, metrics: None),
        )

    return make


def _gradients(trainer: Trainer) -> list[torch.Tensor]:
    """Of the first update."""
    found: list[torch.Tensor] = []
    model = trainer.nano.model

    def note(*_: Any) -> None:
        found.extend(p.grad.clone() for p in model.parameters() if p.grad is not None)

    trainer._optimizer.register_step_pre_hook(note)
    trainer.train(lambda epoch, summary: None)
    return found


def test_accumulated_batches_are_one_large_batch(
    batches: Callable[..., list[Batch]],
    trainer: Callable[..., Trainer],
) -> None:
    """Batches of 2 and 6 utterances, with unlike numbers of tokens, against one of 8."""
    settings = {"train_conf__grad_clip": 1e9, "model_conf__length_normalized_loss": True}
    small = _gradients(trainer(batches(2, 6), train_conf__accum_grad=2, **settings))
    large = _gradients(trainer(batches(8), **settings))
    assert len(small) == len(large) > 0
    for one, other in zip(small, large, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    equal_shares = _gradients(
        trainer(
            batches(2, 6),
            train_conf__accum_grad=2,
            train_conf__grad_clip=1e9,
            model_conf__length_normalized_loss=False,
        )
    )
    assert any(
        not torch.allclose(one, other, rtol=1e-4, atol=1e-6)
        for one, other in zip(equal_shares, large, strict=True)
    )


@pytest.mark.parametrize("length_normalized", [True, False])
def test_batches_of_an_update_computed_as_one_give_the_same_update(
    batches: Callable[..., list[Batch]],
    trainer: Callable[..., Trainer],
    monkeypatch: pytest.MonkeyPatch,
    length_normalized: bool,
) -> None:
    """Its gradient and the loss of each batch; batches of unlike lengths and numbers."""
    settings = {
        "train_conf__accum_grad": 3,
        "train_conf__grad_clip": 1e9,
        "train_conf__log_interval": 1000,
        "model_conf__length_normalized_loss": length_normalized,
    }
    computed: list[int] = []
    of_each = Objective.of_each

    def noted(self: Objective, batch: Batch, parts: Sequence[Batch]) -> Any:
        computed.append(len(parts))
        return of_each(self, batch, parts)

    monkeypatch.setattr(Objective, "of_each", noted)
    found = []
    for limit in (math.inf, 0.0):
        each = trainer(batches(2, 6, 1), **settings)
        each._joined_limit = limit
        gradients = _gradients(each)
        found.append((gradients, each.state_dict()["since_log"]))
    (joined, losses), (apart, expected) = found
    assert computed == [3, 1, 1, 1]
    # 6e-7 was measured: sums in another order, and rounded once instead of three times.
    assert losses == pytest.approx(expected, rel=1e-6)
    norm = torch.stack([gradient.norm() for gradient in apart]).norm()
    assert max((a - b).abs().max() for a, b in zip(joined, apart, strict=True)) <= 1e-6 * norm


def test_joined_batches_that_do_not_fit_go_one_by_one(
    batches: Callable[..., list[Batch]],
    trainer: Callable[..., Trainer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No GPU here to exhaust: the error is torch's own, in the middle of the backward pass."""
    given = batches(2, 2)
    settings = {"train_conf__accum_grad": 2, "model_conf__length_normalized_loss": True}
    separate = trainer(given, **settings)
    separate._joined_limit = 0.0
    expected = _gradients(separate)
    of_each = Objective.of_each
    computed: list[int] = []

    def fails_after_backward(self: Objective, batch: Batch, parts: Sequence[Batch]) -> Any:
        computed.append(len(parts))
        found = of_each(self, batch, parts)
        if len(batch.keys) > 2:
            found[0].ce.backward(retain_graph=True)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return found

    monkeypatch.setattr(Objective, "of_each", fails_after_backward)
    small = trainer([*given, *given, *batches(1, 1)], **settings)
    found = _gradients(small)
    assert computed == [2, 1, 1, 1, 1, 2], "two utterances at once fit, four do not"
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=False))


def _poisoned(batch: Batch) -> Batch:
    return replace(batch, features_BTF=batch.features_BTF * float("nan"))


def test_a_bad_batch_may_be_left_out_but_not_too_many(
    batches: Callable[..., list[Batch]], trainer: Callable[..., Trainer]
) -> None:
    one, two, three, four = batches(2, 2, 2, 2)
    skipping = trainer([one, _poisoned(two), three], finetune_conf__max_skipped_steps=1)
    skipping.train(lambda epoch, summary: None)
    assert skipping.step == 2
    weights = stages.trainable_state(skipping.nano.model)
    assert all(value.isfinite().all() for value in weights.values())
    without = trainer([one, three], finetune_conf__max_skipped_steps=1)
    without.train(lambda epoch, summary: None)
    for name, value in stages.trainable_state(without.nano.model).items():
        assert torch.equal(value, weights[name])

    bad = [one, _poisoned(two), three, _poisoned(four)]
    with pytest.raises(WorkError, match=r"loss is nan at update 3.*1 such updates were left out"):
        trainer(bad, finetune_conf__max_skipped_steps=1).train(lambda epoch, summary: None)
    with pytest.raises(WorkError, match=f"loss is nan at update 2, in the batch of {two.keys[0]}"):
        trainer(bad).train(lambda epoch, summary: None)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError("no memory")]
)
def test_exhausted_memory_names_the_shape(
    batches: Callable[..., list[Batch]],
    trainer: Callable[..., Trainer],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    """No GPU here to exhaust: the error is torch's own, where it would be raised."""
    exhausted = trainer(batches(3))

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(Objective, "of_each", fail)
    with pytest.raises(
        WorkError, match=r"out of memory at update 1: a batch of 3 utterances, up to \d+ frames"
    ):
        exhausted.train(lambda epoch, summary: None)


def test_validation_between_epochs_is_logged_only(tiny_config: Callable[..., Config]) -> None:
    curves: list[list[Evaluation]] = [[], []]
    for curve, interval in zip(curves, (2, None), strict=True):
        config = tiny_config(
            "8k",
            output_dir=str(Path(tiny_config("8k")["output_dir"]) / str(interval)),
            train_conf__validate_interval=interval,
        )
        finetune(config, EventLog(Path(config["output_dir"])), curve.append)
        steps = [
            event["step"]
            for event in read_events(Path(config["output_dir"]))
            if "valid/cer" in event.get("metrics", {})
        ]
        assert steps == ([0, 2, 3, 4, 6, 7] if interval == 2 else [0, 3, 6, 7])

    def numbers(curve: list[Evaluation]) -> list[dict[str, float]]:
        return [
            {name: v for name, v in e.metrics.items() if name != "train/utterances_per_s"}
            for e in curve
        ]

    assert numbers(curves[0]) == numbers(curves[1])


def test_a_fixed_part_of_the_validation_set_may_choose(tiny_config: Callable[..., Config]) -> None:
    config = tiny_config("8k", valid=6, finetune_conf__valid_subset=2)
    directory = Path(config["output_dir"])
    result = finetune(config, EventLog(directory))
    assert result.objective == result.metrics["valid/cer"]
    lines = (directory / "hypotheses" / "valid.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == 6
    base = (directory / "hypotheses" / "base" / "valid.jsonl").read_text("utf-8").splitlines()
    assert len(base) == 2
    tags = {k: v for event in read_events(directory) for k, v in event.get("tags", {}).items()}
    assert tags["valid.subset"] == "2 of 6"


def test_weights_that_moved_are_logged_by_component(tiny_config: Callable[..., Config]) -> None:
    config = tiny_config("8k")
    result = finetune(config, NullTracker())
    moved = {name for name, value in result.metrics.items() if name.startswith("delta_norm/")}
    assert moved == {f"delta_norm/{c}" for c in ("audio_encoder", "ctc_decoder", "ctc")}
    assert all(0 < result.metrics[name] < 1 for name in moved)
