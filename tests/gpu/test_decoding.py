"""Decoding, adapters in two precisions, and several processes on one GPU, at the released size.

pytest -m gpu tests/gpu/test_decoding.py
"""

from __future__ import annotations

import torch

from tests.gpu import measure
from tests.gpu.conftest import ON_A_GPU, Say
from tests.gpu.models import RELEASED

pytestmark = ON_A_GPU

PROCESSES = (1, 2, 4)


def test_so_many_rows_are_decoded_at_once(gpu: torch.device, say: Say) -> None:
    nano = measure.decoder(gpu, RELEASED)
    for rows in RELEASED.rows:
        found = measure.decoding(gpu, RELEASED, rows, nano)
        say(f"decoding {rows} rows: encoder ms", found.encoder_ms)
        say(f"decoding {rows} rows: ms a step", found.step_ms)
        say(f"decoding {rows} rows: tokens/s", 1000 * rows / found.step_ms)


def test_adapters_in_fp32_move_where_those_in_bf16_do_not(gpu: torch.device, say: Say) -> None:
    found = {name: measure.adapters(gpu, RELEASED, name) for name in ("fp32", "llm")}
    for name, one in found.items():
        said = {"fp32": "fp32", "llm": "bf16"}[name]
        say(f"adapters in {said}: share of lora_A that moved", one.moved)
        say(f"adapters in {said}: ms an update", one.ms)
    assert found["fp32"].moved > 0.99
    assert found["llm"].moved < 0.5


def test_processes_that_share_the_gpu(gpu: torch.device, say: Say) -> None:
    rates = [measure.updates_per_s(gpu, "released", "s2", count) for count in PROCESSES]
    for count, rate in zip(PROCESSES, rates, strict=True):
        say(f"{count} processes: updates/s of s2", rate)
        say(f"{count} processes: times one", rate / rates[0])
