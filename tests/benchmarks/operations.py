"""Operations that one update dispatches at the released size, each about one kernel on a GPU.

    python -m tests.benchmarks.operations [STAGE ...]

On PyTorch's meta device: without weights, a GPU or a wait, since a tensor there that is asked for
its values refuses. Views and what makes memory without writing to it are not counted. Fused
attention counts as one operation each way. Transformers' norms count as on the CPU; on a GPU each
is one operation each way, a dozen less.
"""

from __future__ import annotations

import argparse
import functools
import operator
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table
from torch.utils._python_dispatch import TorchDispatchMode

from conf.load import Config, load_config, stage_config_path
from trainer.checks import step_cost
from trainer.checks.step_cost import QWEN3_06B, BatchShape, meta_model, num_features
from trainer.model import losses, stages
from trainer.model.losses import Objective

SHAPE = BatchShape(utterances=15, num_frames=67, text_tokens=20)
"""4 s each, 60 ms a frame."""

BEFORE = {"8k": 11_081, "s1": 10_738, "s2": 6_765, "s3": 2 * 8_097}
"""As FunASR's and transformers' classes do it, with a mask, batch after batch; counted in the same
way, but for their attention in the LLM, 28 operations each way."""

MOST = {"8k": 9_000, "s3": 8_000}
"""Goals for an update, all of its batches together."""


_NO_KERNEL = frozenset(
    {"_unsafe_view", "detach", "empty", "empty_like", "empty_strided", "new_empty"}
    | {"new_empty_strided"}
)


class Operations(TorchDispatchMode):
    """Counts what is dispatched and starts a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.count += not (func.is_view or func.overloadpacket.__name__ in _NO_KERNEL)
        return func(*args, **(kwargs or {}))


def of_update(config: Config, *, together: bool = True) -> int:
    """Count the forward and backward passes of an update of a stage.

    Args:
        config: Its configuration.
        together: The `accum_grad` batches as one.
    """
    model = meta_model(config, QWEN3_06B)
    stages.apply(model, config)
    stages.set_training_mode(model)
    objective = Objective(model, config)
    batches = config["train_conf.accum_grad"]
    part = step_cost._batch(SHAPE, num_features(config))
    shape = replace(SHAPE, utterances=batches * SHAPE.utterances)
    whole = step_cost._batch(shape, num_features(config))
    count = 0
    for batch, parts in [(whole, [part] * batches)] if together else [(part, [part])] * batches:
        shapes = step_cost._Shapes("cuda")
        with Operations() as operations, torch.device("meta"), shapes:
            found = objective.of_each(batch, parts)
            loss = functools.reduce(operator.add, [each.share(0.5, 0.5) for each in found])
            shapes.forward = False
            step_cost._backward(loss)
        count += operations.count + shapes.attentions
    return count


def without_causal_alone() -> Any:
    """The LLM with an attention mask."""
    return mock.patch.object(losses, "_causal_alone", return_value=False)


def table(names: Sequence[str]) -> Table:
    drawn = Table("stage", "", "operations", "goal")
    for name in names:
        config = load_config(stage_config_path(name), find_model=False)
        rows = {"before": BEFORE[name]}
        with without_causal_alone():
            rows["fused layers"] = of_update(config, together=False)
        rows["and no mask"] = of_update(config, together=False)
        if config["train_conf.accum_grad"] > 1:
            rows["and batches joined"] = of_update(config)
        for said, found in rows.items():
            last = said == list(rows)[-1]
            goal = f"<= {MOST[name]:,}" if last and name in MOST else ""
            drawn.add_row(name, said, f"{found:,}", goal, end_section=last)
    return drawn


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.operations",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stages", nargs="*", default=["8k", "s1", "s2", "s3"], metavar="STAGE")
    Console(width=None if sys.stdout.isatty() else 140).print(table(parser.parse_args(argv).stages))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
