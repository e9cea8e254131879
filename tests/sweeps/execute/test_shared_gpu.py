"""Trials that share a GPU: as many run at once as Ray really puts on one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sweeps.preflight import effective_concurrency
from sweeps.spec.sweep_file import load_sweep
from tests.conftest import HANG_S
from tests.sweeps.driving import ENVIRONMENT

PACK = """
import json, sys
import ray

ray.init(address="local", num_cpus=8, num_gpus=2, include_dashboard=False, log_to_driver=False)

@ray.remote(num_cpus=1, num_gpus=float(sys.argv[1]))
class Trial:
    def gpus(self):
        return ray.get_gpu_ids()

trials = [Trial.remote() for _ in range(7)]
asked = [trial.gpus.remote() for trial in trials]
placed = []
while True:  # what Ray does not place within seconds waits for a part of a GPU
    ready, asked = ray.wait(asked, timeout=60 if not placed else 5)
    if not ready:
        break
    placed += ray.get(ready[0])
print(json.dumps(placed))
ray.shutdown()
"""


@pytest.mark.slow  # a start of Ray for each
@pytest.mark.parametrize(("gpu", "on_each"), [("0.4", 2), ("0.33", 3)])
def test_ray_packs_as_many_as_are_counted(
    place: Path, monkeypatch: pytest.MonkeyPatch, gpu: str, on_each: int
) -> None:
    """On two GPUs that Ray is told of."""
    done = subprocess.run(
        [sys.executable, "-c", PACK, gpu],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=True,
    )
    placed = json.loads(done.stdout.splitlines()[-1])
    assert sorted(placed) == [0] * on_each + [1] * on_each
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    overrides = ["concurrency=8", f"resources.gpu={gpu}"]
    sweep, _ = load_sweep(Path("sweep.yaml"), overrides=overrides)
    assert effective_concurrency(sweep) == len(placed)
