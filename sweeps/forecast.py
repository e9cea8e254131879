"""What a sweep will take before it is started: memory and time per stage, room on the disk.

Memory and time are those of `python -m trainer check` on each stage's default config, with the
sweep's data: the model is built and trained for a few steps where that is a matter of seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from conf.checks import CHECKS
from conf.errors import UserError
from conf.load import Config
from sweeps.room import free_bytes, gigabytes, need
from sweeps.space import SweepFile
from sweeps.state import SweepDirectory

_TOLD = ("memory", "time")


def forecast(sweep: SweepFile, configs: Mapping[str, Config], concurrency: int) -> Iterator[str]:
    """Say line by line what the sweep will take.

    Args:
        sweep: The sweep.
        configs: Every stage's default config.
        concurrency: Trials that run at once.
    """
    from trainer.check import run_checks

    skipped = [id for id, check in CHECKS.items() if check.part == "model" and id not in _TOLD]
    for stage, config in configs.items():
        try:
            results = run_checks(
                config.replace(_places(sweep), "sweep"), skip=skipped, parts=("model", "data")
            )
        except UserError as error:
            yield f"stage {stage}: no forecast ({error.problems[0]})"
            continue
        found = {result.id: result.found for result in results if result.id in _TOLD}
        yield f"stage {stage}: memory {found['memory']}; time {found['time']}"
    room = need(sweep, configs, concurrency)
    stay = min(sweep.keep_checkpoints, sweep.trials)
    yield (
        f"disk: at most {gigabytes(room.total)} "
        f"({concurrency} at once with {gigabytes(room.running)} each, "
        f"the checkpoints of the best {stay} with {gigabytes(room.kept)} each, and while there is "
        f"room points to go on from), "
        f"{gigabytes(free_bytes(SweepDirectory.of(sweep.name).root))} free"
    )


def _places(sweep: SweepFile) -> dict[str, str | None]:
    return {
        "train_data_set_list": sweep.data.train,
        "valid_data_set_list": sweep.data.valid,
        "device": "cuda:0" if sweep.resources.gpu else "cpu",
        "output_dir": str(SweepDirectory.of(sweep.name).root),
    }
