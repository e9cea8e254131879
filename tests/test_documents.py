"""What the pages say holds: messages, ids of checks, commands, links, in both languages.

The pages themselves are listed and taken apart in `tests/documents.py`; their first day is run in
`tests/end_to_end/test_first_day.py`.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from analysis import __main__ as analysis_main
from conf.errors import UserError, WorkError
from conf.files import output_held
from conf.keys import find_key
from conf.load import Config, load_config, parse_overrides, stage_config_path
from conf.model_dir import RELEASED, file_paths, find_copy
from sweeps import __main__ as sweeps_main
from sweeps import preflight
from sweeps.directory import SweepDirectory
from sweeps.execute import disk
from sweeps.run import _Run
from sweeps.spec.sweep_file import SweepFile, load_sweep, stage_configs
from tests.conf.test_rules import BROKEN
from tests.conftest import BASE, ROOT, base_without_ctc
from tests.documents import NAMES, PAGES, PAIRS, Page, page_at
from tests.trainer.checks.test_data_checks import BAD_DATA
from trainer import __main__ as trainer_main
from trainer.checks import gpu_forecast, model_checks
from trainer.checks.model_checks import Need
from trainer.checks.run_checks import one_line, raise_if_failed, run_checks
from trainer.data.manifest import read_data_list, read_headers
from trainer.evaluation import evaluate as evaluation
from trainer.evaluation.evaluate import Scores, evaluate
from trainer.finetune import loop, scoring
from trainer.finetune.resume import refuse_another_run
from trainer.finetune.run import finetune
from trainer.finetune.run_directory import held
from trainer.model.build import build
from trainer.model.memory import exhaustion_named
from trainer.tracking.event_log import NullTracker

ENGLISH, CHINESE = page_at("docs/messages.md"), page_at("docs/zh/messages.md")
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
    build(_config("8k", model=base_without_ctc(directory / "model")))


def _cut_off(directory: Path, _: pytest.MonkeyPatch) -> None:
    shutil.copytree(BASE, directory / "model")
    weights = directory / "model" / "model.pt"
    weights.write_bytes(weights.read_bytes()[:-100])
    build(_config("8k", model=weights.parent))


def _of_two_models(directory: Path, _: pytest.MonkeyPatch) -> None:
    shutil.copytree(BASE, directory / "model")
    config = directory / "model" / "config.yaml"
    config.write_text(config.read_text(encoding="utf-8").replace("num_blocks: 2", "num_blocks: 1"))
    build(_config("8k", model=config.parent))


def _no_gpu(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    preflight.check_places(*load_sweep(TELEPHONE, overrides=["resources.cpu=1", f"base={BASE}"]))


def _full_disk(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "free_bytes", lambda path: 1_000_000)
    sweep, _places = load_sweep(TELEPHONE, overrides=[f"base={BASE}"])
    disk.check_disk_space(sweep, SweepDirectory.of("calls"), disk.Need(1, 1, 10**9))


def _exhausted(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch: Any = SimpleNamespace(input_ids_BL=torch.zeros(8, 99), num_frames_B=torch.tensor([70]))
    with exhaustion_named(lambda: loop._too_large(batch, 7)):
        raise MemoryError


def _exhausted_in_evaluation(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch: Any = [SimpleNamespace(features_TF=torch.zeros(70, 560))]
    with exhaustion_named(lambda: evaluation._too_large(batch, 200)):
        raise MemoryError


def _crowded_gpu(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "card_bytes", lambda: 24 * 10**9)
    monkeypatch.setattr(gpu_forecast, "memory", lambda config: Need(10**10, 10**9))
    overrides = ["resources.gpu=0.25", "concurrency=4", f"base={BASE}"]
    sweep, places = load_sweep(TELEPHONE, overrides=overrides)
    preflight.check_cards(sweep, stage_configs(sweep, places), places)


def _small_gpu(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(model_checks, "_free_memory", lambda device: (24e9, "a GPU"))
    monkeypatch.setattr(model_checks, "memory_need", lambda *_, **sets: Need(10**10, 10**11))
    results = run_checks(_config("s3", model=BASE), parts=("config",), of_gpu=True)
    raise_if_failed(results)


def _no_such_gpu(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # which is then put back
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    trainer_main._use_gpu("7")


def _other_directory(directory: Path, _: pytest.MonkeyPatch) -> None:
    (directory / "notes.txt").touch()
    refuse_another_run(directory, _config("8k", find_model=False))


def _trained_twice(directory: Path, _: pytest.MonkeyPatch) -> None:
    with held(directory / "run"), held(directory / "run"):
        raise AssertionError


def _reported_twice(directory: Path, _: pytest.MonkeyPatch) -> None:
    report = directory / "reports" / "report.html"
    with output_held(report, "--output_dir"), output_held(report, "--output_dir"):
        raise AssertionError


def _damaged(directory: Path, _: pytest.MonkeyPatch) -> None:
    (directory / "config.yaml").touch()
    refuse_another_run(directory, _config("8k", find_model=False))


def _foreign_code(directory: Path, _: pytest.MonkeyPatch) -> None:
    text = '{"file_path_metas": {"remote_code": "evil.py"}}'
    (directory / "configuration.json").write_text(text, encoding="utf-8")
    file_paths(directory)


TRIGGERS: Sequence[Trigger] = (
    lambda place, _: find_copy(RELEASED, "--model"),
    _part_of_a_copy,
    lambda place, _: _config("8k", init_param="nowhere/model.pt"),
    _without_ctc,
    _cut_off,
    _of_two_models,
    lambda place, _: _config("8k", "optm_conf.lr=1e-4"),
    lambda place, _: _checked("fs-stage", _config("8k", "frontend_conf.fs=8000")),
    lambda place, _: _checked("learning-rate", _config("8k", "optim_conf.lr=1e-6")),
    _small_gpu,
    lambda place, _: _config("s3", "finetune_conf.lora_dtype=bf61"),
    lambda place, _: read_headers(
        read_data_list(_manifest(place, '{"key": "a", "source": "a.wav", "target": "a"}'))
    ),
    lambda place, _: read_data_list(
        _manifest(place, *['{"key": "a", "source": "a.wav", "target": "a"}'] * 2)
    ),
    _no_gpu,
    _crowded_gpu,
    _full_disk,
    _no_such_gpu,
    _exhausted,
    _exhausted_in_evaluation,
    _other_directory,
    lambda place, _: preflight.check_store({"MLFLOW_TRACKING_URI": "http://127.0.0.1:1"}),
    _trained_twice,
    _reported_twice,
    _damaged,
    _foreign_code,
)
"""What makes each message of the table, in the table's order."""


WARNINGS = ((ENGLISH, "What the warnings mean"), (CHINESE, "警告是什么意思"))
MESSAGES = [row[0].strip("`") for row in ENGLISH.rows("By its message")]


def test_both_languages_quote_the_same_messages() -> None:
    assert [row[0].strip("`") for row in CHINESE.rows("按报错信息查")] == MESSAGES
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
        named = [id for row in page.rows(heading) for id in re.findall(r"`([\w-]+)`", row[0])]
        assert sorted(named) == sorted(warns)


def _quoted(page: Page, heading: str) -> list[str]:
    """The warnings that the page quotes, in the order of its table; ids are of one word."""
    cells = [row[0] for row in page.rows(heading) if " " in row[0]]
    return [cell.strip("`") for cell in cells if "`、`" not in cell and "`, `" not in cell]


WARNED = _quoted(*WARNINGS[0])


def test_both_languages_quote_the_same_warnings() -> None:
    assert _quoted(*WARNINGS[1]) == WARNED
    assert len(WARNED) == 6


def _warned(message: str, said: Sequence[str]) -> bool:
    pattern = ".*".join(map(re.escape, message.split("…")))
    return any(re.fullmatch(pattern, line) for line in said)


def _endless(*arguments: object, **options: object) -> Scores:
    """What the model writes, and a thousand characters more each time."""
    scores = evaluate(*arguments, **options)  # type: ignore[arg-type]
    babble = (replace(one, cer=replace(one.cer, insertions=1000)) for one in scores.utterances)
    return replace(scores, utterances=tuple(babble))


def test_a_fine_tune_warns_as_the_page_quotes(
    tiny_config: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Of texts too long, a GPU that is not there, a cache that is too small, and babble."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(scoring, "evaluate", _endless)
    config = tiny_config(
        "s2",
        specaug=None,
        device="cuda:7",
        dataset_conf__max_target_length=12,
        finetune_conf__feature_cache_dir=str(tmp_path / "cache"),
        finetune_conf__feature_cache_mb=1,
    )

    def stop(_: object) -> None:
        raise SystemExit  # at the evaluation before the first epoch

    with pytest.raises(SystemExit):
        finetune(config, NullTracker(), stop)
    unheard = [message for message in WARNED[:4] if not _warned(message, caplog.messages)]
    assert not unheard, caplog.messages


class _Away:
    """A store that does not answer."""

    def ensure_sweep(self, *_: object) -> str:
        raise OSError("no answer")


def test_a_sweep_warns_as_the_page_quotes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a store that is away when it stops, and of a disk that is nearly full."""
    monkeypatch.chdir(tmp_path)
    sweep, places = load_sweep(TELEPHONE, overrides=[f"base={BASE}"])
    directory = SweepDirectory.of("calls")
    directory.create(sweep)
    room, configs = disk.Need(1, 1, 1), stage_configs(sweep, places)
    around = (Console(), None, None, 1, None)
    run = _Run(directory, sweep, configs, _Away(), room, *around)  # type: ignore[arg-type]
    run._ledger.ask()
    with pytest.raises(WorkError, match="no answer"):
        run.begin()
    run.stopped(interrupted=False)
    monkeypatch.setattr(disk, "free_bytes", lambda path: room.floor)
    assert run._disk.allows()
    unheard = [message for message in WARNED[4:] if not _warned(message, caplog.messages)]
    assert not unheard, caplog.messages


_PARSERS = {
    "trainer": trainer_main._parser,
    "sweeps": sweeps_main._parser,
    "analysis": analysis_main.parser,
}


COMMANDS = dict.fromkeys(command for page in PAGES for command in page.commands)


@pytest.mark.parametrize("command", COMMANDS)
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


LANGUAGES = pytest.mark.parametrize(
    ("english", "chinese"), PAIRS, ids=[english.name for english, _ in PAIRS]
)
EACH = pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])


def test_every_page_is_there_in_both_languages() -> None:
    assert sorted(path.name for path in (ROOT / "docs/zh").glob("*.md")) == NAMES


@LANGUAGES
def test_both_languages_have_the_same_headings_and_commands(english: Page, chinese: Page) -> None:
    """In the same order, and the commands print the same: Chinese may leave out nothing."""
    assert [level for level, _ in chinese.headings] == [level for level, _ in english.headings]
    assert chinese.shown == english.shown


@LANGUAGES
def test_both_languages_have_the_same_tables_and_figures(english: Page, chinese: Page) -> None:
    """Rows, and the figures in each row: translated units aside, no figure differs."""
    pairs = zip(_table_rows(english), _table_rows(chinese), strict=True)
    for ours, theirs in pairs:
        assert _figures(theirs) == _figures(ours), theirs


def _table_rows(page: Page) -> list[str]:
    return [line for line in page.prose.splitlines() if line.startswith("|")]


def _figures(row: str) -> set[str]:
    """Its numbers, `1,000` as `1000`; not those in code, links and names such as s2."""
    plain = re.sub(r"`[^`]*`|\]\([^)]*\)", "", row)
    plain = re.sub(r"(?<=\d),(?=\d{3})", "", plain)
    return set(re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\d.a-zA-Z])", plain))


@pytest.mark.parametrize("readme", PAIRS[0], ids=["English", "Chinese"])
def test_a_readme_is_a_door(readme: Page) -> None:
    """It is short, and says what the stages are before anything else, on the first screen."""
    lines = readme.text.splitlines()
    assert len(lines) <= 200
    first_screen = "\n".join(lines[:18])
    for stage in ("8k", "s1", "s2", "s3"):
        assert f"| `{stage}` | `{stage_config_path(stage).stem}` |" in first_screen
    assert "```mermaid" in readme.text
    assert "[Apache-2.0](LICENSE)" in readme.text


def test_every_page_is_reached_from_the_readme_of_its_language() -> None:
    for number, readme in enumerate(PAIRS[0]):
        linked = {target.partition("#")[0] for target in readme.links}
        assert {pair[number].name for pair in PAIRS[1:]} <= linked


def test_the_licence_is_the_one_that_the_package_declares() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert text.split()[:5] == ["Apache", "License", "Version", "2.0,", "January"]
    assert text.rstrip().endswith("limitations under the License.")
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", [p for p in PAGES if "docs/" in p.name], ids=lambda p: p.name)
def test_every_command_shows_what_it_prints(page: Page) -> None:
    for shown in page.shown:
        ours = [line for line in shown.commands if line.startswith("python -m ")]
        assert shown.output or not ours or " uv " in ours[0], ours


@EACH
def test_links_lead_somewhere(page: Page) -> None:
    """To a heading, as GitHub names it, or to a file."""
    assert len(set(page.anchors)) == len(page.anchors), "a heading twice"
    for target in page.links:
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = (page.path.parent / name).resolve() if name else page.path
        assert path.exists(), target
        assert not anchor or anchor in Page(path).anchors, target


@pytest.mark.parametrize("client", ["modelscope", "hf"])
def test_the_hubs_clients_have_the_flags_that_the_page_uses(client: str) -> None:
    """Downloading itself needs a network."""
    command = [str(Path(sys.executable).parent / client), "download", "--help"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for flag in ("--local-dir", "--exclude"):
        assert flag in found
        for day in (page_at("docs/first_day.md"), page_at("docs/zh/first_day.md")):
            assert flag in day.text
            assert f"{client} download {RELEASED} --local-dir models/" in day.text


_FILE = re.compile(r"`((?:conf|trainer|analysis|sweeps|tests)/[\w./]*)`")


@pytest.mark.parametrize("name", ["docs/architecture.md", "docs/zh/architecture.md"])
def test_the_architecture_page_names_every_room_and_files_that_are_there(name: str) -> None:
    """A room is a package of ours; tests have no page of their own."""
    named = set(_FILE.findall(page_at(name).text))
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []
    packages = ("conf", "trainer", "analysis", "sweeps")
    rooms = {
        found.parent.relative_to(ROOT).as_posix() + "/"
        for package in packages
        for found in ROOT.glob(f"{package}/**/__init__.py")
    }
    assert rooms - named <= {"trainer/", "analysis/"}, "which hold rooms and their commands alone"
