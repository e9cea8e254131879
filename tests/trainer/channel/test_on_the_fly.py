"""Training utterances over telephone lines: drawn anew each epoch, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch

from conf.errors import ConfigError
from conf.load import Config
from tests.conftest import Interrupted, interrupt_after_first_epoch
from trainer.channel.codecs import to_pcm
from trainer.channel.noise import OtherSpeakers
from trainer.channel.on_the_fly import OnTheFly, on_the_fly
from trainer.channel.telephone_line import simulate
from trainer.checks.run_checks import run_checks
from trainer.data.audio import read_mono
from trainer.data.batch import Batch
from trainer.data.loader import Loader
from trainer.data.manifest import Manifest, Utterance, read_data_list
from trainer.finetune.result import Evaluation
from trainer.finetune.run import finetune
from trainer.model import stages
from trainer.model.build import Nano, build
from trainer.model.frozen_outputs import example_source, kept_level
from trainer.model.losses import Objective
from trainer.tracking.event_log import NullTracker

PLAN = [[3, 1], [0, 2, 4], [5], [7, 9], [6, 8], [10, 11]]

Prepared = tuple[Nano, Config, Manifest, OnTheFly]


@pytest.fixture
def prepared(tiny_config: Callable[..., Config], cut: Callable[..., Path]) -> Callable[..., Any]:
    def make(stage: str = "8k", **overrides: Any) -> Prepared:
        settings = {
            "train_data_set_list": str(cut("wideband", 12)),
            "finetune_conf__channel": "landline_g711",
            **overrides,
        }
        config = tiny_config(stage, **settings)
        nano = build(config)
        utterances = read_data_list(config["train_data_set_list"])
        augment = on_the_fly(nano, config, utterances)
        assert augment is not None
        return nano, config, utterances, augment

    return make


def loaded(prepared: Prepared, epoch: int, num_workers: int = 0) -> Sequence[Batch]:
    nano, config, utterances, augment = prepared
    load = example_source(nano, config, Objective(nano.model, config), utterances)
    loader = Loader(utterances, load, num_workers, augment=augment)
    batches = [item.batch for item in loader.batches(PLAN, epoch) if item.batch is not None]
    assert len(batches) == len(PLAN)
    return batches


def equal(some: Sequence[Batch], others: Sequence[Batch]) -> list[bool]:
    return [
        torch.equal(one.features_BTF, other.features_BTF)
        for one, other in zip(some, others, strict=True)
    ]


def test_features_are_those_of_a_file_with_the_same_line(
    prepared: Callable[..., Prepared], tmp_path: Path
) -> None:
    nano, _, utterances, augment = prepared()
    utterance = utterances[0]
    example = augment(utterance, 2)
    assert example is not None
    sent, _ = simulate(
        *read_mono(utterance.source),
        seed=0,
        key=f"{utterance.key}:epoch 2",
        ranges=augment.ranges,
        babble=OtherSpeakers(utterances).all_but(utterance),
    )
    path = tmp_path / "sent.wav"
    soundfile.write(path, to_pcm(sent), 8000, subtype="PCM_16")
    offline = Utterance(utterance.key, path, utterance.target, tmp_path, 1)
    assert torch.equal(example.features_TF, nano.extractor(offline))


def test_each_epoch_draws_anew_and_workers_draw_the_same(
    prepared: Callable[..., Prepared],
) -> None:
    made = prepared()
    first = loaded(made, 1)
    assert all(equal(loaded(made, 1), first))
    assert all(equal(loaded(made, 1, num_workers=2), first))
    assert not any(equal(loaded(made, 2), first))
    assert not any(equal(loaded(prepared(finetune_conf__seed=1), 1), first))
    clean = loaded((*made[:3], lambda utterance, epoch: None), 1)  # type: ignore[arg-type]
    for one, other in zip(first, clean, strict=True):
        assert one.num_frames_B.tolist() == other.num_frames_B.tolist()
        assert one.labels_BL.tolist() == other.labels_BL.tolist()


def test_the_share_is_that_of_each_epoch(prepared: Callable[..., Prepared]) -> None:
    _, _, utterances, augment = prepared(finetune_conf__channel_share=0.25)
    chosen = [
        {item.key for item in utterances if augment(item, epoch) is not None} for epoch in range(20)
    ]
    assert sum(map(len, chosen)) / (20 * len(utterances)) == pytest.approx(0.25, abs=0.06)
    assert len(set(map(frozenset, chosen))) > 5


def test_the_caches_of_clean_speech_neither_give_nor_take(
    prepared: Callable[..., Prepared], tmp_path: Path
) -> None:
    store = {"finetune_conf__feature_cache_dir": str(tmp_path / "store")}
    made = prepared(**store)
    nano, _, utterances, augment = made
    sent = loaded(made, 1)
    assert nano.extractor.store is not None
    for utterance in utterances:
        key = nano.extractor.cache_key(utterance)
        assert key is not None
        assert key not in nano.extractor.store
        clean = nano.extractor(utterance)
        assert key in nano.extractor.store
        example = augment(utterance, 1)
        assert example is not None
        assert not torch.equal(example.features_TF, clean)
        assert torch.equal(nano.extractor(utterance), clean)
    assert all(equal(loaded(made, 1), sent))


@pytest.mark.parametrize("stage", ["s2", "s3"])
def test_outputs_of_frozen_parts_are_not_kept(
    prepared: Callable[..., Prepared], stage: str
) -> None:
    nano, config, _, _ = prepared(stage, specaug=None)
    stages.apply(nano.model, config)
    assert kept_level(nano, config, Objective(nano.model, config)) == "features"
    without = config.replace({"finetune_conf.channel": None}, "test")
    assert kept_level(nano, without, Objective(nano.model, without)) != "features"


def test_training_hears_it_evaluation_does_not_and_an_interrupted_run_goes_on_the_same(
    tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    def config(name: str, **overrides: Any) -> Config:
        return tiny_config(
            output_dir=str(tmp_path / name), finetune_conf__max_new_tokens=8, **overrides
        )

    def metrics(result: Any) -> dict[str, float]:
        return {n: v for n, v in result.metrics.items() if n != "train/utterances_per_s"}

    seen: dict[str, list[Evaluation]] = {"clean": [], "lines": []}
    lines = {"finetune_conf__channel": "mixed", "finetune_conf__channel_share": 0.5}
    clean = finetune(config("clean"), NullTracker(), seen["clean"].append)
    whole = finetune(config("lines", **lines), NullTracker(), seen["lines"].append)
    with pytest.raises(Interrupted):
        finetune(config("broken", **lines), NullTracker(), interrupt_after_first_epoch)
    again = finetune(config("broken", **lines), NullTracker())
    assert metrics(again) == metrics(whole)
    assert whole.metrics["train/loss"] != clean.metrics["train/loss"]
    before = [{n: v for n, v in s[0].metrics.items() if "valid" in n} for s in seen.values()]
    assert seen["clean"][0].epoch == 0
    assert before[0] == before[1]


def test_an_edited_channel_is_another_run(
    tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    """It would else go on from the other one's resume point, or not train at all."""
    path = tmp_path / "own.yaml"
    config = tiny_config(train=8, finetune_conf__channel=str(path), finetune_conf__max_new_tokens=8)
    losses = []
    for codec in ("g711_alaw", "g711_alaw", "gsm"):
        path.write_text(f"codecs: [{codec}]\n", encoding="utf-8")
        losses.append(finetune(config, NullTracker()).metrics["train/loss"])
    assert losses[0] == losses[1]
    assert losses[2] != losses[0]


@pytest.mark.quick
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"finetune_conf__channel": "landlin"}, "expected a .yaml file or one of gsm, landline"),
        ({"finetune_conf__engine": "stock"}, "stock FunASR has no such augmentation"),
    ],
)
def test_what_cannot_be_is_refused(
    prepared: Callable[..., Prepared], overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        prepared(**overrides)


@pytest.mark.quick
def test_the_checks_look_at_the_channel(
    tiny_config: Callable[..., Config], cut: Callable[..., Path]
) -> None:
    def found(**overrides: Any) -> dict[str, Any]:
        overrides["train_data_set_list"] = str(cut("wideband", 12))
        results = run_checks(tiny_config(**overrides), parts=["config", "data"])
        return {result.id: result for result in results}

    without, right = found(), found(finetune_conf__channel="gsm")
    wrong = found(finetune_conf__channel="gms")
    assert [each["channel"].status for each in (without, right, wrong)] == [
        *("passed", "passed", "failed")
    ]
    assert "(nearest: gsm)" in wrong["channel"].found
    # Clean speech is what such a run is for.
    assert "train" in without["bandwidth"].found
    assert "which a telephone channel takes away" in right["bandwidth"].found
    assert [each["bandwidth"].status for each in (without, right)] == ["warning", "passed"]
