"""A fine-tune in the precision that ships: LLM, encoder and adaptor in 16 bits, CTC in 32."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from conf.load import STAGES, Config, load_config, stage_config_path
from tests.conftest import BASE, TINY_SETTINGS, Interrupted, interrupt_after_first_epoch
from tests.trainer.finetune.test_resume import assert_equal
from trainer.data.manifest import read_data_list
from trainer.evaluation.error_rates import cer, interval, total
from trainer.evaluation.evaluate import evaluate
from trainer.export.package import package
from trainer.export.verify import Verification, verify
from trainer.finetune.run import finetune
from trainer.model.build import build
from trainer.model.checkpoint import load_state
from trainer.tracking.event_log import EventLog

IN_16_BITS = ("audio_encoder.", "audio_adaptor.", "llm.")


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base as the released model comes: its precision, and what it lists of its files."""
    directory = tmp_path_factory.mktemp("shipped") / "base"
    shutil.copytree(BASE, directory)
    state = torch.load(BASE / "model.pt", weights_only=True)["state_dict"]
    torch.save(
        {
            "state_dict": {
                name: value.bfloat16() if name.startswith(IN_16_BITS) else value
                for name, value in state.items()
            }
        },
        directory / "model.pt",
    )
    config = directory / "config.yaml"
    config.write_text(config.read_text().replace("llm_dtype: fp32", "llm_dtype: bf16"))
    description = json.loads((directory / "configuration.json").read_text())
    del description["file_path_metas"]["dataset_conf"]
    (directory / "configuration.json").write_text(json.dumps(description))
    return directory


@pytest.fixture
def config(shipped: Path, cut: Callable[..., Path]) -> Callable[..., Config]:
    def make(stage: str, output_dir: Path) -> Config:
        settings: dict[str, Any] = {
            **TINY_SETTINGS,
            "train_data_set_list": str(cut("train", 16)),
            "valid_data_set_list": str(cut("valid", 6)),
            "output_dir": str(output_dir),
            "train_conf.save_checkpoint_interval": 1,
        }
        made = load_config(stage_config_path(stage), model=shipped, layers=[("test", settings)])
        assert made["llm_conf.llm_dtype"] == "bf16"
        return made

    return make


@pytest.mark.parametrize("stage", STAGES)
def test_a_package_holds_what_trained_as_it_trained_and_the_rest_as_it_was_stored(
    config: Callable[..., Config], shipped: Path, tmp_path: Path, stage: str
) -> None:
    """And a model built from it decodes as the fine-tune did, as far as 16 bits go."""
    run = tmp_path / "run"
    result = finetune(config(stage, run), EventLog(run))
    trained = load_state(run / "checkpoints" / f"{result.checkpoint}.safetensors")
    assert {value.dtype for value in trained.values()} == {torch.float32}
    packaged = torch.load(package(run, tmp_path / "model") / "model.pt")["state_dict"]
    stored = torch.load(shipped / "model.pt")["state_dict"]
    adapted = {f"{n.removesuffix('.lora_A')}.weight" for n in trained if n.endswith(".lora_A")}
    assert packaged.keys() == stored.keys()
    for name, value in packaged.items():
        if name in trained:
            assert torch.equal(value, trained[name])
        elif name in adapted:
            assert value.dtype == torch.bfloat16
        else:
            assert value.dtype == stored[name].dtype
            assert torch.equal(value, stored[name])
    changed = {*trained, *adapted} & {*stored}
    assert any(not torch.equal(packaged[name], stored[name]) for name in changed)

    nano = build(load_config(tmp_path / "model" / "config.yaml", model=tmp_path / "model"))
    logged = [
        json.loads(line) for line in (run / "hypotheses/valid.jsonl").read_text().splitlines()
    ]
    utterances = read_data_list(config(stage, run)["valid_data_set_list"])
    scores = evaluate(nano, utterances, max_new_tokens=32, batch_size=1)
    texts = {scored.key: scored.text for scored in scores.utterances}
    before = [cer(line["reference"], line["text"]) for line in logged]
    cers = [cer(line["reference"], texts[line["key"]]) for line in logged]
    verification = Verification(
        "ours",
        len(logged),
        sum(texts[line["key"]] == line["text"] for line in logged),
        total(cers).rate,
        total(before).rate,
        "bf16",
        interval(cers),
        interval(before),
    )
    assert verification.passed, verification


@pytest.mark.slow
def test_stock_loads_a_package_of_what_ships_and_gives_its_cer(
    config: Callable[..., Config], tmp_path: Path
) -> None:
    """The base's configuration.json does not list the vocabulary, as the released one."""
    run, results = tmp_path / "run", list[Verification]()
    finetune(config("s3", run), EventLog(run))
    package(run, tmp_path / "model", check=lambda model: results.extend(verify(model, run)))
    [result] = results
    assert (result.llm_dtype, result.utterances, result.passed) == ("bf16", 6, True)
    print(result)


@pytest.mark.parametrize("stage", ["8k", "s3"])
def test_an_interrupted_fine_tune_ends_as_an_unbroken_one(
    config: Callable[..., Config], tmp_path: Path, stage: str
) -> None:
    finetune(config(stage, tmp_path / "unbroken"), EventLog(tmp_path / "unbroken"))
    broken = config(stage, tmp_path / "broken")
    with pytest.raises(Interrupted):
        finetune(broken, EventLog(tmp_path / "broken"), interrupt_after_first_epoch)
    finetune(broken, EventLog(tmp_path / "broken", resume=True))
    assert_equal(tmp_path / "unbroken", tmp_path / "broken")
