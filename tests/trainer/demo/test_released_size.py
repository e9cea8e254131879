"""The model directory of the released size: layout, tokenizers, and what it refuses.

The whole one is made, and every command run on it, in `tests/end_to_end/test_released_size.py`.
Here other ranks take the place of the two packages', which CI does not have.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiktoken
import torch
import yaml

from conf.errors import UserError, WorkError
from conf.load import PRETRAINED
from tests.conftest import BASE, ROOT
from trainer.__main__ import main
from trainer.demo import released_size
from trainer.demo.released_size import (
    CTC_RANKS,
    ECHO,
    EMBEDDINGS,
    LLM_RANKS,
    DataFile,
    merges,
    random_weights,
    read_ranks,
    released_shapes,
    write_directory,
)
from trainer.demo.tiny_base import QWEN2_SPLIT, byte_level_bpe, llm_pieces

RELEASED_BYTES = 2_127_426_538
"""Of the released model.pt, as docs/first_day.md says."""
SMALL = {
    EMBEDDINGS: torch.empty(700, 64, dtype=torch.bfloat16, device="meta"),
    "llm.model.layers.0.mlp.down_proj.weight": torch.empty(64, 4, device="meta"),
    "llm.model.norm.weight": torch.empty(64, dtype=torch.bfloat16, device="meta"),
    "llm.lm_head.weight": torch.empty(700, 64, dtype=torch.bfloat16, device="meta"),
    "ctc.ctc_lo.bias": torch.empty(5, device="meta"),
}


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny base's ranks in the place of the packages', and a few weights."""
    from trainer.demo import tiny_base

    ranks = tmp_path / "qwen.tiktoken"
    pieces = [bytes([byte]) for byte in range(256)]
    with monkeypatch.context() as changed:
        changed.setattr(tiny_base, "INVENTORY", ECHO)
        pieces += llm_pieces()
    lines = (f"{tiny_base.base64.b64encode(p).decode()} {n}\n" for n, p in enumerate(pieces))
    ranks.write_text("".join(lines), encoding="ascii")
    places = {CTC_RANKS: BASE / "multilingual.tiktoken", LLM_RANKS: ranks}
    monkeypatch.setattr(DataFile, "path", lambda self: places[self])
    monkeypatch.setattr(released_size, "released_shapes", lambda: SMALL)


def test_the_layout_is_the_released_models() -> None:
    shapes = released_shapes()
    counts = Counter(name.split(".", 1)[0] for name in shapes)
    assert counts == {
        "audio_encoder": 914,
        "audio_adaptor": 36,
        "llm": 311,
        "ctc_decoder": 84,
        "ctc": 2,
    }
    size = sum(tensor.nbytes for tensor in shapes.values())
    assert size == pytest.approx(RELEASED_BYTES, rel=1e-3)
    in_32_bits = {name for name, tensor in shapes.items() if tensor.dtype == torch.float32}
    assert in_32_bits == {name for name in shapes if name.startswith("ctc")}
    assert all(tensor.is_meta for tensor in shapes.values())


@pytest.mark.quick
def test_ranks_become_a_tokenizer_that_splits_as_tiktoken() -> None:
    pieces = read_ranks(BASE / "multilingual.tiktoken")
    theirs = tiktoken.Encoding(
        "small",
        pat_str=QWEN2_SPLIT,
        mergeable_ranks={piece: rank for rank, piece in enumerate(pieces)},
        special_tokens={},
    )
    ours = byte_level_bpe(pieces, merges(pieces))
    for text in ("请等一下天津六幺幺五七三", "a helpful assistant, 12", "\n\n喂 ⌘"):
        assert ours.encode(text).ids == theirs.encode(text)
        assert ours.decode(ours.encode(text).ids) == text


@pytest.mark.quick
def test_weights_are_the_same_each_time_and_one_token_follows_itself() -> None:
    said: list[str] = []
    state = random_weights(SMALL, (3, 5), said.append)
    again = random_weights(SMALL, (3, 5), said.append)
    assert all(torch.equal(state[name], again[name]) for name in SMALL)
    assert [tensor.dtype for tensor in state.values()] == [t.dtype for t in SMALL.values()]
    assert torch.equal(state[EMBEDDINGS], state["llm.lm_head.weight"])
    assert (state["llm.model.norm.weight"] == 1).all()
    assert (state["ctc.ctc_lo.bias"] == 0).all()
    logits_VV = state[EMBEDDINGS].float() @ state[EMBEDDINGS].float().T
    assert logits_VV[3].argmax() == 5
    assert logits_VV[5].argmax() == 5
    assert state["llm.model.layers.0.mlp.down_proj.weight"].abs().max() < 1e-4
    assert [line.split(":")[0] for line in said] == ["llm", "ctc"] * 2


@pytest.mark.quick
@pytest.mark.parametrize("flags", [(), ("--ctc-vocabulary-listed",)], ids=["unlisted", "listed"])
def test_the_directory_has_the_released_files(
    packages: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...]
) -> None:
    made = tmp_path / "made"
    assert main(["demo", "--released-size", str(made), *flags]) == 0
    assert {str(path.relative_to(made)) for path in made.rglob("*")} == {
        *("README.md", "config.yaml", "configuration.json", "model.pt", "multilingual.tiktoken"),
        *("Qwen3-0.6B", "Qwen3-0.6B/config.json", "Qwen3-0.6B/generation_config.json"),
        *("Qwen3-0.6B/tokenizer.json", "Qwen3-0.6B/tokenizer_config.json"),
    }
    assert _read(made / "config.yaml") == _read(PRETRAINED)
    metas = json.loads((made / "configuration.json").read_text("utf-8"))["file_path_metas"]
    assert ("dataset_conf" in metas) == bool(flags)
    assert metas["llm_conf"] == {"init_param_path": "Qwen3-0.6B"}
    assert set(torch.load(made / "model.pt", weights_only=True)["state_dict"]) == set(SMALL)

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(made / "Qwen3-0.6B")
    text = "<|im_start|>user\nYou, 喂<|im_end|>"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.eos_token == "<|im_end|>"
    assert len(tokenizer.encode("<think></think>")) == 2
    printed = capsys.readouterr()
    assert printed.out == f"{made}\n"
    assert re.search(r"^\[0:\d\d\] model.pt written: 5 tensors, 0\.2 MB$", printed.err, re.M)


def _read(path: Path) -> object:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.quick
def test_without_the_packages_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DataFile, "path", lambda self: None)
    with pytest.raises(UserError) as error:
        write_directory(tmp_path / "made")
    [line] = error.value.problems
    assert line == (
        "--released-size: got no package openai-whisper or qwen-agent, expected those with the "
        "released model's tokenizers: `uv pip install --no-deps openai-whisper==20250625 "
        "qwen-agent==0.0.34`"
    )
    assert not (tmp_path / "made").exists()


@pytest.mark.quick
def test_the_extra_pins_what_the_line_installs() -> None:
    extra = re.search(
        r"^rehearsal = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.M | re.S
    )
    assert extra
    pinned = re.findall(r'"([\w-]+==[\w.]+)"', extra[1])
    assert pinned == [f"{file.package}=={file.version}" for file in (CTC_RANKS, LLM_RANKS)]


@pytest.mark.quick
def test_a_file_is_found_in_a_package_that_is_installed() -> None:
    found = DataFile("numpy", "", "numpy/version.py").path()
    assert found is not None
    assert found.is_file()
    assert DataFile("numpy", "", "numpy/no_such_file").path() is None
    assert DataFile("no-such-package", "", "x").path() is None


@pytest.mark.quick
def test_other_files_stay_and_a_small_disk_is_named(
    packages: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "letter.txt").write_text("Dear Sir")
    for place, words in ((taken, "holds files"), (taken / "letter.txt", "a file")):
        with pytest.raises(UserError, match=f"got {place}, .*{words}; expected a new or an empty"):
            write_directory(place)
    assert [path.name for path in taken.iterdir()] == ["letter.txt"]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5_000_000))
    with pytest.raises(UserError, match=rf"got 5\.0 MB of free .* at {tmp_path}, expected 20 MB"):
        write_directory(tmp_path / "new" / "made")
    assert not (tmp_path / "new").exists()


@pytest.mark.quick
def test_a_disk_that_becomes_full_leaves_nothing(
    packages: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(WorkError, match="the disk is full"):
        write_directory(tmp_path / "new" / "made")
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.quick
def test_the_flag_of_the_vocabulary_belongs_to_this_directory() -> None:
    with pytest.raises(UserError, match="--ctc-vocabulary-listed: got no --released-size DIR"):
        main(["demo", "--ctc-vocabulary-listed"])
