"""Our training against stock FunASR's, step by step: with our additions off the two are one.

Stock goes first: its own command with its own data loading, looked at through hooks. Then our loop
trains on the same utterances in stock's batches. Before each forward pass both sides seed torch
with the batch's number, so that their dropout masks are the same; the tiny model's dropout is on.

TOLERANCE holds for float32 and is relative to: the loss; the norm of an update's whole gradient;
and for a weight to 1, so that an update, which moves it by the learning rate of 2.5e-4 to 1e-3, is
equal to half a percent. Relative to the single entry would ask too much: the gradient of a key's
bias, for one, is zero but for rounding. On the machine where this was written gradients and weights
are equal bit for bit, and losses to their last bit or two: ours takes the mean over the target
positions alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from conf.load import STAGES, Config, load_config, stage_config_path
from tests.conftest import BASE
from tests.stocks_way import STOCKS_WAY, PlannedBatches, train_as_planned
from trainer.data.batch import IGNORED_LABEL, Batch
from trainer.data.manifest import read_data_list, read_headers
from trainer.finetune import stock_engine
from trainer.model import stages
from trainer.model.build import Nano, build
from trainer.model.losses import Losses, Objective
from trainer.model.optim import build_optimizer

TOLERANCE = 1e-6

SCENE: Mapping[str, Any] = {
    "dataset_conf.num_workers": 0,
    "dataset_conf.data_split_num": 1,
    "dataset_conf.batch_type": "example",
    "dataset_conf.batch_size": 4,
    "train_conf.accum_grad": 1,
    "train_conf.max_epoch": 1,
    "optim_conf.lr": 1e-3,
    "optim_conf.weight_decay": 0.01,
    "scheduler_conf.warmup_steps": 4,
}

NUM_BATCHES = 4

Tensors = dict[str, torch.Tensor]


@dataclass
class Trace:
    """What a training did, from its first weights on.

    Attributes:
        batches: Keys, features, token ids and labels of each, as the model was given them.
        gradients: Of each update, after clipping; only parameters that have one.
        weights: After each update.
    """

    initial: Tensors = field(default_factory=dict)
    batches: list[tuple[list[str], Tensors]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    gradients: list[Tensors] = field(default_factory=list)
    learning_rates: list[float] = field(default_factory=list)
    weights: list[Tensors] = field(default_factory=list)

    def seed_and_note(self, keys: Sequence[str], tensors: Tensors) -> None:
        torch.manual_seed(len(self.batches))
        copies = {name: tensor.clone() for name, tensor in tensors.items()}
        self.batches.append((list(keys), copies))

    def note_gradients(self, model: torch.nn.Module) -> None:
        self.gradients.append(
            {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        )

    def note_weights(self, model: torch.nn.Module) -> None:
        self.weights.append(weights_of(model))


@dataclass(frozen=True)
class Difference:
    """The largest difference between two traces, relative as the module says."""

    losses: float
    gradients: float
    weights: float


# What is compared


@pytest.mark.parametrize("stage", STAGES)
def test_a_training_is_stocks_step_by_step(stage: str, scene: Callable[..., Config]) -> None:
    config = scene(stage)
    theirs = stocks_trace(config)
    ours = our_trace(config, theirs)
    assert_same_batches(ours, theirs)
    assert_same_updates(ours, theirs, updates=NUM_BATCHES)
    # And it was a training: every kind of trained weight has moved, by more than the tolerance.
    trained = [name for name, tensor in theirs.gradients[-1].items() if tensor.any()]
    moved = [(theirs.weights[-1][n] - theirs.initial[n]).abs().max().item() for n in trained]
    assert min(moved) > 100 * TOLERANCE


@pytest.mark.parametrize("stage", ["8k", "s3"])
def test_accumulated_and_clipped_updates_are_stocks(
    stage: str, scene: Callable[..., Config]
) -> None:
    config = scene(stage, train_conf__accum_grad=2, train_conf__grad_clip=0.1)
    theirs = stocks_trace(config)
    ours = our_trace(config, theirs)
    assert_same_updates(ours, theirs, updates=NUM_BATCHES // 2)
    assert [norm(gradient) for gradient in ours.gradients] == pytest.approx([0.1, 0.1], rel=1e-4)


@pytest.mark.parametrize(
    ("key", "value", "stage"),
    [
        ("ctc_weight", 1.0, "8k"),
        ("specaug", "SpecAugLFR", "8k"),
        ("finetune_conf.zero_padding", True, "8k"),
        ("finetune_conf.decay_norm_and_bias", False, "8k"),
        ("finetune_conf.frozen_dropout", False, "s2"),
        ("frontend_conf.dither", 1.0, "8k"),
        ("train_conf.use_bf16", True, "8k"),
    ],
)
def test_each_addition_shows(
    key: str, value: Any, stage: str, scene: Callable[..., Config], plain: Callable[[str], Trace]
) -> None:
    theirs = plain(stage)
    ours = our_trace(scene(stage).replace({key: value}, "addition"), theirs)
    assert difference(ours, theirs).weights > 10 * TOLERANCE


def test_stocks_prompt_shows_in_the_token_ids(scene: Callable[..., Config]) -> None:
    config = scene("8k", dataset_conf__prompt_classes="MultiContextPrompt")
    theirs = stocks_trace(config)
    ours = our_trace(config, theirs)
    (_, our_batch), (_, their_batch) = ours.batches[0], theirs.batches[0]
    assert torch.equal(our_batch["features"], their_batch["features"])
    assert our_batch["ids"].shape[1] < their_batch["ids"].shape[1]


# The two sides


def stocks_trace(config: Config) -> Trace:
    trace = Trace()

    def note_batch(batch: Mapping[str, Any]) -> None:
        tensors = {
            "features": batch["speech"],
            "ids": batch["input_ids"].clamp(min=0),
            "labels": batch["labels_ids"].masked_fill(batch["labels_ids"] == -1, IGNORED_LABEL),
            "attention": batch["attention_mask"].clamp(min=0),
        }
        trace.seed_and_note([item["key"] for item in batch["item"]], tensors)

    def note_update(update: stock_engine.Update) -> None:
        trace.learning_rates.append(update.learning_rate)
        trace.note_weights(update.model)

    hooks = stock_engine.Hooks(
        built=lambda model: trace.initial.update(weights_of(model)),
        batch=note_batch,
        loss=lambda loss: trace.losses.append(loss.item()),
        gradients=trace.note_gradients,
        update=note_update,
    )
    updates = NUM_BATCHES // config["train_conf.accum_grad"]
    stock_engine.train(stock_engine.arguments(config), max_updates=updates, hooks=hooks)
    return trace


def our_trace(config: Config, theirs: Trace) -> Trace:
    """Our training from stock's first weights, on its batches."""
    nano = build(config)
    stages.apply(nano.model, config)
    # LoRA's adapters begin at random: only with stock's can the two be compared.
    stages.load_trainable_state(nano.model, theirs.initial)
    trace = Trace(initial=weights_of(nano.model))
    optimizer = build_optimizer(nano.model, config)
    optimizer.register_step_pre_hook(lambda *_: trace.note_gradients(nano.model))
    optimizer.register_step_pre_hook(
        lambda *_: trace.learning_rates.append(float(optimizer.param_groups[0]["lr"]))
    )
    optimizer.register_step_post_hook(lambda *_: trace.note_weights(nano.model))
    utterances = read_data_list(config["train_data_set_list"])
    index = {utterance.key: number for number, utterance in enumerate(utterances)}
    plan = PlannedBatches([[[index[key] for key in keys] for keys, _ in theirs.batches]])
    objective = NotingObjective(trace, nano, config)
    train_as_planned(config, nano, objective, optimizer, utterances, plan)
    return trace


class NotingObjective(Objective):
    def __init__(self, trace: Trace, nano: Nano, config: Config) -> None:
        super().__init__(nano.model, config)
        self._trace = trace

    def of_each(self, batch: Batch, parts: Sequence[Batch]) -> list[Losses]:
        tensors = {
            "features": batch.features_BTF,
            "ids": batch.input_ids_BL,
            "labels": batch.labels_BL,
            "attention": batch.attention_mask_BL,
        }
        self._trace.seed_and_note(batch.keys, tensors)
        [losses] = super().of_each(batch, parts)
        self._trace.losses.append(losses.total.item())
        return [losses]


# The comparison


def assert_same_batches(ours: Trace, theirs: Trace) -> None:
    assert len(ours.batches) == len(theirs.batches) == NUM_BATCHES
    for (our_keys, our_batch), (their_keys, their_batch) in zip(
        ours.batches, theirs.batches, strict=True
    ):
        assert our_keys == their_keys
        for name in ("features", "ids", "labels", "attention"):
            assert our_batch[name].tolist() == their_batch[name].tolist(), name
    lengths = [batch["ids"].shape[1] for _, batch in ours.batches]
    assert any((batch["attention"] == 0).any() for _, batch in ours.batches), lengths


def assert_same_updates(ours: Trace, theirs: Trace, updates: int) -> None:
    assert len(ours.weights) == len(theirs.weights) == updates
    assert ours.learning_rates == theirs.learning_rates
    found = difference(ours, theirs)
    assert found.losses <= TOLERANCE
    assert found.gradients <= TOLERANCE
    assert found.weights <= TOLERANCE


def difference(ours: Trace, theirs: Trace) -> Difference:
    losses = [
        abs(our - their) / abs(their) for our, their in zip(ours.losses, theirs.losses, strict=True)
    ]
    gradients = [
        largest(our, their) / norm(their)
        for our, their in zip(ours.gradients, theirs.gradients, strict=True)
    ]
    weights = [largest(our, their) for our, their in zip(ours.weights, theirs.weights, strict=True)]
    return Difference(max(losses), max(gradients), max(weights))


def largest(ours: Tensors, theirs: Tensors) -> float:
    """The largest difference of an entry; infinite where only one side has a tensor."""
    if ours.keys() != theirs.keys():
        return float("inf")
    return max((ours[name] - theirs[name]).abs().max().item() for name in theirs)


def norm(tensors: Tensors) -> float:
    return float(torch.linalg.vector_norm(torch.stack([t.norm() for t in tensors.values()])))


def weights_of(model: torch.nn.Module) -> Tensors:
    return {name: tensor.detach().clone() for name, tensor in model.named_parameters()}


# The scene


@pytest.fixture(scope="module")
def scene(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Config]:
    """Makes the configuration of a stage with our additions off, on lists in stock's form."""
    directory = tmp_path_factory.mktemp("against-stock")
    lists = {}
    for key, split, count in (
        ("train_data_set_list", "train", 4 * NUM_BATCHES),
        ("valid_data_set_list", "valid", 2),
    ):
        utterances = read_data_list(corpus / f"{split}.jsonl")[:count]
        path = directory / f"{split}.jsonl"
        lists[key] = str(
            stock_engine.write_manifest(path, utterances, read_headers(utterances), len)
        )

    def make(stage: str, **changes: Any) -> Config:
        settings = {**STOCKS_WAY, **SCENE, **lists, "output_dir": str(directory / "output")}
        settings |= {name.replace("__", "."): value for name, value in changes.items()}
        return load_config(
            stage_config_path(stage), init_param=BASE / "model.pt", layers=[("test", settings)]
        )

    return make


@pytest.fixture(scope="module")
def plain(scene: Callable[..., Config]) -> Callable[[str], Trace]:
    """Stock's trace of a stage, trained once."""
    made: dict[str, Trace] = {}

    def get(stage: str) -> Trace:
        if stage not in made:
            made[stage] = stocks_trace(scene(stage))
        return made[stage]

    return get
