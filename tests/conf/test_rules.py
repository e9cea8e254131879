"""Rules between keys: kept by the shipped configurations, each broken by what it is for."""

from pathlib import Path
from typing import Any

import pytest

from conf.checks import CHECKS
from conf.load import STAGES, Config, load_config, stage_config_path
from conf.rules import RULES, Run, findings, judge, peak_lr, trained, updates

pytestmark = pytest.mark.quick

ENOUGH = Run(frozenset({8000}), batches_per_epoch=5000, longest_utterance=900)


def stage(short: str, **overrides: Any) -> Config:
    """A stage's configuration with other values; `a__b` stands for `a.b`."""
    flat = {key.replace("__", "."): value for key, value in overrides.items()}
    return load_config(stage_config_path(short), layers=[("test", flat)])


@pytest.mark.parametrize("short", STAGES)
def test_shipped_stages_break_no_rule(short: str) -> None:
    """With a corpus large enough for their intervals."""
    assert findings(stage(short), ENOUGH) == ()


def test_each_rule_is_a_check() -> None:
    """Why it matters and how to mend it stands under the same id."""
    assert RULES.keys() <= CHECKS.keys()
    assert {finding.id for finding in judge(stage("8k"))} == set(RULES)


BROKEN: list[tuple[str, dict[str, Any], dict[str, str]]] = [
    (
        "8k",
        {"audio_encoder_conf__freeze": True},
        {"encoder-trains": "error", "text-path": "warning"},
    ),
    ("8k", {"optim_conf__lr": 5e-6}, {"learning-rate": "error"}),
    ("8k", {"optim_conf__lr": 0.1}, {"learning-rate": "error"}),
    ("8k", {"train_conf__use_deepspeed": True}, {"deepspeed-off": "error"}),
    ("8k", {"train_conf__use_ddp": True}, {"deepspeed-off": "error"}),
    ("8k", {"optim_conf__weight_decay": 0.0}, {"weight-decay": "error"}),
    ("8k", {"specaug": None}, {"specaug-on": "error"}),
    ("8k", {"llm_conf__freeze": False}, {"llm-frozen": "error"}),
    ("8k", {"audio_adaptor_conf__freeze": False}, {"adaptor-freeze": "error"}),
    ("8k", {"ctc_decoder_conf__freeze": True}, {"ctc-freeze": "error"}),
    ("8k", {"frontend_conf__fs": 8000}, {"fs-stage": "error"}),
    ("s1", {"frontend_conf__fs": 16000}, {"fs-stage": "error"}),
    (
        "s1",
        {"audio_encoder_conf__freeze": True},
        {"encoder-trains": "error", "trains-something": "error"},
    ),
    (
        "s3",
        {"llm_conf__lora_conf__freeze_lora": True},
        {"lora-freeze": "error", "trains-something": "error"},
    ),
    (
        "s3",
        {"llm_conf__use_lora": False},
        {"lora-freeze": "warning", "trains-something": "error"},
    ),
    ("8k", {"frontend_conf__dither": 1.0}, {"dither": "warning"}),
    (
        "8k",
        {"train_conf__use_bf16": True, "train_conf__use_fp16": True},
        {"precision": "error"},
    ),
    ("8k", {"scheduler_conf__warmup_steps": 200_000}, {"warmup": "warning"}),
    ("8k", {"train_conf__validate_interval": 200_000}, {"intervals": "warning"}),
    ("8k", {"train_conf__save_checkpoint_interval": 200_000}, {"intervals": "warning"}),
    ("8k", {"dataset_conf__batch_size": 800}, {"batch-longest": "warning"}),
]
"""Stages with other values, and the rules that they break with how bad that is."""


@pytest.mark.parametrize(("short", "overrides", "expected"), BROKEN)
def test_broken(short: str, overrides: dict[str, Any], expected: dict[str, str]) -> None:
    """Exactly these rules, and how bad that is."""
    found = findings(stage(short, **overrides), ENOUGH)
    assert {finding.id: finding.severity for finding in found} == expected


def test_the_hub_configuration_trains_ctc_alone() -> None:
    """Which the text that users get never shows."""
    path = stage_config_path("8k").with_name("config_8k_telephone_from_hub.yaml")
    found = findings(load_config(path, find_model=False), ENOUGH)
    assert [finding.id for finding in found] == ["text-path"]


def test_a_file_of_ones_own_inherits_deepspeed(tmp_path: Path) -> None:
    """The finding says from where."""
    path = tmp_path / "my.yaml"
    path.write_text("audio_encoder_conf: {freeze: false}\nfrontend_conf: {dither: 0.0}\n")
    [finding] = findings(load_config(path))
    assert (finding.id, finding.found) == ("deepspeed-off", "true (inherited)")


def test_a_stage_after_another_rate(tmp_path: Path) -> None:
    """Stage 2 from the weights of stage 1, which were trained at 8 kHz."""
    (tmp_path / "config.yaml").write_text(
        "model: FunASRNano\nfrontend_conf: {fs: 8000}\naudio_adaptor_conf: {downsample_rate: 1}\n"
        "llm_conf: {init_param_path: LLM}\n"
    )
    config = load_config(stage_config_path("s2"), model=tmp_path)
    [finding] = findings(config)
    assert (finding.id, finding.severity, finding.found) == ("fs-stage", "error", "16000 Hz")
    assert "8000 Hz (the rate that the weights were trained at)" in finding.expected
    assert findings(config.replace({"frontend_conf.fs": 8000}, "mended")) == ()


@pytest.mark.parametrize(
    ("rates", "status"),
    [({8000}, "passed"), ({16000}, "passed"), ({48000}, "warning"), ({8000, 16000}, "warning")],
)
def test_rate_of_the_data(rates: set[int], status: str) -> None:
    """Lower is upsampled; higher loses its upper band; a mixture is two kinds of features."""
    run = Run(sample_rates_hz=frozenset(rates))
    [finding] = [each for each in judge(stage("8k"), run) if each.id == "fs-data"]
    assert finding.status == status


def test_effective_peak() -> None:
    """The Noam curve, stopped on the way up; accumulation makes updates rarer."""
    assert peak_lr(5e-5, 1000, 400) == pytest.approx(2e-5)
    assert peak_lr(5e-5, 1000, 4000) == 5e-5
    assert updates(stage("s3"), 5) == 3 * 20
    [finding] = [
        each for each in findings(stage("8k"), Run(batches_per_epoch=20)) if each.id == "warmup"
    ]
    assert "peaks at 2e-5" in finding.found
    assert "400 updates" in finding.expected


def test_the_noam_curve_is_funasrs() -> None:
    """Its scheduler, update by update, peaks where the rule says."""
    import torch

    from trainer.funasr_parts import load

    parameter = torch.nn.Parameter(torch.zeros(1))
    for steps in (3, 10, 30):
        optimizer = torch.optim.SGD([parameter], lr=1e-3)
        scheduler = load("funasr.schedulers.warmup_lr").WarmupLR(optimizer, warmup_steps=10)
        rates = []
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        assert max(rates) == pytest.approx(peak_lr(1e-3, 10, steps))


def test_what_a_sweep_searches_is_right() -> None:
    """Its samples are not mistakes."""
    config = stage("8k", optim_conf__lr=1e-7, optim_conf__weight_decay=0.0)
    searched = frozenset({"optim_conf.lr", "optim_conf.weight_decay"})
    assert findings(config, Run(searched=searched)) == ()


def test_trained_parts() -> None:
    """Adapters stand for the LLM."""
    assert trained(stage("8k")) == {"audio_encoder", "ctc_decoder"}
    assert trained(stage("s3")) == {"lora"}
    assert trained(stage("s3", llm_conf__freeze=False)) == {"lora"}
    assert trained(stage("8k", llm_conf__freeze=False)) >= {"llm"}
