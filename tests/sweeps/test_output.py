"""Where prints go: to files that may fill up, and past `sys.stdout`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from sweeps.output import Lasting, descriptors_to, lasting_file, tail

pytestmark = pytest.mark.quick


def test_a_console_that_goes_away_does_not_end_the_work() -> None:
    reader, writer = os.pipe()
    with Lasting(os.fdopen(writer, "wb", 0), encoding="utf-8", write_through=True) as console:
        assert console.write("seen\n") == 5
        assert os.read(reader, 100) == b"seen\n"
        os.close(reader)
        assert console.write("lost\n") == 5
        console.flush()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_disk_that_is_full_loses_lines_and_nothing_else() -> None:
    with lasting_file(Path("/dev/full")) as log:
        log.write("lost\n")


def test_a_log_is_added_to(tmp_path: Path) -> None:
    for line in ("first", "second"):
        with lasting_file(tmp_path / "log") as log:
            log.write(f"{line}\n")
            assert (tmp_path / "log").read_text().endswith(f"{line}\n"), "at once"
    assert (tmp_path / "log").read_text() == "first\nsecond\n"


def test_what_children_and_libraries_print_goes_to_the_file(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log, descriptors_to(log.fileno()):
        os.write(2, b"from a library\n")
        subprocess.run(["echo", "from a child"], check=True)
    subprocess.run(["echo", "afterwards"], check=True)
    assert (tmp_path / "log").read_text() == "from a library\nfrom a child\n"


def test_the_last_lines_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert tail(log, 3) == []
    log.write_text("".join(f"line {number}\n" for number in range(1000)))
    assert tail(log, 2) == ["line 998", "line 999"]
    assert tail(log, 1000, max_bytes=9) == ["line 999"], "however long the log is"
