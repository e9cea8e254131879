"""Checkpoints: the best are kept, what is read is what was written, and an average is the mean."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from conf.errors import DataError, WorkError
from trainer.model.checkpoint import (
    Checkpoint,
    CheckpointFolder,
    average,
    content_sha256,
    load_metadata,
    load_state,
)

pytestmark = pytest.mark.quick


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    """It keeps two epochs."""
    return CheckpointFolder(tmp_path / "checkpoints", 2, base_sha256="of the base")


def save(
    folder: CheckpointFolder, state: dict[str, torch.Tensor], epoch: int, cer: float
) -> Checkpoint:
    checkpoint = folder.add(epoch, cer)
    folder.write(checkpoint, state)
    return checkpoint


def weights(value: float, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    return {"ctc.weight": torch.full((2, 3), value, dtype=dtype)}


def test_the_best_epochs_stay_on_disk_and_the_earlier_of_equals_is_first(
    folder: CheckpointFolder,
) -> None:
    for epoch, cer in enumerate((0.3, 0.2, 0.4, 0.2), start=1):
        save(folder, weights(epoch), epoch, cer)
    assert [kept.name for kept in folder.ranked] == ["epoch-002", "epoch-004"]
    files = sorted(path.name for path in folder.directory.iterdir())
    assert files == ["epoch-002.safetensors", "epoch-004.safetensors"]

    resumed = CheckpointFolder(folder.directory, 2, base_sha256="of the base")
    resumed.restore([(kept.name, kept.epoch, kept.cer) for kept in folder.ranked])
    assert resumed.ranked == folder.ranked


def test_a_file_has_its_weights_and_says_what_they_are(folder: CheckpointFolder) -> None:
    saved = save(folder, weights(0.1), 3, 1 / 3)
    assert torch.equal(load_state(saved.path)["ctc.weight"], weights(0.1)["ctc.weight"])
    metadata = load_metadata(saved.path)
    assert (metadata["epoch"], metadata["base.sha256"]) == ("3", "of the base")
    assert float(metadata["valid/cer"]) == 1 / 3


def test_an_average_is_the_mean_in_any_order_and_in_the_weights_own_type(
    folder: CheckpointFolder,
) -> None:
    one = save(folder, weights(1e4, torch.bfloat16), 1, 0.2)
    two = save(folder, weights(-2.0, torch.bfloat16), 2, 0.3)
    mean = average([two, one])
    assert mean["ctc.weight"].dtype == torch.bfloat16
    assert torch.equal(mean["ctc.weight"], average([one, two])["ctc.weight"])
    assert mean["ctc.weight"][0, 0].item() == pytest.approx(4999.0, rel=0.01)
    averaged = folder.save_average([one, two], 0.1)
    assert averaged.name == "average-2"
    assert averaged.path.exists()
    assert [kept.name for kept in folder.ranked] == ["epoch-001", "epoch-002"]


def test_content_is_names_types_shapes_and_bytes() -> None:
    one, two = {"a": torch.zeros(4)}, {"b": torch.ones(2)}
    assert content_sha256({**one, **two}) == content_sha256({**two, **one})
    others: list[dict[str, torch.Tensor]] = [
        {"b": torch.zeros(4)},
        {"a": torch.zeros(2, 2)},
        {"a": torch.zeros(4, dtype=torch.int32)},
        {"a": torch.tensor([0.0, 0.0, 0.0, -0.0])},
    ]
    assert len({content_sha256(state) for state in (one, *others)}) == 5


def test_a_torn_or_changed_file_is_refused(folder: CheckpointFolder) -> None:
    path = save(folder, weights(0.1), 1, 0.2).path
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(DataError, match=r"epoch-001\.safetensors: got .*, expected a checkpoint"):
        load_state(path)
    path.write_bytes(whole[:-1] + b"\x00")
    with pytest.raises(DataError, match="got weights that do not match their checksum"):
        load_state(path)


def test_a_checkpoint_that_cannot_be_written_leaves_the_earlier_ones(
    folder: CheckpointFolder,
) -> None:
    first = save(folder, weights(1), 1, 0.2)
    (folder.directory / "epoch-002.safetensors").mkdir()
    with pytest.raises(WorkError, match=r"epoch-002\.safetensors: could not write the checkpoint"):
        save(folder, weights(2), 2, 0.1)
    assert load_state(first.path)
