"""Where weights come from: the chain from the released model's through every step of a pipeline.

    chain = read(model_dir / "provenance.json")
    print(chain.card())

A step is one sweep; its best trial's weights are those that the next step's trials start from. Each
link names the weights before and after by their SHA-256, so that nobody has to believe a name.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from analysis.facts.records import RunSource
from conf.document.numbers import rate
from conf.errors import DataError
from conf.files import file_sha256

PROVENANCE = "provenance.json"
"""The chain's name in a model directory, and as an artifact of the sweep's run."""

SPLITS = ("valid", "test", "wideband")


@dataclass(frozen=True)
class Link:
    """One step: a sweep, the trial that was chosen of it, and the weights before and after."""

    step: int
    name: str
    stage: str
    sweep: str
    sweep_id: str
    sweep_run_id: str
    trial: int
    trial_run_id: str
    objective: str
    value: float
    checkpoint: str | None
    checkpoint_sha256: str | None
    config_sha256: str | None
    data_sha256: str | None
    parent: str
    """The model directory that the step's trials started from."""
    parent_sha256: str
    model_sha256: str | None
    """Of the packaged model.pt; None while the trial has not been made a model directory."""
    before: Mapping[str, float]
    """CER by set (`valid`, `test`, `wideband`) of the weights that the step started from."""
    after: Mapping[str, float]
    """The same of the chosen trial."""


@dataclass(frozen=True)
class Provenance:
    """All links from the base on, in order."""

    pipeline: str
    steps: int
    """How many the pipeline has, done or not."""
    base: str
    base_sha256: str
    """Of the base's model.pt."""
    links: tuple[Link, ...] = ()

    def plus(self, link: Link) -> Provenance:
        """The chain with one more step."""
        return replace(self, links=(*self.links, link))

    def packaged(self, model_sha256: str) -> Provenance:
        """The chain whose last trial has been made a model directory."""
        return replace(
            self, links=(*self.links[:-1], replace(self.links[-1], model_sha256=model_sha256))
        )

    def to_json(self) -> str:
        """The chain as it stands in a file."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=2) + "\n"

    def card(self) -> str:
        """The chain as a section of a model's README.md, a row for each set of weights."""
        rows = [
            f"## Provenance\n\nStep {len(self.links)} of {self.steps} of pipeline {self.pipeline}: "
            "each step's weights started from those of the row above.\n",
            "| step | weights (SHA-256) | chosen of | validation CER | configuration (SHA-256) |",
            "|---|---|---|---|---|",
            f"| base | `{self.base_sha256}` | {self.base} | | |",
        ]
        for link in self.links:
            before, after = link.before.get("valid"), link.after.get("valid")
            cer = " → ".join(rate(x) for x in (before, after) if x is not None)
            rows.append(
                f"| {link.name} | `{link.model_sha256 or 'not packaged'}` | sweep {link.sweep}, "
                f"trial {link.trial} ({link.stage}) | {cer} | `{link.config_sha256}` |"
            )
        return "\n".join(rows) + "\n"


def read(path: Path) -> Provenance:
    """Read a chain.

    Raises:
        DataError: The file is not there, or is no chain.
    """
    try:
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        links = tuple(Link(**link) for link in raw.pop("links"))
        return Provenance(**raw, links=links)
    except OSError as error:
        raise DataError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise DataError(f"{path}: got no chain of weights, expected one of a pipeline") from None


def recorded(run_id: str, trial: int, store: RunSource) -> Provenance | None:
    """The chain that ends with a trial of a sweep, from its run in MLflow.

    Returns:
        None if the sweep is no step of a pipeline, or the pipeline did not choose this trial.
    """
    with tempfile.TemporaryDirectory() as scratch:
        try:
            chain = read(store.download(run_id, PROVENANCE, Path(scratch)))
        except DataError:
            return None
    return chain if chain.links and chain.links[-1].trial == trial else None


def seal(model: Path, chain: Provenance) -> Provenance:
    """Name a chain's packaged weights in it, and the chain in their card; returns that chain.

    Args:
        model: The freshly packaged model directory of the chain's last trial.
        chain: The chain to that trial.
    """
    chain = chain.packaged(file_sha256(model / "model.pt"))
    path, said = model / "README.md", chain.card()
    card = path.read_text(encoding="utf-8")
    if said not in card:
        path.write_text(f"{card}\n{said}", encoding="utf-8")
    return chain
