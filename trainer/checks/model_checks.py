"""What the checks before training see of the model: weights, trainable counts, and forecasts.

The model is built and its weights are loaded as for training; one step on this machine gives the
time. Memory is forecast from shapes, see trainer/checks/step_cost.py.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from conf.document import numbers
from conf.errors import UserError
from conf.load import STAGES, Config, load_config, stage_config_path
from conf.rules import Finding, judged, trained
from trainer.checks.data_checks import Largest, Survey
from trainer.checks.step_cost import (
    QWEN3_06B,
    BatchShape,
    evaluation_forecast,
    forecast,
    host_bytes,
)
from trainer.data.batch import TYPICAL_FRAMES, collate, make_example
from trainer.model import stages
from trainer.model.build import COMPONENTS, Nano, build, resolved_values
from trainer.model.losses import Objective

GB = 1e9
MAX_TIMED_ON_CPU = 50_000_000
"""Parameters up to which a step on the CPU is a matter of seconds."""
RELEASED_LAYERS = 70
"""Encoder layers of the released model; one with fewer is a model for trying out."""
AT_FULL_SIZE = (
    "audio_encoder_conf.activation_checkpoint",
    "llm_conf.activation_checkpoint",
    "train_conf.use_bf16",
    "finetune_conf.eval_batch_size",
    "finetune_conf.max_new_tokens",
)
"""What decides about memory and is no matter of the model's size."""


@dataclass(frozen=True)
class Need:
    """Bytes that a fine-tune takes at most, each with its largest batch.

    Attributes:
        training: In an update.
        evaluation: While it decodes and scores, next to what training keeps for the next update.
        host: Besides, for the process: on the CPU in the same memory.
    """

    training: int
    evaluation: int
    host: int = 0

    @property
    def peak(self) -> int:
        """What a GPU must hold."""
        return max(self.training, self.evaluation)

    @property
    def on_cpu(self) -> Need:
        """The same with the whole process."""
        return Need(self.training + self.host, self.evaluation + self.host)

    def __str__(self) -> str:
        training, evaluation = map(numbers.size, (self.training, self.evaluation))
        return f"{training} in training, {evaluation} in evaluation"


def memory_need(
    config: Config,
    largest: Largest,
    evaluated: Largest,
    *,
    llm: Mapping[str, Any] | Path,
    device: str,
) -> Need:
    """Forecast what a fine-tune takes.

    Args:
        config: What will be trained.
        largest: The longest batch of training.
        evaluated: The largest batch of evaluation.
        llm: The LLM's `config.json` or the directory it lies in.
        device: `cpu` or `cuda`.
    """
    shape = batch_shape(config, largest)
    step = forecast(config, shape, llm=llm, device=device, count_flops=False)
    scored = evaluation_forecast(config, batch_shape(config, evaluated), llm=llm, device=device)
    return Need(step.peak, step.weights + step.moments + scored, host_bytes(step))


def examine(config: Config) -> Built:
    """Build the model and load its weights; what goes wrong is kept for the check of coverage."""
    try:
        nano = build(config)
    except UserError as error:
        return Built(config, None, error.problems)
    try:
        trainable = stages.apply(nano.model, config)
    except UserError:
        trainable = dict.fromkeys(COMPONENTS, 0)
    return Built(config, nano, (), trainable)


class Built:
    """A built model, or why there is none."""

    def __init__(
        self,
        config: Config,
        nano: Nano | None,
        problems: tuple[str, ...],
        trainable: Mapping[str, int] | None = None,
    ) -> None:
        self._config = config
        self._nano = nano
        self._problems = problems
        self._trainable = trainable or {}

    def find(self, id: str, survey: Survey | None) -> Finding:
        """What one of this part's checks finds."""
        if id == "coverage":
            return self._coverage()
        if self._nano is None:
            return Finding(id, "not run", "", "", "the model could not be built")
        checks: Mapping[str, Callable[[Nano, Survey | None], Finding]] = {
            "trainable": self._counts,
            "memory": self._memory,
            "disk": self._disk,
            "time": self._time,
        }
        return checks[id](self._nano, survey)

    def _coverage(self) -> Finding:
        expected = "all weights of every component"
        if self._nano is None or self._nano.coverage is None:
            return Finding("coverage", "failed", "init_param", expected, "; ".join(self._problems))
        coverage = self._nano.coverage
        found = coverage.counts()
        if coverage.unused:
            found += f", {len(coverage.unused)} unused ({coverage.unused[0]})"
        found += f"; SHA-256 {coverage.sha256}"
        return Finding("coverage", "passed", "init_param", expected, found)

    def _counts(self, nano: Nano, _: Survey | None) -> Finding:
        wanted = {"llm" if part == "lora" else part for part in trained(self._config)}
        wanted |= {"ctc"} & {"ctc" for part in wanted if part == "ctc_decoder"}
        learns = {name for name, count in self._trainable.items() if count}
        found = ", ".join(
            f"{name} {self._trainable.get(name, 0):,} of {_size(nano.model, name):,}"
            for name in COMPONENTS
        )
        named = ", ".join(name for name in COMPONENTS if name in wanted) or "nothing"
        return judged("trainable", learns == wanted, "*.freeze", f"{named} trains", found)

    def _memory(self, nano: Nano, survey: Survey | None) -> Finding:
        largest = survey.largest_batch if survey else self._largest_by_limits()
        evaluated = (
            survey.largest_evaluated if survey else largest_evaluated_by_limits(self._config)
        )
        device = nano.device.type
        llm = Path(resolved_values(self._config)["llm_conf"]["init_param_path"])
        need = memory_need(self._config, largest, evaluated, llm=llm, device=device)
        need = need.on_cpu if device == "cpu" else need
        free, place = _free_memory(nano.device)
        # The model is there already, in what is free no longer.
        free += sum(parameter.nbytes for parameter in nano.model.parameters())
        found = f"about {need} of {numbers.size(free)} ({place})"
        if full := full_config(self._config):
            full_need = memory_need(full, largest, evaluated, llm=QWEN3_06B, device="cuda")
            found += f"; at full size about {full_need}"
        batch = f"{largest.utterances} utterances of up to {largest.num_frames / 100:.1f} s"
        expected = f"the longest batch ({batch}) fits"
        key = "dataset_conf.batch_size"
        if need.training <= free < need.evaluation:
            key = "finetune_conf.eval_batch_size"
        return judged("memory", need.peak <= free, key, expected, found)

    def _largest_by_limits(self) -> Largest:
        """Without data: one batch as large as the configuration allows."""
        conf = self._config["dataset_conf"]
        size = conf.get("batch_size", 6000)
        if conf.get("batch_type", "token") == "example":
            return Largest(size, conf.get("max_source_length", 8000), 50 * size)
        return Largest(max(1, size // 1000), min(size, 1000), size // 20)

    def _disk(self, nano: Nano, _: Survey | None) -> Finding:
        output_dir = self._config.get("output_dir")
        if not output_dir:
            return Finding("disk", "not run", "output_dir", "room", "no --output_dir")
        size = sum(
            parameter.nbytes for parameter in nano.model.parameters() if parameter.requires_grad
        )
        keys = ("train_conf.max_epoch", "train_conf.keep_nbest_models")
        # The kept epochs, the one being written, and the average.
        count = min(self._config[key] for key in keys) + 2
        need = count * size
        place = Path(output_dir).absolute()
        while not place.exists():
            place = place.parent
        free = shutil.disk_usage(place).free
        expected = f"room for {count} checkpoints of {numbers.size(size)}"
        found = f"{numbers.size(need)} needed, {numbers.size(free)} free"
        return judged("disk", need < free, "output_dir", expected, found)

    def _time(self, nano: Nano, survey: Survey | None) -> Finding:
        expected = "a forecast"
        if survey is None:
            return Finding("time", "not run", "", expected, "no data given")
        total = sum(_size(nano.model, name) for name in COMPONENTS)
        if nano.device.type == "cpu" and total > MAX_TIMED_ON_CPU:
            found = "a step at this size takes half a minute on a CPU: too slow to try"
            return Finding("time", "warning", "", expected, found)
        batches = survey.batches_per_epoch
        try:
            seconds = step_seconds(nano, self._config, survey)
        except UserError as error:
            return Finding("time", "not run", "", expected, error.problems[0])
        epochs = self._config["train_conf.max_epoch"]
        train_s = seconds * batches * epochs
        found = (
            f"{batches:,} batches an epoch at {1000 * seconds:.0f} ms on {nano.device.type}: "
            f"{epochs} epochs train in {numbers.roughly(train_s)}, evaluation not counted"
        )
        return Finding("time", "passed", "", expected, found)


def largest_evaluated_by_limits(config: Config) -> Largest:
    """Without data: as many utterances as are decoded at once, as long as that allows."""
    rows = config["finetune_conf.eval_batch_size"]
    return Largest(rows, TYPICAL_FRAMES * config.get("frontend_conf.lfr_n", 6), 30 * rows)


def batch_shape(config: Config, largest: Largest) -> BatchShape:
    """A batch's sizes as the model sees them, frames stacked."""
    stacked = config.get("frontend_conf.lfr_n", 6)
    return BatchShape(
        utterances=max(1, largest.utterances),
        num_frames=max(1, -(-largest.num_frames // stacked)),
        text_tokens=max(1, -(-largest.text_tokens // max(1, largest.utterances))),
    )


def full_config(config: Config) -> Config | None:
    """The released model in the same stage, where a configuration's is a smaller one."""
    conf = config["audio_encoder_conf"]
    layers = conf.get("num_blocks", 6) + conf.get("tp_blocks", 0)
    if config.stage not in STAGES or layers >= RELEASED_LAYERS:
        return None
    same = {key: config.get(key, False) for key in AT_FULL_SIZE}
    path = stage_config_path(config.stage)
    return load_config(path, find_model=False, layers=[("full size", same)])


def step_seconds(nano: Nano, config: Config, survey: Survey) -> float:
    """Time of one training step, on a batch of middling size."""
    plan = survey.sampler.epoch(1)
    batch = sorted(plan, key=len)[len(plan) // 2]
    items = survey.utterances["train"]
    stages.set_training_mode(nano.model)
    objective = Objective(nano.model, config)
    seconds = []
    # The first step pays for what is set up once; of the others the quickest was least disturbed.
    for _ in range(4):
        started_s = time.perf_counter()
        examples = [make_example(items[index], nano.extractor, nano.codec) for index in batch]
        batch_on_host = objective.prepared(collate(examples))
        loss = objective(batch_on_host.to(nano.device), training=True).total
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        if nano.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started_s)
    nano.model.zero_grad(set_to_none=True)
    return min(seconds[1:])


def _size(model: Any, component: str) -> int:
    return sum(parameter.numel() for parameter in getattr(model, component).parameters())


def _free_memory(device: torch.device) -> tuple[float, str]:
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return float(free), torch.cuda.get_device_name(device)
    return _available_memory(), "free on this machine"


def _available_memory() -> float:
    """Bytes that programs can have: on Linux with what files are cached in, which gives way."""
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
