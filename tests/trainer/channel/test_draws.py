"""What is drawn of a line: within its ranges, and the same for the same seed and key."""

from __future__ import annotations

import pytest

from conf.channels import channel_names, load_channel
from tests.trainer.channel.signals import EVERYTHING, ranges
from trainer.channel.draws import Line, draw_line

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("name", channel_names())
def test_lines_lie_within_their_ranges_and_happen_to_their_share(name: str) -> None:
    given = load_channel(name)
    lines = [draw_line(0, f"key {number}", given) for number in range(2000)]
    assert {line.codec for line in lines} == set(given.codecs)
    noises = [line for line in lines if line.noise]
    assert given.noise is not None
    assert len(noises) / len(lines) == pytest.approx(given.noise.share, abs=0.04)
    low, high = given.noise.snr_db
    found = [line.snr_db for line in noises if line.snr_db is not None]
    assert low <= min(found) <= low + 0.5
    assert high - 0.5 <= max(found) <= high
    assert {line.babble_voices for line in noises if line.noise == "babble"} == {3, 4, 5, 6}


@pytest.mark.parametrize("option", EVERYTHING)
def test_a_block_that_is_added_changes_no_other_draw(option: str) -> None:
    others = {name: value for name, value in EVERYTHING.items() if name != option}
    without, with_it = (draw_line(0, "a", ranges(**blocks)) for blocks in (others, EVERYTHING))
    assert without.fields().items() < with_it.fields().items()


def test_seed_and_key_alone_decide_what_is_drawn() -> None:
    given = ranges(**EVERYTHING)
    line = draw_line(0, "a", given)
    assert draw_line(0, "a", given) == line
    assert draw_line(0, "b", given) != line
    assert draw_line(1, "a", given) != line


def test_a_manifest_names_what_happens_and_a_noise_files_name() -> None:
    line = Line("test", "gsm", noise="/somewhere/street.wav", snr_db=12.0)
    assert line.fields() == {
        "channel": "test",
        "codec": "gsm",
        "noise": "street.wav",
        "snr_db": 12.0,
    }
