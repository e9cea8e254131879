"""One of several processes that train on the same device; see `measure.updates_per_s`.

    python -m tests.gpu.process cuda released s2

Says `ready` once it is warm, waits for a line, then says how long its updates took.
"""

from __future__ import annotations

import json
import sys

import torch

from tests.gpu.measure import seconds
from tests.gpu.models import SIZES, Training


def main(device_name: str, size_name: str, stage: str) -> None:
    device, size = torch.device(device_name), SIZES[size_name]
    training = Training(size, stage, device)
    training.run(size.updates)
    updates = size.updates * size.repetitions
    print("ready", flush=True)
    sys.stdin.readline()
    took_s = seconds(device, lambda: training.run(updates))
    print(json.dumps({"updates": updates, "seconds": took_s}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
