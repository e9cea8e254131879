"""Real training steps at full size on the CPU, with random weights; prints what they took.

    python -m tests.trainer.finetune.full_size_step s1

A process of its own, so that its peak memory is that of the steps.
"""

from __future__ import annotations

import json
import resource
import sys
import time

import torch

from conf.load import load_config, stage_config_path
from trainer.checks.step_cost import (
    QWEN3_06B,
    BatchShape,
    forecast,
    materialize,
    meta_model,
    num_features,
)
from trainer.data.batch import Example, collate
from trainer.model import stages
from trainer.model.losses import Objective
from trainer.model.optim import build_optimizer

SHAPE = BatchShape(utterances=1, num_frames=83, text_tokens=20)
"""5 s of speech, 60 ms a frame."""
PROMPT = ([1] * 20, [2] * 10)


def main(stage: str, steps: int) -> None:
    torch.set_num_threads(1)
    # float32 throughout: a CPU without units for bfloat16 would take minutes.
    config = load_config(
        stage_config_path(stage),
        find_model=False,
        layers=[("test", {"llm_conf.llm_dtype": "fp32"})],
    )
    expected = forecast(config, SHAPE, llm=QWEN3_06B)
    bare = _peak()
    model = meta_model(config, QWEN3_06B)
    materialize(model)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.02)
        for name, module in model.named_modules():
            if name.endswith("rotary_emb"):
                module.inv_freq.fill_(0.01)
    stages.apply(model, config)
    objective = Objective(model, config)
    optimizer = build_optimizer(model, config)
    features = torch.randn(SHAPE.num_frames, num_features(config))
    target = list(range(3, 3 + SHAPE.text_tokens))
    batch = collate([Example("random", features, PROMPT, target, target)])
    stages.set_training_mode(model)
    peaks, seconds, losses = [], [], []
    for _ in range(steps):
        started_s = time.perf_counter()
        loss = objective(batch, training=True).total
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(
            [p for group in optimizer.param_groups for p in group["params"]], 5.0
        )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - started_s)
        peaks.append(_peak() - bare)
        losses.append(loss.item())
    print(
        json.dumps(
            {
                "bare": bare,
                "peaks": peaks,
                "forecast_first": expected.first_peak,
                "forecast": expected.peak,
                "flops": expected.flops,
                "seconds": seconds,
                "losses": losses,
            }
        )
    )


def _peak() -> int:
    """Most memory that this process has had, in bytes (Linux counts in KiB)."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
