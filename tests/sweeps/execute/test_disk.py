"""What a sweep takes of the disk, and what it gives back."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from conf.errors import UserError
from sweeps.directory import SweepDirectory
from sweeps.execute import disk
from sweeps.execute.disk import DiskSpace, check_disk_space, expendable, need
from sweeps.spec.sweep_file import load_sweep, stage_configs
from sweeps.trial_state import TrialState

pytestmark = pytest.mark.quick


def state(number: int, outcome: str, **notes: str) -> TrialState:
    """A trial in some state."""
    return TrialState(number, "8k", False, 2, {}, outcome=outcome, notes=notes)  # type: ignore[arg-type]


STATES = [
    state(0, "completed"),
    state(1, "pruned"),
    state(2, "completed"),
    state(3, "running"),
    state(4, "failed"),
    state(5, "completed", **{"answered.from": "0"}),
]


def test_the_best_and_who_answered_for_them_keep_their_checkpoints() -> None:
    assert expendable(STATES, [2, 0, 5], 1) == [0, 1, 4, 5]
    assert expendable(STATES, [5, 2, 0], 1) == [1, 2, 4]
    assert expendable(STATES, [2, 0, 5], 3, cared={1}) == [4]


def test_what_ended_trials_leave_goes(tmp_path: Path) -> None:
    directory = SweepDirectory(tmp_path)
    for number in range(6):
        for name in ("checkpoints", "resume", "hypotheses"):
            (directory.trial(number) / name).mkdir(parents=True)
            (directory.trial(number) / name / "file").write_text("x")
    looks_after = DiskSpace(directory, keep=1, floor=0, searches_epochs=True)
    with (directory.trial(4) / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        looks_after.care(STATES, [2, 0, 5])
        assert (directory.trial(4) / "checkpoints").exists()  # its worker has not let go of it
    looks_after.care(STATES, [2, 0, 5])
    left = sorted(
        str(path.relative_to(tmp_path / "trials")) for path in tmp_path.glob("trials/*/*")
    )
    assert [name for name in left if "hypotheses" not in name and "lock" not in name] == [
        "002/checkpoints",
        "002/resume",
        "003/checkpoints",
        "003/resume",
    ]


def test_points_to_go_on_from_stay_while_there_is_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = SweepDirectory(tmp_path)
    for number in (0, 2, 5):
        for name in ("checkpoints", "resume"):
            (directory.trial(number) / name).mkdir(parents=True)

    def left(name: str) -> list[int]:
        return sorted(int(path.parent.name) for path in tmp_path.glob(f"trials/*/{name}"))

    free = 300
    monkeypatch.setattr(disk, "free_bytes", lambda _: free)
    looks_after = DiskSpace(directory, keep=1, floor=100, searches_epochs=True)
    looks_after.care(STATES, [2, 0, 5], awaited={0})
    assert left("resume") == [0, 2]  # of the best, and of the one that a longer one will go on from
    assert left("checkpoints") == [0, 2]
    free = 150
    assert looks_after.allows()
    looks_after.care(STATES, [2, 0, 5], awaited={0})
    assert left("resume") == [0]
    free = 50
    assert not looks_after.allows()
    assert left("resume") == []
    looks_after.care(STATES, [2, 0, 5])
    assert left("checkpoints") == [2]


def test_where_no_trial_can_be_longer_points_go_when_trials_end(tmp_path: Path) -> None:
    directory = SweepDirectory(tmp_path)
    for number in (0, 2):
        (directory.trial(number) / "resume").mkdir(parents=True)
    looks_after = DiskSpace(directory, keep=1, floor=0, searches_epochs=False)
    looks_after.care(STATES, [2, 0], awaited={0})
    assert [path.parent.name for path in tmp_path.glob("trials/*/resume")] == ["000"]


def test_a_sweep_that_does_not_fit_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "model/model.pt").write_bytes(b"0" * 1_000_000)
    sweep, places = load_sweep(Path("sweep.yaml"))
    asked = need(sweep, stage_configs(sweep, places), concurrency=2)
    few = sweep.model_copy(update={"keep_checkpoints": 1})
    assert few.checkpoints_of == 1
    assert few.model_copy(update={"replicates": 2}).checkpoints_of == 4
    assert asked.running > asked.kept > 300_000
    assert asked.total == 2 * asked.running + 5 * asked.kept
    directory = SweepDirectory.of("tiny")
    check_disk_space(sweep, directory, asked)
    monkeypatch.setattr(disk, "free_bytes", lambda _: 100_000_000)
    with pytest.raises(UserError, match="got 100 MB of free disk, expected 2.. MB"):
        check_disk_space(sweep, directory, asked)
    watch = DiskSpace(directory, keep=1, floor=asked.floor, searches_epochs=True)
    assert not watch.allows()
    assert "got 100 MB of free disk" in watch.refusal
    assert watch.tight == "only 100 MB free"
