"""The chain of weights: what is written reads back, and what is not a chain is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.export.provenance import Link, Provenance, read, recorded, seal
from conf.errors import DataError
from conf.files import file_sha256

pytestmark = pytest.mark.quick


def link(step: int, **changes: object) -> Link:
    values = {
        "step": step,
        "name": f"s{step}",
        "stage": f"s{step}",
        "sweep": f"calls-s{step}",
        "sweep_id": "id",
        "sweep_run_id": "run",
        "trial": 3,
        "trial_run_id": "child",
        "objective": "valid/cer",
        "value": 0.1,
        "checkpoint": "epoch-004",
        "checkpoint_sha256": "c" * 64,
        "config_sha256": "d" * 64,
        "data_sha256": "e" * 64,
        "parent": "base",
        "parent_sha256": "a" * 64,
        "model_sha256": None,
        "before": {"valid": 0.2},
        "after": {"valid": 0.1, "test": 0.12},
    }
    return Link(**(values | changes))  # type: ignore[arg-type]


CHAIN = Provenance(pipeline="calls", steps=3, base="Fun-ASR-Nano-2512", base_sha256="b" * 64)


def test_a_chain_reads_back(tmp_path: Path) -> None:
    chain = CHAIN.plus(link(1)).packaged("f" * 64).plus(link(2))
    (tmp_path / "provenance.json").write_text(chain.to_json())
    assert read(tmp_path / "provenance.json") == chain
    assert [one.model_sha256 for one in chain.links] == ["f" * 64, None]


def test_the_card_names_every_set_of_weights_back_to_the_base() -> None:
    card = CHAIN.plus(link(1)).packaged("f" * 64).plus(link(2)).card()
    rows = [line for line in card.splitlines() if line.startswith("| ")][1:]
    assert "Step 2 of 3 of pipeline calls" in card
    assert ["b" * 64 in rows[0], "f" * 64 in rows[1], "not packaged" in rows[2]] == [True] * 3
    assert "sweep calls-s1, trial 3 (s1)" in rows[1]
    assert "20.00 % → 10.00 %" in rows[1]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"links": [{"step": 1}]}', '{"links": 3}'])
def test_what_is_no_chain_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "provenance.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"provenance\.json: got no chain of weights"):
        read(path)


def test_a_chain_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone: no such file"):
        read(tmp_path / "gone")


def test_a_packaged_model_is_named_in_its_chain_and_card(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"weights")
    (tmp_path / "README.md").write_text("# Fun-ASR-Nano\n")
    chain = seal(tmp_path, CHAIN.plus(link(1)))
    assert chain.links[0].model_sha256 == file_sha256(tmp_path / "model.pt")
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("# Fun-ASR-Nano\n\n## Provenance\n")
    assert file_sha256(tmp_path / "model.pt") in card


class Artifacts:
    """A store with one text, or none."""

    def __init__(self, text: str | None) -> None:
        self.text = text

    def download(self, run_id: str, name: str, directory: Path) -> Path:
        if self.text is None:
            raise DataError(f"MLflow run {run_id}: has no artifact {name}")
        (directory / name).write_text(self.text)
        return directory / name


def test_a_chain_is_found_by_the_trial_that_it_leads_to() -> None:
    chain = CHAIN.plus(link(1))
    found = [
        recorded("run", trial, Artifacts(text))  # type: ignore[arg-type]
        for trial, text in ((3, chain.to_json()), (4, chain.to_json()), (3, None))
    ]
    assert found == [chain, None, None]
