"""The alignment documents: fresh, repeatable, quick; and why the hand-written ones' drift cannot
happen to them (facts/RECIPE.md, last section)."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.__main__ import main
from analysis.alignment.align import FILES, NAMES, documents, gather, stale
from analysis.alignment.pages import TEMPLATES, Page
from conf import effects, keys, load
from conf.delta import counts, deltas_markdown
from conf.document.language import ENGLISH
from conf.errors import ConfigError
from conf.load import HERE, load_config
from conf.reading import flatten, read_yaml
from conf.writing import format_value
from tests.conftest import cpu_s

pytestmark = pytest.mark.quick

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    """All documents, made now."""
    return documents()


@pytest.fixture
def copy(tmp_path: Path) -> Callable[..., Path]:
    """A copy of conf/*.yaml with a text in one file replaced."""

    def make(name: str, old: str, new: str) -> Path:
        for path in HERE.glob("*.yaml"):
            text = path.read_text(encoding="utf-8")
            if path.stem == name:
                assert old in text
                text = text.replace(old, new)
            (tmp_path / path.name).write_text(text, encoding="utf-8")
        return tmp_path

    return make


def page(directory: Path, name: str) -> str:
    """One English document from a copy of conf/."""
    return Page(gather(directory), ENGLISH, name, dict.fromkeys(NAMES, "")).render()


def tables(text: str) -> list[list[str]]:
    """The rows of all Markdown tables, cells without quotes."""
    rows = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip(" `*") for cell in row] for row in rows]


def test_committed_documents_are_fresh() -> None:
    """Mend it with `python -m analysis align`."""
    assert stale() == []


def test_five_documents_in_two_languages(made: dict[str, str]) -> None:
    """Under the source document's names; no slot is left unfilled."""
    assert set(made) == {f"{name}{suffix}.md" for name in NAMES for suffix in ("", "_zh")}
    for name, text in made.items():
        assert "{{" not in text, name
        for target in re.findall(r"\]\(([^)]+)\)", text):
            assert target in made, f"{name} links to {target}"


def test_chinese_is_chinese(made: dict[str, str]) -> None:
    """Every line of prose of a Chinese document has Chinese in it."""
    known = re.compile(r"`[^`]*`|\[[^]]*\]\([^)]*\)|\b(MODIFIED|NEW|OMITTED|ALIGNED)\b|both|all")
    for name in NAMES:
        fenced = False
        for line in made[f"{name}_zh.md"].splitlines():
            fenced ^= line.startswith("```")
            if fenced or re.search(r"[\u4e00-\u9fff]", line):
                continue
            words = re.findall(r"[A-Za-z]{2,}", known.sub("", line))
            assert set(words) <= {"s1", "k", "hub", "SHA", "custom", "Hz"}, f"{name}: {line}"


def test_stale_documents_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Missing, changed and strange ones; exit 1, then 0 after writing."""
    assert main(["align", "--output_dir", str(tmp_path), "--check"]) == 1
    assert "README_CONFIG.md: missing" in capsys.readouterr().err
    assert main(["align", "--output_dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("wrote ") == 2 * len(NAMES)
    assert main(["align", "--output_dir", str(tmp_path), "--check"]) == 0
    assert main(["align", "--output_dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "", "nothing is written again"
    path = tmp_path / "QUICK_CONFIG_DIFF_zh.md"
    path.write_text(path.read_text(encoding="utf-8").replace("5e-5", "6e-5"), encoding="utf-8")
    (tmp_path / "OLD.md").write_text("old")
    assert main(["align", "--output_dir", str(tmp_path), "--check"]) == 1
    error = capsys.readouterr().err
    assert re.search(r"QUICK_CONFIG_DIFF_zh.md:\d+: stale", error)
    assert "OLD.md: nothing makes it" in error


def test_same_bytes_quickly_without_torch(tmp_path: Path, torch_s: float) -> None:
    """Whatever the order of hashes; all ten take less CPU than loading torch twice would."""
    code = (
        "import sys; from analysis.__main__ import main; "
        "code = main(['align', '--output_dir', sys.argv[1]]); "
        "heavy = {'torch', 'ray', 'mlflow', 'funasr', 'optuna', 'numpy'} & set(sys.modules); "
        "assert not heavy, heavy; sys.exit(code)"
    )
    results = []
    for seed in ("1", "2"):
        directory = tmp_path / seed
        took_s = cpu_s(
            sys.executable,
            *("-c", code, str(directory)),
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONHASHSEED": seed,
                "TZ": "UTC" if seed == "1" else "Asia/Tokyo",
            },
        )
        assert took_s < 2 * torch_s
        results.append({path.name: path.read_bytes() for path in directory.iterdir()})
    assert results[0] == results[1]


def test_a_users_own_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The document of a trial is the same one; against another file; in Chinese."""
    path = tmp_path / "my.yaml"
    path.write_text("optim_conf: {lr: 2e-4}  # tried by hand\n")
    main(["align", "--config", str(path)])
    config = load_config(path)
    from conf.delta import classify

    assert capsys.readouterr().out == deltas_markdown(classify(config))
    main(["align", "--config", str(path), "--base", str(HERE / "stage1_encoder_adapt.yaml")])
    text = capsys.readouterr().out
    assert text.startswith("# stage1_encoder_adapt.yaml → my.yaml\n")
    assert "| `optim_conf.lr` | `1e-4` | `2e-4` | MODIFIED | critical |" in text
    main(["align", "--config", str(path), "--language", "zh"])
    text = capsys.readouterr().out
    assert text.startswith("# 相对预训练模型的改动\n")
    assert "| tried by hand |" in text, "somebody's own words stay as they are"


def test_base_without_config() -> None:
    """There is nothing to compare with it."""
    with pytest.raises(Exception, match="--base: got no --config"):
        main(["align", "--base", "a.yaml"])


# Where hand-written documents and files drifted apart


def test_drift_stage_1(copy: Callable[..., Path]) -> None:
    """Said: "Documents say fs 8000 and SpecAug; its YAML had 16000 and SpecAug commented out": the
    documents say what the file says, and the passages about 8000 refuse to be printed."""
    directory = copy("stage1_encoder_adapt", "fs: 8000", "fs: 16000")
    [row] = [
        row
        for row in tables(page(directory, "CONFIG_COMPARISON_TABLE"))
        if row[0] == "frontend_conf.fs"
    ][:1]
    assert row[3] == "16000"
    with pytest.raises(ConfigError, match=r"README_CONFIG.md:\d+: .*no longer holds"):
        page(directory, "README_CONFIG")
    directory = copy("stage1_encoder_adapt", "specaug: SpecAugLFR", "# specaug: SpecAugLFR")
    [row] = [
        row for row in tables(page(directory, "CONFIG_COMPARISON_TABLE")) if row[0] == "specaug"
    ][:1]
    assert (row[2], row[3]) == ("SpecAugLFR", "—")


def test_drift_betas(made: dict[str, str], copy: Callable[..., Path]) -> None:
    """Said: "Documents list optim_conf.betas as NEW; the YAML has none". A key that they call
    NEW is set in the file, and one that is in no file is not mentioned as changed."""
    assert "optim_conf.betas" not in "".join(made.values())
    facts = gather()
    for section in made["QUICK_CONFIG_DIFF.md"].split("\n## ")[1:6]:
        [column] = [c for c in facts.columns.values() if f"`{c.file}`" in section.splitlines()[0]]
        new = {row[0] for row in tables(section) if "NEW" in row}
        assert new <= column.config.in_file
        assert new == {delta.key for delta in column.deltas if delta.change == "NEW"}
    directory = copy("config_8k_telephone", "  lr: 5e-5", "  betas: [0.9, 0.98]\n  lr: 5e-5")
    assert "| `optim_conf.betas` | - | `[0.9, 0.98]` | NEW |" in page(
        directory, "QUICK_CONFIG_DIFF"
    )


def test_drift_omitted(made: dict[str, str]) -> None:
    """Said: "Documents say omitted: code default; the YAML spells nearly every key out". What
    they call left out stands in none of the files named there."""
    facts = gather()
    rows = tables(made["QUICK_CONFIG_DIFF.md"].split("## Left out")[1])[2:]
    assert len(rows) > 20
    for key, _, standalone, by in rows:
        names = list(FILES) if by == "all" else by.split(", ")
        for name in names:
            assert key not in facts.columns[name].config.in_file
        assert standalone == format_value(keys.all_keys()[key].default)


def test_drift_parameters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Said: "Encoder ~150 M: 221 M": sizes are printed from parameters.yaml, which is counted."""
    path = tmp_path / "parameters.yaml"
    path.write_text("stages: {8k: {audio_encoder: {parameters: 221136992, trainable: 5}}}")
    monkeypatch.setattr(effects, "PARAMETERS_FILE", path)
    assert "| `audio_encoder` | 221,136,992 | 5 |" in page(HERE, "CONFIG_COMPARISON_TABLE")
    for template in TEMPLATES.rglob("*.md"):
        assert not re.search(r"\d\s?M\b|parameters: ?\d", template.read_text(encoding="utf-8"))


def test_drift_ratio(copy: Callable[..., Path]) -> None:
    """Said: "Learning rate 50-200x higher: 10-20x": the ratio is a division."""
    assert "It is 10 times the released model's `5e-6`" in page(HERE, "README_CONFIG")
    directory = copy("config_8k_telephone", "lr: 5e-5", "lr: 6e-5")
    assert "It is 12 times the released model's `5e-6`" in page(directory, "README_CONFIG")


def test_drift_counts(made: dict[str, str]) -> None:
    """Said: "Counts of ALIGNED / MODIFIED / NEW do not match the files": they are counted."""
    for document in ("QUICK_CONFIG_DIFF", "CONFIG_COMPARISON_TABLE"):
        rows = {row[0]: row[1:] for row in tables(made[f"{document}.md"])}
        for column in gather().columns.values():
            number = counts(column.deltas)
            file = read_yaml(HERE / column.file).values
            said = len([key for key in flatten(file) if key not in load.PATHS and key != "model"])
            critical, modified, new, _, aligned = map(int, rows[column.file])
            assert (critical, modified, new) == (
                number["critical"],
                number["modified"],
                number["new"],
            )
            # Keys that follow a reference are changed without standing in the file.
            followed = sum(
                d.is_change and d.key not in column.config.in_file for d in column.deltas
            )
            assert modified + new + aligned - followed == said


def test_drift_dead_keys(replace_effects: Callable[[str], Path]) -> None:
    """Said: "Several keys they discuss have no effect". Each stands there with what is proven."""
    replace_effects(
        'funasr: "9.9"\nkeys:\n  dataset_conf.retry: {stages: {8k: stock}, read_by: f.py:Class}\n'
        "  dataset_conf.audio_encoder_downsample_rate: {stages: {8k: none}, note: dead}\n"
    )
    rows = {row[0]: row for row in tables(page(HERE, "QUICK_CONFIG_DIFF").split("\n## ")[1])}
    assert rows["dataset_conf.retry"][5] == "stock"
    assert rows["dataset_conf.audio_encoder_downsample_rate"][5] == "none"
    assert rows["optim_conf.lr"][5] == "unproven"
    text = page(HERE, "CONFIGURATION_ALIGNMENT")
    assert "read by: `f.py:Class`" in text
    assert "(FunASR 9.9)" in page(HERE, "CONFIG_ALIGNMENT_GUIDE")
