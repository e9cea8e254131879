"""What the untouched base says is decoded once, and never read where anything differs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conf.errors import DataError
from conf.keys import all_keys
from conf.load import Config, load_config
from tests.conftest import BASE, HANG_S
from trainer.data.features import FeatureExtractor
from trainer.data.manifest import Utterance, read_data_list
from trainer.evaluation import evaluate as module
from trainer.evaluation.decode import Hypothesis
from trainer.evaluation.evaluate import Scores, evaluate
from trainer.evaluation.shared_outputs import (
    TRAINING_KEYS,
    TRAINING_ROLES,
    Outputs,
    SharedOutputs,
    output_key,
)
from trainer.finetune.run import finetune
from trainer.model.build import Nano, build, resolved_values
from trainer.model.losses import Objective
from trainer.tracking.event_log import EventLog

Make = Callable[..., Config]


@pytest.fixture(scope="module")
def nano() -> Nano:
    return build(load_config(BASE / "config.yaml", model=BASE))


@pytest.fixture
def utterances(cut: Callable[..., Path]) -> Sequence[Utterance]:
    return list(read_data_list(cut("valid", 4)))


def scored(nano: Nano, items: Sequence[Utterance], **settings: Any) -> Scores:
    return evaluate(nano, items, max_new_tokens=32, batch_size=4, **settings)


def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> Any:
        raise AssertionError("decoded again")

    monkeypatch.setattr(module, "decode", refused)


# The key


@pytest.fixture
def config(tiny_config: Make) -> Config:
    return tiny_config("8k")


def test_all_trials_of_one_frontend_share_whatever_they_train(
    nano: Nano, utterances: Sequence[Utterance], tiny_config: Make
) -> None:
    """The base's own evaluation, too, which has no stage."""
    others = {
        "optim_conf__lr": 3e-4,
        "optim_conf__weight_decay": 0.1,
        "train_conf__max_epoch": 7,
        "train_conf__validate_interval": 5,
        "scheduler_conf__warmup_steps": 9,
        "specaug": None,
        "ctc_weight": 0.2,
        "finetune_conf__seed": 5,
        "finetune_conf__channel": "landline",
    }
    configs = [
        tiny_config("8k"),
        tiny_config("8k", **others),
        tiny_config("s2"),
        tiny_config("s3", llm_conf__lora_conf__r=4),
        load_config(BASE / "config.yaml", model=BASE).replace(
            {"finetune_conf.max_new_tokens": 32}, "test"
        ),
    ]
    assert len({output_key(config, nano, utterances) for config in configs}) == 1
    assert output_key(tiny_config("s1"), nano, utterances) != (
        output_key(configs[0], nano, utterances)
    ), "its features have another rate"


def coverage(nano: Nano, **changes: Any) -> Nano:
    assert nano.coverage is not None
    return replace(nano, coverage=replace(nano.coverage, **changes))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda nano: coverage(nano, sha256="another"), id="weights"),
        pytest.param(lambda nano: coverage(nano, base_sha256="a base"), id="weights filled in"),
        pytest.param(lambda nano: coverage(nano, num_lora=8), id="trained adapters"),
        pytest.param(lambda nano: replace(nano, device=torch.device("meta")), id="device"),
    ],
)
def test_another_model_has_another_key(
    change: Callable[[Nano], Nano], nano: Nano, utterances: Sequence[Utterance], tiny_config: Make
) -> None:
    config = tiny_config("s3")
    assert output_key(config, change(nano), utterances) != output_key(config, nano, utterances)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("finetune_conf__max_new_tokens", 31),
        ("finetune_conf__eval_batch_size", 3),
        ("finetune_conf__zero_padding", False),
        ("frontend_conf__fs", 8000),
        ("frontend_conf__dither", 1.0),
        ("llm_conf__llm_dtype", "bf16"),
        ("audio_encoder_conf__normalize_before", False),
        ("dataset_conf__ctc_tokenizer_conf__num_languages", 3),
        ("enable_tf32", False),
    ],
)
def test_another_setting_has_another_key(
    key: str, value: Any, nano: Nano, utterances: Sequence[Utterance], tiny_config: Make
) -> None:
    other = tiny_config("8k", **{key: value})
    assert output_key(other, nano, utterances) != output_key(tiny_config("8k"), nano, utterances)


def test_how_trained_adapters_add_has_another_key(
    nano: Nano, utterances: Sequence[Utterance], tiny_config: Make
) -> None:
    trained = coverage(nano, num_lora=8)
    one, other = (tiny_config("s3", llm_conf__lora_conf__lora_alpha=n) for n in (16, 32))
    assert output_key(one, trained, utterances) != output_key(other, trained, utterances)
    assert output_key(one, nano, utterances) == output_key(other, nano, utterances)


def test_what_features_are_made_by_has_another_key(
    nano: Nano, utterances: Sequence[Utterance], config: Config
) -> None:
    """The frontend's identity names its files by content, and the libraries by version."""
    values = resolved_values(config)
    extractor = FeatureExtractor(values["frontend"], values["frontend_conf"])
    extractor.identity += " another torch"
    assert output_key(config, replace(nano, extractor=extractor), utterances) != (
        output_key(config, nano, utterances)
    )


def test_another_set_or_recording_has_another_key(
    nano: Nano, utterances: Sequence[Utterance], config: Config, tmp_path: Path
) -> None:
    copied = tmp_path / "a.wav"
    shutil.copy(utterances[0].source, copied)
    moved = [replace(utterances[0], source=copied), *utterances[1:]]
    sets = [utterances, utterances[:3], utterances[::-1], moved]
    found = [output_key(config, nano, items) for items in sets]
    os.utime(copied, ns=(1, 1))
    found.append(output_key(config, nano, moved))
    assert len(set(found)) == 5
    copied.unlink()
    with pytest.raises(DataError, match=r"valid.*:1: source: got "):
        output_key(config, nano, moved)


def test_other_tokenizers_or_threads_have_another_key(
    nano: Nano, utterances: Sequence[Utterance], config: Config, tmp_path: Path
) -> None:
    place = tmp_path / "base"
    shutil.copytree(BASE, place)
    elsewhere = replace(config, model_dir=place)
    found = [output_key(elsewhere, nano, utterances)]
    (place / "Qwen3-tiny" / "tokenizer.json").write_text("{}")
    found.append(output_key(elsewhere, nano, utterances))
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        found.append(output_key(elsewhere, nano, utterances))
    finally:
        torch.set_num_threads(threads)
    assert len(set(found)) == 3


def test_keys_that_are_left_out_are_named(nano: Nano) -> None:
    """A new key of the schema counts; only one of a training role does not."""
    counted = {
        name
        for name, key in all_keys().items()
        if key.role not in TRAINING_ROLES and name not in TRAINING_KEYS
    }
    assert all_keys().keys() >= TRAINING_KEYS
    assert {name for name in counted if all_keys()[name].role in ("ours", "runtime")} >= {
        *("finetune_conf.max_new_tokens", "finetune_conf.eval_batch_size"),
        *("finetune_conf.zero_padding", "enable_tf32", "cudnn_enabled", "cudnn_benchmark"),
    }


# Reading and writing


def test_what_is_read_equals_what_was_decoded(
    nano: Nano,
    utterances: Sequence[Utterance],
    config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Texts first, as the base's own evaluation needs them, and the losses added by a trial."""
    objective = Objective(nano.model, config)
    plain = scored(nano, utterances, objective=objective)
    shared = SharedOutputs(tmp_path / "shared", config)
    texts = scored(nano, utterances, shared=shared)
    assert (texts.utterances, texts.loss) == (plain.utterances, None)
    no_decoding(monkeypatch)
    assert scored(nano, utterances, objective=objective, shared=shared) == plain
    monkeypatch.setattr(module, "_run", None)
    assert scored(nano, utterances, objective=objective, shared=shared) == plain


def test_errors_are_counted_from_the_references_of_now(
    nano: Nano,
    utterances: Sequence[Utterance],
    tiny_config: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the losses, which depend on references and on how they are weighed."""
    config = tiny_config("8k")
    corrected = [replace(utterances[0], target="改正过了"), *utterances[1:]]
    other = tiny_config("8k", ctc_weight=0.1)
    plain = scored(nano, corrected, objective=Objective(nano.model, config), keywords=["正"])
    lighter = scored(nano, utterances, objective=Objective(nano.model, other))
    directory = tmp_path / "shared"
    scored(
        *(nano, utterances),
        objective=Objective(nano.model, config),
        shared=SharedOutputs(directory, config),
    )
    no_decoding(monkeypatch)
    assert plain == scored(
        *(nano, corrected),
        objective=Objective(nano.model, config),
        keywords=["正"],
        shared=SharedOutputs(directory, config),
    )
    assert lighter == scored(
        *(nano, utterances),
        objective=Objective(nano.model, other),
        shared=SharedOutputs(directory, other),
    )
    assert len(list(directory.glob("*.json"))) == 1


def get(
    shared: SharedOutputs, nano: Nano, utterances: Sequence[Utterance], calls: list[str]
) -> Outputs:
    """Outputs of a model that says `done` and notes its calls."""

    def run(texts: bool, loss: bool) -> Outputs:
        calls.append(f"{texts} {loss}")
        return Outputs({u.key: Hypothesis(u.key, "done", "ctc", True) for u in utterances}, 0.5)

    return shared.get(nano, utterances, loss=True, run=run)


def test_of_those_that_come_at_once_one_decodes(
    nano: Nano, utterances: Sequence[Utterance], tiny_config: Make, tmp_path: Path
) -> None:
    shared = SharedOutputs(tmp_path / "shared", tiny_config("8k"))
    calls: list[str] = []
    found: list[Outputs] = []
    threads = [
        threading.Thread(target=lambda: found.append(get(shared, nano, utterances, calls)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG_S)
    assert calls == ["True True"]
    assert found == 8 * [found[0]]


KILLED = """
import sys, time
from pathlib import Path
from conf.files import locked
with locked(Path(sys.argv[1])):
    print("decoding", flush=True)
    time.sleep(1000)
"""


def test_after_a_kill_the_next_one_decodes(
    nano: Nano, utterances: Sequence[Utterance], tiny_config: Make, tmp_path: Path
) -> None:
    config = tiny_config("8k")
    directory = tmp_path / "shared"
    directory.mkdir()
    lock = directory / f"{output_key(config, nano, utterances)}.lock"
    calls: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(lock)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "decoding\n"
        shared = SharedOutputs(directory, config)
        waiting = threading.Thread(target=get, args=(shared, nano, utterances, calls))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        assert calls == []
        holder.kill()
        waiting.join(HANG_S)
    assert calls == ["True True"]


def test_a_damaged_file_counts_as_none(
    nano: Nano, utterances: Sequence[Utterance], tiny_config: Make, tmp_path: Path
) -> None:
    """As a power loss may leave it; or one that was made for other utterances."""
    directory = tmp_path / "shared"
    shared = SharedOutputs(directory, tiny_config("8k"))
    calls: list[str] = []
    first = get(shared, nano, utterances, calls)
    [path] = directory.glob("*.json")
    text = path.read_text()
    damages = ("", text[:40], '{"texts": [], "losses": {}}', '{"texts": [[1, 2, 3, 4, 5]]}', "[]")
    for damage in damages:
        path.write_text(damage)
        assert get(shared, nano, utterances, calls) == first
        assert path.read_text() == text
    assert calls == ["True True"] * (1 + len(damages))


def test_fine_tunes_that_share_have_the_numbers_of_those_that_do_not(
    tiny_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them, the epochs after the shared one too."""
    numbers = []
    decoded: list[int] = []
    decode = module.decode

    def counted(*arguments: Any) -> Iterator[Hypothesis]:
        decoded[-1] += 1
        return decode(*arguments)

    monkeypatch.setattr(module, "decode", counted)
    for name, shared in (("alone", None), ("first", "shared"), ("second", "shared")):
        decoded.append(0)
        config = tiny_config("s3", train=8, output_dir=str(tmp_path / name))
        config = config.replace({"train_conf.max_epoch": 1}, "test")
        seen: list[dict[str, float]] = []
        finetune(
            *(config, EventLog(tmp_path / name)),
            lambda evaluation, seen=seen: seen.append(dict(evaluation.metrics)),
            shared=shared and tmp_path / shared,
        )
        for metrics in seen:
            metrics.pop("train/utterances_per_s", None)
        numbers.append(seen)
    assert numbers[0] == numbers[1] == numbers[2]
    assert decoded[0] == decoded[1] == decoded[2] + 1
    texts = [tmp_path / name / "hypotheses/base/valid.jsonl" for name in ("alone", "second")]
    assert texts[0].read_text() == texts[1].read_text()
