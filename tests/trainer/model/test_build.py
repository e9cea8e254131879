"""The model is FunASR's own, its weights all accounted for, its input that of stock FunASR."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from conf.errors import ConfigError, DataError
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


def _in(dtype: torch.dtype, component: str = "audio_encoder") -> Callable[[Path], None]:
    def edit(base: Path) -> None:
        state = torch.load(base / "model.pt", weights_only=True)["state_dict"]
        cast = {n: v.to(dtype) if n.startswith(component) else v for n, v in state.items()}
        torch.save({"state_dict": cast}, base / "model.pt")

    return edit


def _configured(key: str, value: int) -> Callable[[Path], None]:
    def edit(base: Path) -> None:
        path = base / "config.yaml"
        text = re.sub(rf"\b{key}: \d+", f"{key}: {value}", path.read_text(), count=1)
        path.write_text(text)

    return edit


def _cut_off(base: Path) -> None:
    content = (base / "model.pt").read_bytes()
    (base / "model.pt").write_bytes(content[: len(content) // 2])


BAD_DIRECTORIES: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut off": (
        _cut_off,
        r"model\.pt: got 1,171,849 bytes whose end is missing, expected a torch c",
    ),
    "empty": (lambda base: (base / "model.pt").write_bytes(b""), r"model\.pt: got EOFError, expec"),
    "quantised": (
        _in(torch.int8),
        r"model\.pt: audio_encoder\.\S+: got int8, expected fp32 or bf16",
    ),
    "other width": (
        _configured("output_size", 128),
        r"audio_encoder\.\S+ is \(64,\), by config\.yaml \(128,\)",
    ),
    "fewer layers": (
        _configured("num_blocks", 1),
        r"audio_encoder: got 13 weights of layers that config\.yaml does not count, such as audio",
    ),
    "more layers": (_configured("num_blocks", 3), r"audio_encoder: got 43 of 56 weights .*missing"),
    "odd heads": (
        _configured("attention_heads", 3),
        r"base: FunASR cannot build this model \(AssertionError:\); expected the config\.yaml",
    ),
    "no vocabulary": (
        lambda base: (base / "multilingual.tiktoken").unlink(),
        r"multilingual\.tiktoken: got no such file, expected the CTC vocabulary$",
    ),
}


@pytest.mark.parametrize("case", BAD_DIRECTORIES)
def test_a_directory_that_disagrees_with_itself_is_one_line_each(tmp_path: Path, case: str) -> None:
    edit, said = BAD_DIRECTORIES[case]
    base = tmp_path / "base"
    shutil.copytree(BASE, base)
    edit(base)
    with pytest.raises(DataError, match=said) as refused:
        build(load_config(stage_config_path("s3"), model=base))
    assert all("\n" not in problem for problem in refused.value.problems)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_and_32_bits_in_one_file_are_what_is_released(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    base = tmp_path / "base"
    shutil.copytree(BASE, base)
    _in(dtype)(base)
    nano = build(load_config(stage_config_path("s3"), model=base))
    assert nano.coverage is not None
    assert nano.coverage.loaded == nano.coverage.expected
    assert {p.dtype for p in nano.model.audio_encoder.parameters()} == {torch.float32}


@pytest.mark.parametrize("key", ["llm_conf.llm_dtype", "finetune_conf.lora_dtype"])
def test_an_unknown_precision_is_one_line(tiny_config: Callable[..., Config], key: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key}: got bf61, expected ") as refused:
        tiny_config("s3", **{key.replace(".", "__"): "bf61"})
    assert len(refused.value.problems) == 1


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
    copy = tmp_path / "base"
    shutil.copytree(BASE, copy, ignore=shutil.ignore_patterns("model.pt"))
    return copy
