"""The committed tiny base: what its card says is true, and it can be made anew from nothing."""

import json
from pathlib import Path

import pytest

from conf.document.numbers import rate
from trainer.demo import train_base
from trainer.demo.train_base import Recipe

BASE = Path(train_base.__file__).parent / "base"
MAX_BYTES = 4 * 2**20
# Another processor rounds differently, and the two are then trained differently: the same kind of
# model, not the same one. Within one machine the scores repeat exactly.
TOLERANCE = 0.06


def size_of(directory):
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def committed_scores():
    return json.loads((BASE / "scores.json").read_text(encoding="utf-8"))


@pytest.mark.quick
def test_base_is_small_and_its_card_shows_its_scores():
    card = (BASE / "README.md").read_text(encoding="utf-8")
    assert size_of(BASE) <= MAX_BYTES
    for name, scores in committed_scores().items():
        assert f"| {name} | {rate(scores['cer'], 1)} | {rate(scores['cer_ctc'], 1)} |" in card


@pytest.mark.quick
def test_base_hears_clean_speech_and_not_the_telephone():
    scores = committed_scores()
    assert scores["wideband"]["cer"] <= 0.2
    assert 0.5 <= scores["valid"]["cer"] <= 0.95
    assert 0.5 <= scores["test"]["cer"] <= 0.95


@pytest.mark.quick
def test_cuts_lie_half_way_between_the_spikes():
    blank = 9
    best = [9, 1, 1, 9, 9, 2, 9, 2, 9]
    assert train_base._cuts(best, [1, 2, 2], blank) == (0, 4, 6, 9)
    assert train_base._cuts(best, [1, 2], blank) is None


def test_committed_base_scores_what_its_card_says(corpus):
    from conf.load import load_config, stage_config_path
    from trainer.model.build import build

    nano = build(load_config(stage_config_path("8k"), model=BASE))
    found = train_base._score(nano, corpus)
    for name, scores in committed_scores().items():
        assert found[name] == pytest.approx(scores, abs=0.01), name


def test_a_tiny_recipe_writes_a_whole_directory(tmp_path):
    pytest.importorskip("espeakng_loader", reason="the extra telesweep[demo] is not installed")
    recipe = Recipe(num_clean=12, num_noisy=4, num_narrowband=4, encoder_epochs=1, llm_epochs=1)
    made = train_base.rebuild(tmp_path / "base", recipe)
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    expected = {path.relative_to(BASE.parent).as_posix() for path in BASE.rglob("*")}
    assert names - {"base"} == expected
    assert set(made) == {"wideband", "valid", "test"}
    for name in ("config.yaml", "configuration.json", "multilingual.tiktoken"):
        assert (tmp_path / "base" / name).read_bytes() == (BASE / name).read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_rebuild_from_nothing_reaches_the_cards_scores(tmp_path):
    made = train_base.rebuild(tmp_path / "base")
    assert size_of(tmp_path / "base") <= MAX_BYTES
    for name, scores in committed_scores().items():
        assert made[name]["cer"] <= scores["cer"] + TOLERANCE, name
        assert made[name]["cer_ctc"] <= scores["cer_ctc"] + TOLERANCE, name
    assert made["wideband"]["cer"] >= committed_scores()["wideband"]["cer"] - TOLERANCE
