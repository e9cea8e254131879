"""What the README quotes is what the code says: messages, ids of checks, in both languages."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from analysis import __main__ as analysis_main
from conf.errors import UserError, WorkError
from conf.keys import find_key
from conf.load import Config, load_config, parse_overrides, stage_config_path
from conf.model_dir import RELEASED, find_copy
from sweeps import __main__ as sweeps_main
from sweeps import preflight
from sweeps.directory import SweepDirectory
from sweeps.execute import disk
from sweeps.spec.sweep_file import SweepFile, load_sweep
from tests.conf.test_rules import BROKEN
from tests.conftest import BASE, ROOT
from tests.trainer.checks.test_run_checks import BAD_DATA
from trainer import __main__ as trainer_main
from trainer.checks.run_checks import one_line, run_checks
from trainer.data.manifest import read_data_list, read_headers
from trainer.finetune import loop
from trainer.finetune.resume import refuse_another_run
from trainer.model.build import build

ENGLISH = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README_zh.md").read_text(encoding="utf-8")
TELEPHONE = ROOT / "conf" / "sweep" / "telephone.yaml"

Trigger = Callable[[Path, pytest.MonkeyPatch], object]


def _config(stage: str, *overrides: str, **arguments: str | Path) -> Config:
    return load_config(stage_config_path(stage), overrides=overrides, **arguments)


def _checked(id: str, config: Config) -> None:
    [result] = [r for r in run_checks(config, parts=("config",)) if r.id == id]
    raise WorkError(one_line(result))


def _manifest(directory: Path, *lines: str) -> Path:
    path = directory / "calls.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def _part_of_a_copy(directory: Path, _: pytest.MonkeyPatch) -> None:
    copy = directory / "models" / "Fun-ASR-Nano-2512"
    shutil.copytree(BASE, copy, ignore=shutil.ignore_patterns("model.pt"))
    find_copy(RELEASED, "--model")


def _without_ctc(directory: Path, _: pytest.MonkeyPatch) -> None:
    model = directory / "model"
    shutil.copytree(BASE, model)
    state = torch.load(model / "model.pt", weights_only=True)
    weights = state.get("state_dict", state)
    for name in [name for name in weights if name.startswith("ctc")]:
        del weights[name]
    torch.save(state, model / "model.pt")
    build(_config("8k", model=model))


def _no_gpu(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    preflight.check_places(*load_sweep(TELEPHONE, overrides=["resources.cpu=1", f"base={BASE}"]))


def _full_disk(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "free_bytes", lambda path: 1_000_000)
    sweep, _places = load_sweep(TELEPHONE, overrides=[f"base={BASE}"])
    disk.check_room(sweep, SweepDirectory.of("calls"), disk.Need(1, 1, 10**9))


def _exhausted(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = SimpleNamespace(input_ids_BL=torch.zeros(8, 99), num_frames_B=torch.tensor([70]))
    with loop._naming_the_shape(batch, 7):
        raise MemoryError


def _other_directory(directory: Path, _: pytest.MonkeyPatch) -> None:
    (directory / "notes.txt").touch()
    refuse_another_run(directory, _config("8k", find_model=False))


TRIGGERS: Sequence[Trigger] = (
    lambda place, _: find_copy(RELEASED, "--model"),
    _part_of_a_copy,
    lambda place, _: _config("8k", init_param="nowhere/model.pt"),
    _without_ctc,
    lambda place, _: _config("8k", "optm_conf.lr=1e-4"),
    lambda place, _: _checked("fs-stage", _config("8k", "frontend_conf.fs=8000")),
    lambda place, _: _checked("learning-rate", _config("8k", "optim_conf.lr=1e-6")),
    lambda place, _: read_headers(
        read_data_list(_manifest(place, '{"key": "a", "source": "a.wav", "target": "a"}'))
    ),
    lambda place, _: read_data_list(
        _manifest(place, *['{"key": "a", "source": "a.wav", "target": "a"}'] * 2)
    ),
    _no_gpu,
    _full_disk,
    _exhausted,
    _other_directory,
    lambda place, _: preflight.check_store({"MLFLOW_TRACKING_URI": "http://127.0.0.1:1"}),
)
"""What makes each message of the table, in the table's order."""


def section(page: str, heading: str) -> str:
    """A section of a page, without its heading."""
    return page.partition(f"\n### {heading}\n")[2].partition("\n## ")[0].partition("\n### ")[0]


def rows(page: str, heading: str) -> list[list[str]]:
    """A table's rows below its heading, as cells."""
    lines = [line for line in section(page, heading).splitlines() if line.startswith("|")]
    assert len(lines) > 2, heading
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


WARNINGS = ((ENGLISH, "What the warnings mean"), (CHINESE, "警告是什么意思"))
MESSAGES = [row[0].strip("`") for row in rows(ENGLISH, "By its message")]


def test_both_languages_quote_the_same_messages() -> None:
    assert [row[0].strip("`") for row in rows(CHINESE, "按报错信息查")] == MESSAGES
    assert len(MESSAGES) == len(TRIGGERS)


@pytest.mark.parametrize("number", range(len(TRIGGERS)), ids=lambda n: MESSAGES[n][:60])
def test_the_code_says_what_the_table_quotes(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("MODELSCOPE_CACHE", "HF_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    with pytest.raises((UserError, WorkError)) as caught:
        TRIGGERS[number](tmp_path, monkeypatch)
    pattern = ".*".join(map(re.escape, MESSAGES[number].split("…")))
    lines = str(caught.value).splitlines()
    assert any(re.fullmatch(pattern, line) for line in lines), lines


def test_every_check_that_warns_is_explained() -> None:
    """And no other; in both languages."""
    # Each of these is made to warn by the tests of the rules and of the checks.
    warns = {
        id for *_, broken in BROKEN for id, severity in broken.items() if severity == "warning"
    }
    warns |= {id for _, id, status, _ in BAD_DATA if status == "warning"}
    warns |= {"effects", "spelling", "time", "unknown-keys"}
    for page, heading in WARNINGS:
        named = [id for row in rows(page, heading) for id in re.findall(r"`([\w-]+)`", row[0])]
        assert sorted(named) == sorted(warns)


def test_what_is_logged_as_a_warning_is_quoted_as_it_is() -> None:
    """The places that differ are the code's own."""
    code = "".join(
        path.read_text("utf-8")
        for part in ("trainer", "sweeps")
        for path in ROOT.glob(f"{part}/*.py")
    )
    english, chinese = (
        [row[0].strip("`") for row in rows(page, heading) if " " in row[0].strip("`")]
        for page, heading in WARNINGS
    )
    quoted = [row for row in english if "`, `" not in row]
    assert quoted == [row for row in chinese if "`、`" not in row and "`, `" not in row]
    assert len(quoted) == 5
    for message in quoted:
        pattern = r"(?:%[ds]|%r|\{.*?\})".join(map(re.escape, message.split("…")))
        assert re.search(rf'_LOG\.warning\(\s*"{pattern}', code), message


_BASH = re.compile(r"```bash\n(.*?)```", re.DOTALL)
_PARSERS = {
    "trainer": trainer_main._parser,
    "sweeps": sweeps_main._parser,
    "analysis": analysis_main.parser,
}


def _commands(page: str) -> list[str]:
    """Our own commands in a page's blocks, without comments and broken lines."""
    lines = "\n".join(_BASH.findall(page)).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("python -m ") and " uv " not in line]


@pytest.mark.parametrize("command", dict.fromkeys(_commands(ENGLISH) + _commands(CHINESE)))
def test_every_command_is_understood(command: str) -> None:
    """Flags and keys are known, and the project's files that it names are there."""
    module, *arguments = shlex.split(command.removeprefix("python -m "), comments=True)
    parsed, rest = _PARSERS[module]().parse_known_args(arguments)
    for override in parse_overrides(rest):
        key = override.partition("=")[0]
        known = find_key(key) or (
            module == "sweeps" and key.split(".")[0] in SweepFile.model_fields
        )
        assert known, key
    assert not rest or module == "sweeps" or parsed.takes_overrides
    for word in arguments:
        if word.startswith(("conf/", "trainer/")):
            assert (ROOT / word).exists()


def test_both_languages_have_the_same_headings_and_commands() -> None:
    """In the same order; Chinese may leave out nothing."""
    levels = [re.findall(r"^(#+) ", page, re.MULTILINE) for page in (ENGLISH, CHINESE)]
    assert levels[0] == levels[1]
    english, chinese = (
        [shlex.join(shlex.split(line, comments=True)) for line in _commands(page)]
        for page in (ENGLISH, CHINESE)
    )
    assert [line.replace(" --lang zh", "") for line in chinese] == english


@pytest.mark.parametrize("page", [ENGLISH, CHINESE], ids=["English", "Chinese"])
def test_links_lead_somewhere(page: str) -> None:
    """To a heading of the page, as GitHub names it, or to a file."""
    headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for target in re.findall(r"\]\(([^)\s]+)\)", page):
        if target.startswith("#"):
            assert target[1:] in anchors
        elif not target.startswith("https://"):
            assert (ROOT / target).exists(), target


@pytest.mark.parametrize("client", ["modelscope", "hf"])
def test_the_hubs_clients_have_the_flags_that_the_page_uses(client: str) -> None:
    """Downloading itself needs a network."""
    command = [str(Path(sys.executable).parent / client), "download", "--help"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for flag in ("--local-dir", "--exclude"):
        assert flag in found
        assert flag in ENGLISH
        assert flag in CHINESE
    assert f"{client} download {RELEASED} --local-dir models/" in ENGLISH
