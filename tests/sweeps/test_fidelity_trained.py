"""The real trainer's longer run contains the shorter one, number by number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from conf.load import Config
from sweeps.fidelity import Course, answer, read_course
from trainer.run import finetune
from trainer.tracking import EventLog


def test_the_real_trainers_longer_run_contains_the_shorter(
    tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    def trained(epochs: int) -> tuple[Config, Course]:
        config = tiny_config(
            "8k",
            train_conf__max_epoch=epochs,
            train_conf__avg_nbest_model=1,
            output_dir=str(tmp_path / f"of-{epochs}"),
        )
        result = finetune(config, EventLog(Path(config["output_dir"])))
        course = read_course(result.output_dir)
        assert course is not None
        assert course.final["objective"] == result.objective
        return config, course

    _, longer = trained(3)
    config, shorter = trained(2)
    found = answer(longer, config)
    assert found is not None
    clocks = {"train/utterances_per_s"}
    assert {k: v for k, v in found.metrics.items() if k not in clocks} == {
        k: v for k, v in shorter.final.items() if k not in clocks
    }
    for epoch in range(3):
        mine, theirs = longer.epochs[epoch], shorter.epochs[epoch]
        assert mine.step == theirs.step
        assert {**mine.metrics, **theirs.metrics, "train/utterances_per_s": 0} == {
            **theirs.metrics,
            **mine.metrics,
            "train/utterances_per_s": 0,
        }
