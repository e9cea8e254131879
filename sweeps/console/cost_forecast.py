"""What a sweep will take before it is started: memory of every stage, GPU hours, room on the disk.

None of it needs the weights or a GPU: `trainer.checks.gpu_forecast` says where the figures
come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from conf.document.numbers import roughly, size
from conf.errors import UserError, WorkError
from conf.load import Config
from sweeps.directory import SweepDirectory
from sweeps.execute.disk import free_bytes, need
from sweeps.preflight import data_places, trials_on_a_card
from sweeps.spec.sweep_file import SweepFile

if TYPE_CHECKING:
    from trainer.checks.model_checks import Need

Plan = Sequence[tuple[str, int]]
"""Stage and epochs of every trial."""


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
    from trainer.checks.gpu_forecast import ASSUMED_TFLOPS, GpuForecast, cards, gpu_forecast

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
    if len(forecasts) == len(configs):
        yield _hours(sweep, plan, {stage: one.epoch_s for stage, one in forecasts.items()})
        measured = {one.measured_on for one in forecasts.values()}
        yield "time of steps, evaluation not counted: " + (
            f"measured here ({', '.join(sorted(measured))}), one step of middling size"
            if all(measured)
            else f"operations counted, at {tflops or ASSUMED_TFLOPS:g} TFLOP/s a GPU"
            + ("" if tflops else " (assumed; --tflops says otherwise, a GPU here measures)")
        )
    disk = need(sweep, configs, concurrency)
    stay = min(sweep.checkpoints_of, sweep.trials)
    yield (
        f"disk: at most {size(disk.total)} "
        f"({concurrency} at once with {size(disk.running)} each, "
        f"the checkpoints of the best {stay} with {size(disk.kept)} each, and while there is "
        f"room points to go on from), "
        f"{size(free_bytes(SweepDirectory.of(sweep.name).root))} free"
    )


def _hours(sweep: SweepFile, plan: Plan, epoch_s: Mapping[str, float]) -> str:
    """The whole sweep, unpruned and pruned as early as can be, on 1, 2, 4 ... at once."""
    whole_s = sum(epoch_s[stage] * epochs for stage, epochs in plan)
    grace = None if sweep.pruning.method == "none" else sweep.pruning.grace
    least_s = sum(epoch_s[stage] * min(epochs, grace or epochs) for stage, epochs in plan)
    longest_s = max(epoch_s[stage] * epochs for stage, epochs in plan)
    at_once = [2**k for k in range(sweep.concurrency.bit_length()) if 2**k < sweep.concurrency]
    unit = "GPU" if sweep.resources.gpu >= 1 else "at once"
    times = ", ".join(
        f"{count} {unit}{'s' if unit == 'GPU' and count > 1 else ''} "
        f"{roughly(max(whole_s / count, longest_s))}"
        for count in [*at_once, sweep.concurrency]
    )
    pruned = f" (at least {roughly(least_s)} however early they are pruned)" if grace else ""
    return (
        f"sweep: {len(plan)} trials, {sum(epochs for _, epochs in plan)} epochs in "
        f"{roughly(whole_s)} if none is pruned{pruned}; with {times}"
    )
