"""Settings as they are written down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainer.prepare.settings import Given, Settings

pytestmark = pytest.mark.quick


def test_they_are_written_down_in_plain_types() -> None:
    given = Given(Path("/in/wav.scp"), "test", beside=(("text", Path("/in/text")),))
    found = Settings(given=(given,), root=Path("/in"), columns=(("source", "wav"),)).as_json()
    assert json.loads(json.dumps(found)) == found
    assert found["given"] == [
        {
            "path": "/in/wav.scp",
            "split": "test",
            "wav_dir": None,
            "beside": [["text", "/in/text"]],
        }
    ]
    assert (found["root"], found["columns"]) == ("/in", [["source", "wav"]])


def test_what_decides_nothing_about_the_result_does_not_hinder_resuming() -> None:
    plain, strict = (Settings(given=(), strict=strict).as_json() for strict in (False, True))
    assert plain == strict
    assert Settings(given=(), seed=1).as_json() != plain
