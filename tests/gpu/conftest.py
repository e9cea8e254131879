"""The GPU, and where figures go."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.gpu.figures import Figures, default_path

Say = Callable[..., None]
ON_A_GPU = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.timeout(270),
    # Other versions than the locked ones may be there, and warn of other things.
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture(scope="session")
def gpu() -> torch.device:
    """The first GPU."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return torch.device("cuda:0")


@pytest.fixture(scope="session")
def _figures(gpu: torch.device) -> Figures:
    return Figures(default_path(), gpu)


@pytest.fixture
def say(_figures: Figures, capsys: pytest.CaptureFixture[str]) -> Say:
    """Keep a figure and print its line at once, whatever pytest captures."""

    def add(name: str, value: float, note: str = "") -> None:
        line = _figures.add(name, value, note)
        with capsys.disabled():
            print(f"\n{line}", end="", flush=True)

    return add
