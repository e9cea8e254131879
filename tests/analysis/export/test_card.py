"""What a model's card says, and that it names no place of this machine."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from analysis.export.card import DataSet, card, compared, data_sets, licence_of
from analysis.facts.records import load_sweep
from conf.load import load_config, stage_config_path
from tests.analysis.fakes import stored_trial

pytestmark = pytest.mark.quick


def hypotheses(errors):
    """Ten utterances of 100 characters, of five speakers."""
    lines = [
        {
            "key": f"u{n}",
            "speaker": f"s{n % 5}",
            "reference": "一",
            "text": "一",
            "substitutions": count,
            "deletions": 0,
            "insertions": 0,
            "reference_length": 100,
        }
        for n, count in enumerate(errors)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines)


@pytest.fixture
def config(tmp_path):
    """Of a fine-tune whose validation set is here and whose training set is gone."""
    model = tmp_path / "base"
    model.mkdir()
    shutil.copy(stage_config_path("8k").with_name("pretrained.yaml"), model / "config.yaml")
    (model / "README.md").write_text("# Base\n\nLicense: CC-BY-4.0, as everything.\n")
    (model / "model.pt").write_bytes(b"")
    valid = tmp_path / "valid.jsonl"
    lines = [
        {"key": f"u{n}", "source": "a.wav", "target": "一", "source_len": 36000} for n in (1, 2)
    ]
    valid.write_text("".join(json.dumps(line) + "\n" for line in lines))
    overrides = ["optim_conf.lr=1.5e-3", f"valid_data_set_list={valid}"]
    overrides += [f"train_data_set_list={tmp_path}/train.jsonl"]
    return load_config(stage_config_path("8k"), init_param=model / "model.pt", overrides=overrides)


def test_the_card_says_all_and_no_path(make_store, config, tmp_path):
    trials = [
        stored_trial(0, "8k", 5e-4, "completed", (120, 0, 0), baseline=True),
        stored_trial(1, "8k", 1.5e-3, "completed", (80, 0, 0), tags={"data.sha256": "d" * 64}),
    ]
    artifacts = {
        ("run00", "hypotheses/valid.jsonl"): hypotheses([12, 10, 15, 11, 12] * 2),
        ("run01", "hypotheses/valid.jsonl"): hypotheses([8, 9, 7, 6, 10] * 2),
    }
    store = make_store(trials, base={"base/valid/cer": 0.5}, artifacts=artifacts)
    sweep = load_sweep("demo", store)
    trial = sweep.trials[1]
    text = card(
        compared(sweep, trial, store), trial, config, data_sets(config), "; the best so far"
    )
    lines = text.partition("## Data")[0].splitlines()
    rows = {line.split(" | ")[0].strip("| "): line for line in lines}
    scores = rows["valid: checkpoint and trial were chosen by it"]
    assert "default of 8k (trial 0)" in text
    assert scores.startswith("| valid: checkpoint and trial were chosen by it | 8.00 % | ")
    assert " to " in scores.split(" | ")[2]
    assert "| 50.00 % |" in scores
    assert "| 12.00 % | -4.00 points (" in scores
    assert "; p " in scores
    assert "| 9.00 % | - |" in rows["test: nothing was chosen by it"]  # no texts of it in the store
    assert "over 5 speakers" in text
    assert "| `valid.jsonl` | 2 | 0.20 | `" in text
    assert "| train: trained on | `train.jsonl` | - | - | gone since |" in text
    assert "d" * 64 in text
    assert "| `optim_conf.lr` | `5e-6` | `0.0015` | MODIFIED | critical | both |" in text
    assert "sweep demo, MLflow run `parent`" in text
    assert "trial 1, stage 8k, MLflow run `run01`" in text
    assert "chosen by valid/cer of 2 trials; the best so far" in text
    assert "License: CC-BY-4.0 (the base's" in text
    assert "telesweep, which fine-tuned and packaged them, is under Apache-2.0" in text
    assert str(tmp_path) not in text


def test_data_sets_are_named_and_sealed(config, tmp_path):
    train, valid = data_sets(config)
    assert train == DataSet("train", "train.jsonl", None, None, None)
    digest = hashlib.sha256((tmp_path / "valid.jsonl").read_bytes()).hexdigest()
    assert valid == DataSet("valid", "valid.jsonl", 2, 0.2, digest)


@pytest.mark.parametrize(
    ("name", "content", "licence"),
    [
        ("other", "license: mit\n", None),
        ("LICENSE", "\n  Apache License\n  Version 2.0\n", "Apache License (LICENSE)"),
        ("LICENCE.txt", "MIT License\n", "MIT License (LICENCE.txt)"),
        ("README.md", "---\nlicense: apache-2.0\ntags: [asr]\n---\n# A model\n", "apache-2.0"),
        ("README.md", "License: Apache-2.0 (the base's, whose ...)\n", "Apache-2.0"),
        ("README.md", "## Licences\n\nsee the licence of the base\n", None),
    ],
)
def test_the_bases_licence_is_found_where_it_is_named(tmp_path: Path, name, content, licence):
    (tmp_path / name).write_text(content)
    assert licence_of(tmp_path) == licence
