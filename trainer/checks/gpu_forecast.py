"""What a fine-tune will take on GPUs that are not here: memory of their cards, time of an epoch
and of an evaluation.

Known from the configuration, the manifests and the model directory, whose weights may be missing:
the longest batch is run as shapes only (see step_cost.py), and one of middling size, whose
operations stand for those of all. How many of them a GPU does in a second is measured where one is
here (or the model is tiny), and else assumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from conf.errors import WorkError
from conf.load import Config
from trainer.checks.data_checks import Largest, Survey, survey
from trainer.checks.evaluation_time import EvaluationTime, counted, evaluation_time, measured
from trainer.checks.model_checks import (
    GB,
    MAX_TIMED_ON_CPU,
    Need,
    batch_shape,
    full_config,
    memory_need,
    step_seconds,
)
from trainer.checks.run_checks import has_weights
from trainer.checks.step_cost import QWEN3_06B, forecast, meta_model
from trainer.model.build import build, resolved_values

CARDS_GB = (24, 40, 80)
"""Memory of the GPUs that people have: RTX 3090 and 4090; A100; A100 and H100."""
SPARE = 0.1
"""Share of a card left free for what is not counted: CUDA itself, kernels' work space, gaps."""
ASSUMED_TFLOPS = 40.0
"""Where nothing is measured: a quarter of what an A100's sheet says of dense TF32 (156)."""


@dataclass(frozen=True)
class GpuForecast:
    """Memory and time of one fine-tune.

    Attributes:
        batch: The longest batch.
        evaluated: The largest batch of evaluation.
        need: Bytes that both take.
        full_need: The same for the released model on a GPU, where this is a smaller one.
        batches_per_epoch: Of the training data.
        epoch_s: Seconds that the steps of an epoch take, evaluation not counted.
        evaluation: Seconds that it takes to score the sets.
        measured_on: The device on which a step was timed; empty where operations were counted.
    """

    batch: Largest
    evaluated: Largest
    need: Need
    full_need: Need | None
    batches_per_epoch: int
    epoch_s: float
    evaluation: EvaluationTime
    measured_on: str


def gpu_forecast(config: Config, *, tflops: float | None = None) -> GpuForecast:
    """Looks at a configuration that names data and a model directory.

    Args:
        config: What will be trained.
        tflops: 10^12 operations that a GPU does in a second; None measures or assumes.

    Raises:
        UserError: The data cannot be read, the directory lacks files or weights.
        WorkError: No utterance is within the limits.
    """
    data = _survey(config)
    llm = Path(resolved_values(config)["llm_conf"]["init_param_path"])
    parameters = sum(parameter.numel() for parameter in meta_model(config, llm).parameters())
    here = torch.cuda.is_available() or parameters <= MAX_TIMED_ON_CPU
    if tflops is None and here and has_weights(config):
        nano = build(config)
        epoch_s = step_seconds(nano, config, data) * data.batches_per_epoch
        of_set = measured(nano, config, data)
        measured_on = nano.device.type
    else:
        middling = batch_shape(config, data.middling_batch)
        flops = forecast(config, middling, llm=llm).flops
        frame_flops = flops / (middling.utterances * data.middling_batch.num_frames)
        flops_per_s = 1e12 * (tflops or ASSUMED_TFLOPS)
        epoch_s = frame_flops * data.padded / flops_per_s
        of_set = counted(config, data, frame_flops=frame_flops, flops_per_s=flops_per_s)
        measured_on = ""
    largest, evaluated = data.largest_batch, data.largest_evaluated
    full = full_config(config)
    return GpuForecast(
        batch=largest,
        evaluated=evaluated,
        need=memory_need(config, largest, evaluated, llm=llm, device=device_type(config)),
        full_need=memory_need(full, largest, evaluated, llm=QWEN3_06B, device="cuda")
        if full
        else None,
        batches_per_epoch=data.batches_per_epoch,
        epoch_s=epoch_s,
        evaluation=evaluation_time(config, data, of_set),
        measured_on=measured_on,
    )


def memory(config: Config) -> Need:
    """Memory alone, of a configuration that names data and a model directory.

    Raises:
        UserError: The data cannot be read, the directory lacks files.
        WorkError: No utterance is within the limits.
    """
    data = _survey(config)
    llm = Path(resolved_values(config)["llm_conf"]["init_param_path"])
    largest, evaluated = data.largest_batch, data.largest_evaluated
    return memory_need(config, largest, evaluated, llm=llm, device=device_type(config))


def device_type(config: Config) -> str:
    """`cpu` or `cuda`, whether or not a GPU is here."""
    wanted = config.get("device")
    if wanted is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    return str(wanted).partition(":")[0]


def cards(peak: int) -> str:
    """Which cards a step fits on, in words.

    Example:
        >>> cards(20_000_000_000), cards(80_000_000_000)
        ('fits 24, 40 and 80 GB', 'fits none of 24, 40 and 80 GB')
    """
    sizes = [size for size in CARDS_GB if peak <= (1 - SPARE) * size * GB]
    return f"fits {_list(sizes)} GB" if sizes else f"fits none of {_list(CARDS_GB)} GB"


def _survey(config: Config) -> Survey:
    data = survey(config)
    if not data.batches_per_epoch:
        raise WorkError("no training utterance is within the limits of dataset_conf")
    return data


def _list(sizes: tuple[int, ...] | list[int]) -> str:
    *others, last = map(str, sizes)
    return f"{', '.join(others)} and {last}" if others else last
