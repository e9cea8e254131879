"""What a sweep will take before it is started: memory of every stage, hours, room on the disk.

None of it needs the weights or a GPU: `trainer.checks.gpu_forecast` says where the figures
come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from conf.document.numbers import rate, roughly, size
from conf.errors import UserError, WorkError
from conf.load import Config
from sweeps.directory import SweepDirectory
from sweeps.execute.disk import free_bytes, need
from sweeps.preflight import data_places, trials_on_a_card
from sweeps.spec.sweep_file import SweepFile

if TYPE_CHECKING:  # their modules load torch
    from trainer.checks.gpu_forecast import GpuForecast
    from trainer.checks.model_checks import Need

Plan = Sequence[Config]
"""Every trial's config."""


@dataclass(frozen=True)
class Seconds:
    """What a trial takes.

    Attributes:
        training: Its steps.
        ends: Evaluations at the ends of epochs, and of the average of the best of them.
        between: Validations within epochs.
        last: What is scored with the checkpoint that would be exported.
    """

    training: float
    ends: float
    between: float
    last: float

    @property
    def evaluation(self) -> float:
        """All that is not training."""
        return self.ends + self.between + self.last

    @property
    def total(self) -> float:
        """All of it."""
        return self.training + self.evaluation


def forecast(
    sweep: SweepFile,
    configs: Mapping[str, Config],
    concurrency: int,
    plan: Plan,
    tflops: float | None = None,
) -> Iterator[str]:
    """Say line by line what the sweep will take.

    Args:
        sweep: The sweep.
        configs: Every stage's default config.
        concurrency: Trials that run at once.
        plan: The trials, as far as they are known.
        tflops: What a GPU does in a second; None measures or assumes.
    """
    from trainer.checks.gpu_forecast import ASSUMED_TFLOPS, cards, gpu_forecast

    def needs(need: Need) -> str:
        count = trials_on_a_card(sweep)
        together = f", {count} on a GPU {size(count * need.peak)}" if count > 1 else ""
        return f"{need}{together}, which {cards(count * need.peak)}"

    forecasts: dict[str, GpuForecast] = {}
    for stage, config in configs.items():
        try:
            forecasts[stage] = one = gpu_forecast(
                config.replace(data_places(sweep), "sweep"), tflops=tflops
            )
        except (UserError, WorkError) as error:
            yield f"stage {stage}: no forecast ({str(error).splitlines()[0]})"
            continue
        full = f"; at full size {needs(one.full_need)}" if one.full_need else ""
        on_cpu = "" if sweep.resources.gpu else f"; on the CPU {size(one.need.on_cpu.peak)}"
        batch, evaluated = one.batch, one.evaluated
        yield (
            f"stage {stage}: memory for the longest batches "
            f"({batch.utterances} and {evaluated.utterances} utterances of up to "
            f"{batch.num_frames / 100:.1f} and {evaluated.num_frames / 100:.1f} s) "
            f"{needs(one.need)}{full}{on_cpu}; {one.batches_per_epoch:,} batches an epoch in "
            f"{roughly(one.epoch_s)}"
        )
    if len(forecasts) == len(configs) and plan:
        yield from _hours(sweep, plan, forecasts)
        yield _assumptions(forecasts, f"{tflops or ASSUMED_TFLOPS:g}", assumed=tflops is None)
    disk = need(sweep, configs, concurrency)
    stay = min(sweep.checkpoints_of, sweep.trials)
    yield (
        f"disk: at most {size(disk.total)} "
        f"({concurrency} at once with {size(disk.running)} each, "
        f"the checkpoints of the best {stay} with {size(disk.kept)} each, and while there is "
        f"room points to go on from), "
        f"{size(free_bytes(SweepDirectory.of(sweep.name).root))} free"
    )


def _hours(sweep: SweepFile, plan: Plan, forecasts: Mapping[str, GpuForecast]) -> Iterator[str]:
    """The whole sweep, unpruned and pruned as early as can be, on 1, 2, 4 ... at once."""
    trials = [_seconds(config, forecasts[config.stage]) for config in plan]
    base_s = _base_seconds(plan, forecasts)
    trials_s = sum(trial.total for trial in trials)
    repeats = sweep.most_repeats
    repeats_s = repeats * trials_s / len(plan)
    whole_s = trials_s + repeats_s + base_s
    epochs = [config["train_conf.max_epoch"] for config in plan]
    grace = None if sweep.pruning.method == "none" else sweep.pruning.grace
    pruned = ""
    if grace is not None:
        least_s = sum(_pruned_seconds(config, forecasts[config.stage], grace) for config in plan)
        least_s += repeats * min(trial.total for trial in trials) + base_s
        pruned = f" (at least {roughly(least_s)} however early they are pruned)"
    longest_s = base_s + max(trial.total for trial in trials)
    at_once = [2**k for k in range(sweep.concurrency.bit_length()) if 2**k < sweep.concurrency]
    unit = "GPU" if sweep.resources.gpu >= 1 else "at once"
    times = ", ".join(
        f"{count} {unit}{'s' if unit == 'GPU' and count > 1 else ''} "
        f"{roughly(max(whole_s / count, longest_s))}"
        for count in [*at_once, sweep.concurrency]
    )
    repeated = f" and {repeats} repeats" if repeats else ""
    yield (
        f"sweep: {len(plan)} trials, {sum(epochs)} epochs{repeated} in {roughly(whole_s)} if none "
        f"is pruned{pruned}; with {times}"
    )
    evaluation_s = sum(trial.evaluation for trial in trials)
    parts = {
        "ends of epochs": sum(trial.ends for trial in trials),
        "between epochs": sum(trial.between for trial in trials),
        "best checkpoints": sum(trial.last for trial in trials),
    }
    named = ", ".join(f"{name} {roughly(part_s)}" for name, part_s in parts.items() if part_s)
    yield (
        f"of these: training {roughly(trials_s - evaluation_s)}, evaluation "
        f"{roughly(evaluation_s)} ({rate(evaluation_s / trials_s, 0)}: {named}), "
        + (f"repeats {roughly(repeats_s)}, " if repeats else "")
        + f"the base once {roughly(base_s)}"
    )


def _seconds(config: Config, one: GpuForecast) -> Seconds:
    """A trial that runs to its end; one that is answered from another takes none of it."""
    train, scored = config["train_conf"], one.evaluation
    epochs = train["max_epoch"]
    averaged = min(train.get("avg_nbest_model", 10), train.get("keep_nbest_models", 500), epochs)
    updates = epochs * -(-one.batches_per_epoch // train.get("accum_grad", 1))
    interval = train.get("validate_interval", 5000)
    return Seconds(
        training=one.epoch_s * epochs,
        ends=scored.epoch_s * (epochs + (averaged > 1)),
        between=scored.subset_s * (updates // interval if interval else 0),
        last=scored.end_s,
    )


def _pruned_seconds(config: Config, one: GpuForecast, grace: int) -> float:
    """A trial that ends as early as pruning may end it, or at its end if that comes first."""
    epochs = config["train_conf.max_epoch"]
    if epochs <= grace:
        return _seconds(config, one).total
    found = _seconds(config.replace({"train_conf.max_epoch": grace}, "pruned"), one)
    return found.training + found.between + one.evaluation.epoch_s * grace


def _base_seconds(plan: Plan, forecasts: Mapping[str, GpuForecast]) -> float:
    """The base is decoded once at each rate that features have, its test set at its own."""
    key = "frontend_conf.fs"
    by_rate = {config.get(key): forecasts[config.stage].evaluation.epoch_s for config in plan}
    first = forecasts[plan[0].stage].evaluation
    by_rate.setdefault(plan[0].base["frontend_conf"].get("fs"), first.epoch_s)
    return sum(by_rate.values()) + first.end_s


def _assumptions(forecasts: Mapping[str, GpuForecast], tflops: str, *, assumed: bool) -> str:
    from trainer.checks.evaluation_time import ASSUMED_TOKEN_S

    measured = {one.measured_on for one in forecasts.values()}
    if all(measured):
        found = (
            f"measured here ({', '.join(sorted(measured))}), one step of middling size and a batch "
            "of the validation set"
        )
    else:
        said = " (assumed; --tflops says otherwise, a GPU here measures)" if assumed else ""
        found = (
            f"operations counted, at {tflops} TFLOP/s a GPU{said}; decoding assumed at "
            f"{1000 * ASSUMED_TOKEN_S:g} ms for each token of a batch's longest text, texts as "
            "long as their references"
        )
    return f"time of steps and evaluation: {found}; starts of trials not counted"
