"""Work in batches: what was kept is not done again, and half a batch does not count."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.prepare import passes

pytestmark = pytest.mark.quick


def squared(part: list[int]) -> passes.Records:
    return [{"square": number**2} for number in part]


def not_again(part: list[int]) -> passes.Records:
    raise AssertionError(f"{part} was done before")


def test_batches_keep_the_order_and_lose_nothing() -> None:
    found = list(passes.batches(range(2 * passes.BATCH + 1)))
    assert [len(batch) for batch in found] == [passes.BATCH, passes.BATCH, 1]
    assert [number for batch in found for number in batch] == list(range(2 * passes.BATCH + 1))
    assert list(passes.batches([])) == []


@pytest.mark.parametrize("num_workers", [1, 3])
def test_records_come_in_order_whoever_made_them(tmp_path: Path, num_workers: int) -> None:
    parts = [[number] for number in range(9)]
    found = list(passes.run(tmp_path, parts, squared, num_workers))
    assert found == [[{"square": number**2}] for number in range(9)]


def test_what_was_kept_is_not_done_again(tmp_path: Path) -> None:
    first = list(passes.run(tmp_path, [[1, 2], [3]], squared, 1))
    assert list(passes.run(tmp_path, [[1, 2], [3]], not_again, 1)) == first


def test_numbers_of_any_length_can_be_kept() -> None:
    assert passes.dumps({"call": 2**80}) == b'{"call": %d}' % 2**80
    assert passes.dumps({"target": "好"}) == '{"target":"好"}'.encode()


def test_a_batch_that_was_not_written_whole_is_done_again(tmp_path: Path) -> None:
    for content in (b"", b"{}\n{}", b"{}\nend 2", b"{}\n{}\nend "):
        path = tmp_path / "0.jsonl"
        path.write_bytes(content)
        assert passes.read(path) is None
    path.write_bytes(b"{}\n{}\nend 2")
    assert passes.read(path) == [{}, {}]
