"""The trace follows `**kwargs`, and tells a read from what is only taken."""

from __future__ import annotations

from typing import Any

import pytest

from trainer.effects.trace import Reads, traced, wrap


class Encoder:
    def __init__(self, width: int, unused: int = 1, kept: int = 2, **kwargs: Any) -> None:
        self.width = width * 2
        self.kept = kept
        self.depth = kwargs.get("depth", 6)
        self.has_rate = "rate" in kwargs


class Model:
    def __init__(self, encoder_conf: dict[str, Any], **kwargs: Any) -> None:
        self.encoder = Encoder(**encoder_conf)
        self.weight = kwargs.get("ctc_weight")
        self.rest = other(**kwargs)


def other(**kwargs: Any) -> Any:
    return kwargs.get("optim_conf", {}).get("lr")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    monkeypatch.setattr("trainer.effects.trace._is_watched", lambda code: True)
    monkeypatch.setattr("trainer.effects.trace._COUNTED", ("tests/",))
    configuration = {
        "encoder_conf": {"width": 1000, "unused": 3000, "kept": 4000, "depth": 5000, "left": 6000},
        "ctc_weight": 0.3,
        "optim_conf": {"lr": 1e-4, "betas": [0.9, 0.98]},
    }
    reads = Reads()
    with traced(reads):
        Model(**wrap(configuration, reads))
    return reads


@pytest.mark.quick
def test_reads_are_followed_through_kwargs(reads: Reads) -> None:
    assert set(reads.read) == {
        *("encoder_conf.width", "encoder_conf.kept", "encoder_conf.depth", "encoder_conf.rate"),
        *("ctc_weight", "optim_conf.lr"),
    }
    assert reads.read["encoder_conf.depth"] == {"tests/trainer/effects/test_trace.py:Encoder"}
    assert reads.read["optim_conf.lr"] == {"tests/trainer/effects/test_trace.py:other"}


@pytest.mark.quick
def test_what_is_taken_and_not_used_is_no_read(reads: Reads) -> None:
    assert set(reads.unused) == {"encoder_conf.unused"}
    assert "encoder_conf.left" in reads.swallowed
    assert reads.stored["encoder_conf.kept"] == {("Encoder", "kept")}
    assert "encoder_conf.width" not in reads.stored  # it is doubled first
