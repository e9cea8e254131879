"""`trainer prepare --simulate`: what is prepared, sent over a telephone channel."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile

from conf.errors import ConfigError
from tests.trainer.prepare.given import write_lines, write_wav
from tests.trainer.prepare.prepared import kept, run
from trainer.data.manifest import read_data_list

pytestmark = pytest.mark.quick


@pytest.fixture
def given(corpus: Path, tmp_path: Path) -> Path:
    """Wideband speech of several speakers, and a side of a call."""
    lines = [
        {
            "key": utterance.key,
            "source": str(utterance.source),
            "target": utterance.target,
            "speaker": utterance.speaker,
            "domain": "wideband",
        }
        for utterance in read_data_list(corpus / "wideband.jsonl")[:12]
    ]
    write_wav(tmp_path / "call.wav", 3.0, 16000, channels=2)
    side = {"key": "side", "source": str(tmp_path / "call.wav"), "target": "一二三四", "side": "B"}
    return write_lines(tmp_path / "m.jsonl", *lines, side)


def test_new_audio_and_what_was_drawn(given: Path, tmp_path: Path) -> None:
    run(tmp_path / "plain", given)
    run(tmp_path / "out", given, simulate="landline_g711", seed=3)
    plain, found = kept(tmp_path / "plain"), kept(tmp_path / "out")
    assert {k: v["split"] for k, v in found.items()} == {k: v["split"] for k, v in plain.items()}
    for key, line in found.items():
        assert line["source"].startswith(f"wav/{line['split']}/")
        info = soundfile.info(tmp_path / "out" / line["source"])
        assert (info.samplerate, info.channels, info.subtype) == (8000, 1, "PCM_16")
        assert (line["sample_rate_hz"], line["bandwidth_hz"] <= 4000) == (8000, True)
        assert line["channel"] == "landline_g711"
        assert line["codec"] in ("g711_ulaw", "g711_alaw")
        assert line.get("domain", "telephone") == "telephone"
        assert line["target_len"] == plain[key]["target_len"]
        assert line["duration_s"] == pytest.approx(plain[key]["duration_s"], abs=0.01)
        assert line["sha256"] != plain[key]["sha256"]
    told = json.loads((tmp_path / "out/prepare.json").read_bytes())
    assert told["sample_rates_hz"] == {"8000": len(found)}
    assert not list((tmp_path / "out").rglob("cut"))


def test_the_number_of_workers_changes_nothing(given: Path, tmp_path: Path) -> None:
    for workers, seed in ((1, 0), (2, 0), (3, 1)):
        run(tmp_path / f"{workers}", given, simulate="gsm", seed=seed, workers=workers)
    one, two, other = (kept(tmp_path / name) for name in "123")
    assert one == two
    assert one != other


def test_a_channel_that_is_not_there(given: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no-such-channel"):
        run(tmp_path / "out", given, simulate="no-such-channel")
    assert not (tmp_path / "out").exists()
