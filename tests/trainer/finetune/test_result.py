"""What a fine-tune says of itself, for whoever started it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.quick
def test_a_driver_reads_results_without_loading_torch() -> None:
    code = "import sys, trainer.finetune.result; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
