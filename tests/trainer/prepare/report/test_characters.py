"""In which scripts a text is written, and what a model's tokenizers do not give back."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import BASE
from tests.trainer.prepare.report.made import line, write_prepared
from trainer.prepare.report.characters import kind_of, scripts
from trainer.prepare.report.gather import gather

pytestmark = pytest.mark.quick


def test_scripts() -> None:
    letters = [scripts(text) for text in ("你好", "三g", "é12", "１２", "かな", "")]
    assert letters == ["CC", "CL", "LDD", "DD", "OO", ""]
    kinds = ["chinese", "mixed", "latin", "digits", "other", "empty"]
    assert [kind_of(each) for each in letters] == kinds


def test_a_models_tokenizers_are_asked(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(BASE, model, ignore=shutil.ignore_patterns("model.pt", "config.yaml"))
    config = (BASE / "config.yaml").read_text(encoding="utf-8")
    fewer = re.sub(r"(?m)^(ctc_vocab_size:) \d+", r"\1 260", config)
    assert fewer != config
    (model / "config.yaml").write_text(fewer, encoding="utf-8")
    write_prepared(
        tmp_path / "a", {"train": [line("a", "你a好a你")]}, settings={"model": str(model)}
    )
    lost = gather(tmp_path / "a").characters.unspelt
    assert lost == {"LLM": (), "CTC": (("你", 2), ("好", 1))}
    (model / "config.yaml").unlink()
    assert gather(tmp_path / "a").characters.unspelt is None
