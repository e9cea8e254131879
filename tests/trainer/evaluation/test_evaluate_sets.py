"""Several sets scored in one call, mistakes told before the work."""

import errno
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from conf.errors import run_command
from tests.conftest import BASE
from trainer.__main__ import main
from trainer.evaluation.error_rates import cer, mer
from trainer.evaluation.evaluate import Scores

RATES = ("cer", "cer_ctc", "mer", "wer", "raw_cer", "repetition_rate")


def test_one_call_scores_several_sets(
    cut: Callable[..., Path], corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keywords = tmp_path / "keywords.txt"
    keywords.write_text("\ufeff一\n\n 银行卡 \n", encoding="utf-8")
    sets = [
        f"telephone={cut('test', 10)}",
        str(cut("wideband", 6)),
        f"silence={corpus / 'silence.jsonl'}",
    ]
    arguments = ["evaluate", "--model", str(BASE), "--data", *sets]
    first, second = tmp_path / "first", tmp_path / "second"
    assert main([*arguments, "--keywords", str(keywords), "--output_dir", str(first)]) == 0
    scores = json.loads((first / "scores.json").read_text(encoding="utf-8"))
    assert list(scores) == ["telephone", "wideband-6", "silence"]
    assert all(math.isfinite(scores["telephone"][rate]) for rate in RATES)
    assert set(scores["telephone"]["by_keyword"]) == {"一", "银行卡"}
    assert scores["silence"]["inserted_share"] >= 0
    lines = _lines(first / "hypotheses" / "telephone.jsonl")
    errors = sum(line["substitutions"] + line["deletions"] + line["insertions"] for line in lines)
    reference_length = sum(line["reference_length"] for line in lines)
    assert scores["telephone"]["cer"] == errors / reference_length
    for line in lines:
        assert line["mer_errors"] == mer(line["reference"], line["text"]).errors
        assert line["cer_ctc_errors"] == cer(line["reference"], line["ctc_text"]).errors
        assert "".join(step[1] for step in line["alignment"]) == line["reference"]
    shown = capsys.readouterr()
    assert shown.err.startswith("loading ")  # and progress, where the machine is busy
    assert f"{100 * scores['telephone']['cer']:.2f}" in shown.out
    assert "characters per minute of silence" in shown.out

    # Against those hypotheses, and against the model that wrote them, nothing changed.
    for base in (first, BASE):
        assert main([*arguments, "--base", str(base), "--output_dir", str(second)]) == 0
        changed = json.loads((second / "scores.json").read_text(encoding="utf-8"))
        assert [values["changed"] for values in changed.values()] == [0.0, 0.0, 0.0]
    assert sorted(path.name for path in second.rglob("*") if path.is_file()) == [
        "scores.json",
        "silence.jsonl",
        "telephone.jsonl",
        "wideband-6.jsonl",
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--data a={valid} a={valid}", "--data: got the set 'a' twice"),
        ("--data ../a={valid}", "--data: got the name '../a'"),
        ("--data a=gone.jsonl", "gone.jsonl: got no such file"),
        ("--data a={unreadable}", "unreadable.jsonl:1: source: got"),
        ("--model {directory}", "without config.yaml"),
        ("--keywords {directory}/gone.txt", "gone.txt: got no such file"),
        ("--keywords {empty}", "empty.txt: got no keywords, expected one a line"),
        ("--base {directory}", "--base: got"),
        ("--base {directory}/gone.jsonl", "gone.jsonl: got no such file"),
        ("--base {valid}", "KeyError: 'text', expected JSON lines with key and text"),
        ("--base {other}", "got no text of the base for 'valid-0000'"),
        ("--output_dir {empty}", "which is no directory"),
        ("--output_dir {empty}/deep/er", "which is no directory"),
    ],
)
def test_a_mistake_is_told_in_a_line_and_writes_nothing(
    given: str,
    message: str,
    cut: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "other.jsonl").write_text('{"key": "x", "text": "y"}\n')
    (tmp_path / "unreadable.jsonl").write_text(
        '{"key": "k", "source": "empty.txt", "target": "好"}\n'
    )
    places = {
        "valid": cut("valid", 2),
        "directory": tmp_path / "directory",
        "empty": tmp_path / "empty.txt",
        "other": tmp_path / "other.jsonl",
        "unreadable": tmp_path / "unreadable.jsonl",
    }
    before = sorted(tmp_path.rglob("*"))
    flag, *values = given.split()
    flags = {
        "--model": [str(BASE)],
        "--data": ["valid={valid}"],
        "--output_dir": [str(tmp_path / "out")],
        flag: values,
    }
    argv = [value for flag, values in flags.items() for value in (flag, *values)]
    code = run_command(main, ["evaluate", *(value.format(**places) for value in argv)])
    error = capsys.readouterr().err
    assert code == 2
    assert message in error
    assert len([line for line in error.splitlines() if not line.startswith("loading ")]) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_full_disk_leaves_the_scores_that_were_there(
    cut: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output_dir = tmp_path / "out"
    argv = ["evaluate", "--model", str(BASE), "--output_dir", str(output_dir), "--data"]
    argv += [f"one={cut('valid', 2)}", f"two={cut('test', 2)}"]
    assert run_command(main, argv) == 0
    before = {path: path.read_bytes() for path in output_dir.rglob("*") if path.is_file()}
    write = Scores.write_hypotheses

    def full(self: Scores, path: Path) -> None:
        write(self, path)
        if path.stem == "two":
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Scores, "write_hypotheses", full)
    assert run_command(main, argv) == 1
    assert "could not write the scores ([Errno 28] No space left" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in output_dir.rglob("*") if path.is_file()} == before


def _lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
