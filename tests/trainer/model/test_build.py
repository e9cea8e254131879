"""The model is FunASR's own, its weights all accounted for, its input that of stock FunASR."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from conf.errors import DataError
from conf.load import Config, load_config, stage_config_path
from tests.conftest import BASE
from trainer.data.manifest import read_data_list
from trainer.funasr_parts import load
from trainer.model.build import build, load_weights


def _edited_base(tmp_path: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    state = torch.load(BASE / "model.pt", weights_only=True)["state_dict"]
    edit(state)
    torch.save({"state_dict": state}, tmp_path / "model.pt")
    return tmp_path / "model.pt"


def test_every_weight_of_the_base_is_loaded(tiny_config: Callable[..., Config]) -> None:
    nano = build(tiny_config())
    assert type(nano.model) is load("funasr.models.fun_asr_nano.model").FunASRNano
    assert nano.coverage is not None
    assert nano.coverage.loaded == nano.coverage.expected
    assert nano.coverage.unused == ()


@pytest.mark.parametrize("component", ["audio_encoder", "audio_adaptor", "llm", "ctc_decoder"])
def test_a_missing_component_stops_the_run(
    tmp_path: Path, tiny_config: Callable[..., Config], component: str
) -> None:
    def drop(state: dict[str, torch.Tensor]) -> None:
        for name in [name for name in state if name.startswith(f"{component}.")]:
            del state[name]

    path = _edited_base(tmp_path, drop)
    model = build(tiny_config()).model
    with pytest.raises(DataError, match=f"{component}: got 0 of"):
        load_weights(model, path)


def test_a_weight_of_another_shape_stops_the_run(
    tmp_path: Path, tiny_config: Callable[..., Config]
) -> None:
    def grow(state: dict[str, torch.Tensor]) -> None:
        state["ctc.ctc_lo.weight"] = torch.zeros(3, 3)

    path = _edited_base(tmp_path, grow)
    with pytest.raises(DataError, match="ctc: got 1 of 2 weights of the right shape"):
        load_weights(build(tiny_config()).model, path)


def test_a_file_that_is_no_checkpoint_is_named(
    tmp_path: Path, tiny_config: Callable[..., Config]
) -> None:
    (tmp_path / "model.pt").write_text("not a checkpoint")
    with pytest.raises(DataError, match=r"model\.pt: got .*expected a torch checkpoint"):
        load_weights(build(tiny_config()).model, tmp_path / "model.pt")


@pytest.mark.parametrize("stage", ["8k", "s1"])
def test_features_are_exactly_stock_funasrs(
    corpus: Path, tiny_config: Callable[..., Config], stage: str
) -> None:
    nano = build(tiny_config(stage))
    stock = load("funasr.utils.load_utils")
    for split in ("valid", "wideband"):
        for utterance in read_data_list(corpus / f"{split}.jsonl")[:5]:
            waveform = stock.load_audio_text_image_video(
                str(utterance.source), fs=nano.extractor.sample_rate_hz
            )
            expected, _ = stock.extract_fbank(waveform, frontend=nano.extractor.frontend)
            assert torch.equal(nano.extractor(utterance), expected[0])


def test_a_model_directory_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"model\.pt"):
        build(load_config(stage_config_path("8k"), model=_without_weights(tmp_path)))


def _without_weights(tmp_path: Path) -> Path:
    import shutil

    copy = tmp_path / "base"
    shutil.copytree(BASE, copy, ignore=shutil.ignore_patterns("model.pt"))
    return copy
