"""What trains at full size, counted without the memory for it."""

from __future__ import annotations

import pytest
import yaml

from conf.effects import PARAMETERS_FILE
from trainer.effects import files
from trainer.effects.parameters import count_parameters


@pytest.mark.quick
def test_parameters_at_full_size_are_those_counted_on_the_meta_device() -> None:
    text = files.parameters_text(count_parameters())
    assert text == PARAMETERS_FILE.read_text(encoding="utf-8")
    modules = yaml.safe_load(text)["stages"]["s3"]
    assert {name: counts["parameters"] for name, counts in modules.items()} == {
        "audio_encoder": 221_136_992,
        "audio_adaptor": 12_604_928,
        "llm": 596_049_920,
        "ctc_decoder": 8_021_632,
        "ctc": 31_044_195,
        "lora": 4_587_520,
    }
