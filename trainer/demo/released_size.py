"""A model directory of the released model's size, with random weights, for a rehearsal.

    python -m trainer demo --released-size models/rehearsal

Sizes, layout, number formats and tokenizers are the released model's, so that every command can be
tried before a GPU is rented: what it needs in memory, on the disk and in time, and that it ends
well. Its texts mean nothing. The tokenizers come from two packages, of which nothing else is read
(extra `rehearsal`).
"""

from __future__ import annotations

import base64
import importlib.metadata
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from conf.document import numbers
from conf.errors import UserError
from conf.files import full_disk_said, replacing_directory, write_json, write_text
from conf.load import PRETRAINED, load_config, stage_config_path
from trainer.checks.step_cost import QWEN3_06B, meta_model
from trainer.demo.tiny_base import CTC_VOCABULARY, byte_level_bpe, configuration

LLM_FOLDER = "Qwen3-0.6B"
EMBEDDINGS = "llm.model.embed_tokens.weight"
SPECIAL_TOKENS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>"),
    *("<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>"),
    *("<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
)
"""Of Qwen3's tokenizer, after its ranks; texts are decoded without them."""
ADDED_TOKENS = (
    *("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"),
    *("<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>"),
    *("<think>", "</think>"),
)
"""The ones behind them, which are part of a text."""
BOUND = 0.035
"""Random weights lie evenly between minus this and this, as wide as Qwen3's own at its start."""
QUIET = ("o_proj.weight", "down_proj.weight")
"""What the LLM's layers add to a token is made a thousand times smaller. Then the next token is
clearly the same one again: from wholly random weights two of 151,936 are so often a near tie that
no two ways of decoding would give the same text."""
LAST, ECHO = "\n", "喂"
"""The prompt's last token, and the one that is written after it, again and again."""
_SMALL_FILES = 20_000_000
"""Bytes of the tokenizers and configurations, rounded up."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class DataFile:
    """A file inside a package, which is found without importing the package."""

    package: str
    version: str
    name: str

    def path(self) -> Path | None:
        """Where it lies; None if the package is not installed."""
        try:
            package = importlib.metadata.distribution(self.package)
        except importlib.metadata.PackageNotFoundError:
            return None
        path = Path(str(package.locate_file(self.name)))
        return path if path.is_file() else None


CTC_RANKS = DataFile("openai-whisper", "20250625", "whisper/assets/multilingual.tiktoken")
LLM_RANKS = DataFile("qwen-agent", "0.0.34", "qwen_agent/utils/qwen.tiktoken")
"""Qwen's 151,643 ranks, from Qwen to Qwen3 the same."""


def write_directory(
    directory: Path, *, ctc_vocabulary_listed: bool = False, progress: Progress | None = None
) -> None:
    """Write the model directory, complete or not at all.

    Args:
        directory: New or empty.
        ctc_vocabulary_listed: Whether `configuration.json` names the CTC vocabulary; the released
            one does not.
        progress: Told what was done and after how many seconds; by default standard error.

    Raises:
        UserError: The directory holds something, the disk has too little room, or the packages
            with the tokenizers are not installed.
        WorkError: The disk became full.
    """
    said = progress or _to_stderr(time.monotonic())
    ctc_ranks, llm_ranks = _tokenizer_files()
    _refuse_other_files(directory)
    said(f"{directory}: building the released model's layout")
    shapes = released_shapes()
    size = sum(tensor.nbytes for tensor in shapes.values())
    _refuse_small_disk(directory, size + _SMALL_FILES)
    refusal = f"--released-size: got {directory.absolute()}, which another process is writing:"
    with (
        full_disk_said(directory, "make room and run the same command again"),
        replacing_directory(directory, refusal) as new,
    ):
        _refuse_other_files(directory)  # again: until now another process may have written there
        echo = write_llm(new / LLM_FOLDER, llm_ranks)
        shutil.copyfile(ctc_ranks, new / CTC_VOCABULARY)
        said("tokenizers written")
        write_text(new / "config.yaml", _config())
        listed = configuration(LLM_FOLDER, ctc_vocabulary=ctc_vocabulary_listed)
        write_json(new / "configuration.json", listed)
        write_text(new / "README.md", _card(size))
        with (new / "model.pt").open("wb") as file:
            torch.save({"state_dict": random_weights(shapes, echo, said)}, file)
        said(f"model.pt written: {len(shapes):,} tensors, {numbers.size(size)}")


def released_shapes() -> dict[str, torch.Tensor]:
    """The released file's tensors by name, on the meta device: shapes and number formats alone.

    Its size says that all but the CTC parts are in 16 bits, and that the LLM's output layer, which
    is its input layer once more, is written twice.
    """
    config = load_config(stage_config_path("8k"), find_model=False)
    state: Mapping[str, torch.Tensor] = meta_model(config, QWEN3_06B).state_dict()
    return {
        name: tensor.to(torch.float32 if name.startswith("ctc") else torch.bfloat16)
        for name, tensor in state.items()
    }


def random_weights(
    shapes: Mapping[str, torch.Tensor],
    echo: tuple[int, int],
    progress: Progress,
    device: torch.device | str = "cpu",
) -> dict[str, torch.Tensor]:
    """Make weights of these shapes, the same ones each time on the same kind of device.

    Norms and biases are those of a model before its training.

    Args:
        shapes: By name, on the meta device.
        echo: A token of the LLM's, and the one that follows it.
        progress: Told of each component.
        device: Where they are made, and stay.
    """
    generator = torch.Generator(device).manual_seed(0)
    state: dict[str, torch.Tensor] = {}
    components = [name.split(".", 1)[0] for name in shapes]
    for position, (name, shape) in enumerate(shapes.items()):
        state[name] = torch.zeros(shape.shape, dtype=shape.dtype, device=device)
        if name == "llm.lm_head.weight":
            state[name].copy_(state[EMBEDDINGS])
        elif shape.ndim > 1:
            bound = BOUND / 1000 if name.endswith(QUIET) else BOUND
            state[name].uniform_(-bound, bound, generator=generator)
        elif name.endswith("weight"):
            state[name].fill_(1)
        if name == EMBEDDINGS:
            last, follower = echo
            state[name][last] = state[name][follower] / 2
        if components[position : position + 2] != [components[position]] * 2:
            own = sum(
                t.nbytes for n, t in state.items() if n.startswith(f"{components[position]}.")
            )
            progress(f"{components[position]}: {numbers.size(own)} of random weights")
    return state


def write_llm(folder: Path, ranks: Path) -> tuple[int, int]:
    """Write the LLM's configuration and its tokenizer, made from the ranks of Qwen's pieces.

    Returns:
        The tokens of `LAST` and `ECHO`.
    """
    from tokenizers import normalizers
    from transformers import PreTrainedTokenizerFast

    pieces = read_ranks(ranks)
    tokenizer = byte_level_bpe(pieces, merges(pieces), normalizers.NFC())
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.add_tokens(list(ADDED_TOKENS))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
        clean_up_tokenization_spaces=False,
        model_max_length=131_072,
    )
    folder.mkdir(parents=True)
    fast.save_pretrained(folder)
    end_of_text, _, end = fast.convert_tokens_to_ids(list(SPECIAL_TOKENS[:3]))
    special = {"bos_token_id": end_of_text, "eos_token_id": end}
    config = {
        **QWEN3_06B,
        **special,
        "attention_bias": False,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000,
        "torch_dtype": "bfloat16",
        "use_cache": True,
    }
    write_json(folder / "config.json", config)
    sampling = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95}
    generation = {**special, "eos_token_id": [end, end_of_text], "pad_token_id": end_of_text}
    write_json(folder / "generation_config.json", generation | sampling)
    return pieces.index(LAST.encode()), pieces.index(ECHO.encode())


def read_ranks(path: Path) -> list[bytes]:
    """The pieces of a tiktoken file in the order of their ranks."""
    return [base64.b64decode(line.split()[0]) for line in path.read_bytes().splitlines()]


def merges(pieces: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """The two pieces that each longer piece is merged from.

    tiktoken knows ranks only. What byte-pair encoding makes of a piece's bytes with the merges
    that come before it are the two.
    """
    ranks = {piece: rank for rank, piece in enumerate(pieces)}
    for piece in pieces:
        parts = [piece[at : at + 1] for at in range(len(piece))]
        while len(parts) > 2:
            pairs = [ranks.get(a + b, len(ranks)) for a, b in zip(parts, parts[1:], strict=False)]
            first = pairs.index(min(pairs))
            parts[first : first + 2] = [parts[first] + parts[first + 1]]
        if len(parts) == 2:
            yield parts[0], parts[1]


def _tokenizer_files() -> tuple[Path, Path]:
    ctc, llm = CTC_RANKS.path(), LLM_RANKS.path()
    if ctc is None or llm is None:
        missing = [f.package for f, path in ((CTC_RANKS, ctc), (LLM_RANKS, llm)) if path is None]
        install = " ".join(f"{file.package}=={file.version}" for file in (CTC_RANKS, LLM_RANKS))
        raise UserError(
            f"--released-size: got no package {' or '.join(missing)}, expected those with the "
            f"released model's tokenizers: `uv pip install --no-deps {install}`"
        )
    return ctc, llm


def _refuse_other_files(directory: Path) -> None:
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        what = "which holds files" if directory.is_dir() else "a file"
        raise UserError(
            f"--released-size: got {directory}, {what}; expected a new or an empty directory"
        )


def _refuse_small_disk(directory: Path, need: int) -> None:
    place = directory.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < need:
        raise UserError(
            f"--released-size: got {numbers.size(free)} of free disk space at {place}, expected "
            f"{numbers.size(need)}"
        )


def _config() -> str:
    """`conf/pretrained.yaml` under another heading: the values of the released config.yaml."""
    _, _, values = PRETRAINED.read_text(encoding="utf-8").partition("\n\n")
    return f"# The released model's configuration, beside random weights (README.md).\n{values}"


def _card(size: int) -> str:
    return f"""# Random weights in the released model's size

Made by `python -m trainer demo --released-size DIR`: classes, sizes, number formats, file layout
and tokenizers are those of Fun-ASR-Nano-2512 ({numbers.size(size)}), its weights are random. It
recognises nothing: it writes {ECHO} until its text is as long as it may be
(`finetune_conf.max_new_tokens`).

The CTC vocabulary is that of openai-whisper (MIT), the LLM's pieces are Qwen's, from qwen-agent
(Apache-2.0).
"""


def _to_stderr(started_s: float) -> Progress:
    def say(text: str) -> None:
        print(
            f"[{numbers.clock(time.monotonic() - started_s)}] {text}", file=sys.stderr, flush=True
        )

    return say
