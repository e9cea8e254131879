"""By how much two ways of computing the same differ."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tests.gpu import measure
from tests.gpu.models import TINY, examples_of


@dataclass(frozen=True)
class Difference:
    """Shares of what is compared.

    Attributes:
        loss: Of the loss.
        gradient: Of the gradient's norm.
        same_ids: Whether the texts are the same.
    """

    loss: float
    gradient: float
    same_ids: bool = True


def with_the_cpu(device: torch.device, stage: str) -> Difference:
    """The tiny base on a device and on the CPU, in fp32 without TF32."""
    config = measure.tiny_config(stage)
    examples = examples_of(TINY, 12)
    theirs = measure.results(torch.device("cpu"), config, examples)
    ours = measure.results(device, config, examples)
    assert ours.gradient.keys() == theirs.gradient.keys()
    names = list(ours.gradient)
    return Difference(
        loss=_share(torch.tensor(ours.loss), torch.tensor(theirs.loss)),
        gradient=_share(
            torch.cat([ours.gradient[name].flatten() for name in names]),
            torch.cat([theirs.gradient[name].flatten() for name in names]),
        ),
        same_ids=ours.ids == theirs.ids,
    )


def of_steps(before: measure.Step, after: measure.Step) -> Difference:
    """Two ways of computing the same batch with the same weights."""
    return Difference(
        loss=_share(torch.tensor(after.loss), torch.tensor(before.loss)),
        gradient=_share(after.gradient, before.gradient),
    )


def _share(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    ours, theirs = ours.double(), theirs.double()
    return float(torch.linalg.vector_norm(ours - theirs) / torch.linalg.vector_norm(theirs))
