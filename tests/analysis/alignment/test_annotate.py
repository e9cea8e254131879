"""Marks behind the user's values: right, replaced when run again, and nothing else touched."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.__main__ import main
from analysis.alignment.annotate import annotate_file, annotated, remove_marks, strip
from conf.errors import ConfigError
from conf.load import STAGES, load_config, stage_config_path
from conf.reading import read_yaml, value_ends

pytestmark = pytest.mark.quick

MINE = """\
# My own file.
optim_conf:
    lr:   1e-4      # mine: keep
    weight_decay: 0.0
# between
train_conf: {max_epoch: 3, use_deepspeed: false}   # two in one line

specaug_conf:
  freq_mask_width_range: [ 0,15 ]
  time_mask_width_range:
  - 0
  - 10   # in a list
specaug: 'SpecAugLFR'
audio_encoder_conf:
  freeze: "false"
""".replace('"false"', "false")

MARKED = """\
# My own file.
optim_conf:
    lr:   1e-4      # mine: keep  # [MODIFIED] pretrained: 5e-6
    weight_decay: 0.0  # [ALIGNED]
# between
train_conf: {max_epoch: 3, use_deepspeed: false}   # two in one line\
  # max_epoch [MODIFIED] pretrained: 2, use_deepspeed [MODIFIED] pretrained: true

specaug_conf:
  freq_mask_width_range: [ 0,15 ]  # [NEW]
  time_mask_width_range:
  - 0
  - 10   # in a list  # [NEW]
specaug: 'SpecAugLFR'  # [NEW]
audio_encoder_conf:
  freeze: false  # [MODIFIED] pretrained: true
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A file in somebody's own style."""
    path = tmp_path / "my.yaml"
    path.write_text(MINE, encoding="utf-8")
    return path


def test_marks(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Spaces, quotes, comments and order stay; twice is once; --remove gives the file back."""
    before = load_config(mine).values
    assert main(["annotate", str(mine)]) == 0
    assert mine.read_text(encoding="utf-8") == MARKED
    assert capsys.readouterr().out == "1 ALIGNED, 4 MODIFIED, 3 NEW\n"
    assert load_config(mine).values == before
    main(["annotate", str(mine)])
    assert mine.read_text(encoding="utf-8") == MARKED
    main(["annotate", str(mine), "--remove"])
    assert mine.read_text(encoding="utf-8") == MINE


def test_marks_follow_the_value(mine: Path) -> None:
    """A mark of an earlier run is replaced, not believed."""
    annotate_file(mine)
    mine.write_text(mine.read_text(encoding="utf-8").replace("1e-4 ", "5e-6 "), encoding="utf-8")
    annotate_file(mine)
    assert "lr:   5e-6      # mine: keep  # [ALIGNED]\n" in mine.read_text(encoding="utf-8")


@pytest.mark.parametrize("ending", ["\r\n", "\n", "\r"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_bytes_around(tmp_path: Path, ending: str, start: str) -> None:
    """Line endings of any system, a byte order mark, no line break at the end, permissions."""
    path = tmp_path / "my.yaml"
    original = (start + MINE.rstrip("\n")).replace("\n", ending).encode()
    path.write_bytes(original)
    path.chmod(0o640)
    annotate_file(path)
    text = path.read_bytes().decode()
    assert text == (start + MARKED.rstrip("\n")).replace("\n", ending)
    assert path.stat().st_mode & 0o777 == 0o640
    remove_marks(path)
    assert path.read_bytes() == original


@pytest.mark.parametrize("short", STAGES)
def test_shipped_files(short: str, tmp_path: Path) -> None:
    """Every value gets its mark, the reasons stay, and the file comes back."""
    source = stage_config_path(short)
    path = tmp_path / source.name
    path.write_bytes(source.read_bytes())
    annotate_file(path)
    keys = value_ends(path.read_text(encoding="utf-8"), "x")
    comments = read_yaml(path).comments
    assert all("[" in comments[key] for key in keys)
    assert load_config(path).values == load_config(source).values
    remove_marks(path)
    assert path.read_bytes() == source.read_bytes()


def test_comments_of_the_user_that_look_like_marks(tmp_path: Path) -> None:
    """Hand-written ones, as the recipe has them, are the user's."""
    text = "optim_conf:\n  lr: 1e-4  # [MODIFIED] was 5e-6\n  weight_decay: 0.1  # [NEW] mine\n"
    path = tmp_path / "my.yaml"
    path.write_text(text)
    annotate_file(path)
    assert "# [MODIFIED] was 5e-6  # [MODIFIED] pretrained: 5e-6\n" in path.read_text()
    remove_marks(path)
    assert path.read_text() == text


def test_a_file_that_is_wrong_stays_as_it_is(tmp_path: Path) -> None:
    """An unknown key, or no YAML at all."""
    path = tmp_path / "my.yaml"
    for text in ("optim_conf: {learn: 1}\n", "a: [\n"):
        path.write_text(text)
        with pytest.raises(ConfigError, match="my.yaml:[12]"):
            annotate_file(path)
        assert path.read_text() == text
        assert [each.name for each in tmp_path.iterdir()] == ["my.yaml"]


NAMES = st.sampled_from(["a", "b", "c"])
COMMENTS = st.sampled_from(["", "  # why", "   #tight", " # [NEW]", "  # [NEW] mine", "   "])
VALUES = st.sampled_from(
    ["1", "5e-5", "'x # y'", '"a: b"', "[1,  2]", "{k: 1, l: [2]}", "null", "", "true", "电话"]
)
ENDS = st.sampled_from(["\n", "\r\n"])


@st.composite
def texts(draw: st.DrawFn) -> str:
    """YAML in many styles of writing."""
    end, lines = draw(ENDS), []
    for name in ("a", "b", "c"):
        if draw(st.booleans()):
            lines.append(f"# {draw(st.sampled_from(['note', '[ALIGNED]']))}")
        if draw(st.booleans()):
            lines.append(f"{name}:{draw(COMMENTS)}")
            lines += [f"  {inner}:  {draw(VALUES)}{draw(COMMENTS)}" for inner in ("x", "y")]
        else:
            lines.append(f"{name}: {draw(VALUES)}{draw(COMMENTS)}")
        lines += [""] * draw(st.integers(0, 2))
    return end.join(lines) + draw(st.sampled_from(["", end]))


@given(texts(), st.sampled_from(["[NEW]", "[ALIGNED]", "[MODIFIED] pretrained: '# x'"]))
def test_nothing_else_is_touched(text: str, mark: str) -> None:
    """What is left without marks is the text without marks; values are the same."""
    bare = strip(text)
    marks = dict.fromkeys(value_ends(bare, "x"), mark)
    marked = annotated(bare, marks, "x")
    assert strip(marked) == bare
    assert marked.count(mark) >= len(marks)
    assert list(value_ends(marked, "x")) == list(value_ends(bare, "x"))
