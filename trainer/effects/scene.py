"""What is trained to prove effects: the tiny base on a few utterances, for two epochs.

The data hold what some keys act on: hot words and earlier context, a second turn, a text that is
too long for CTC to spell in its frames.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import soundfile
import torch

from conf.load import Config, load_config, stage_config_path
from trainer.data.manifest import read_data_list, read_headers
from trainer.finetune.stock_engine import write_manifest

BASE = Path(__file__).parents[1] / "demo" / "base"

NUM_TRAIN, NUM_VALID = 7, 3

SETTINGS: Mapping[str, Any] = {
    # Small and few batches, so that there are several; a rate at which two epochs show.
    "dataset_conf.batch_size": 700,
    "dataset_conf.num_workers": 0,
    # A list of manifests is read in so many parts, one after the other.
    "dataset_conf.data_split_num": 1,
    "train_conf.max_epoch": 2,
    "train_conf.log_interval": 1,
    "optim_conf.lr": 1e-3,
    "scheduler_conf.warmup_steps": 2,
    "finetune_conf.max_new_tokens": 6,
    "finetune_conf.eval_batch_size": 2,
    "finetune_conf.feature_cache_mb": 0,
    "max_length": 6,
}
"""Laid over each stage: sizes and lengths that decide nothing about who reads a key."""

_EXTRAS: Mapping[int, Mapping[str, Any]] = {
    0: {"hist_context": "您好请讲", "one_pass_result": "五四四", "hotwords": "套餐, 宽带"},
    1: {"hotwords": "缴费", "asr_hotwords": "发票, 话费"},
    4: {"hotwords": "bill, refund"},
}
_TWO_TURNS, _TOO_LONG = 2, 3


@dataclass(frozen=True)
class Scene:
    """A directory with data, and the configuration of each stage on them."""

    directory: Path
    configs: Mapping[str, Config]
    others: Mapping[str, str]
    """Other files by what they are, for keys that name a file."""


def make_scene(directory: Path, corpus: Path, stages: tuple[str, ...], base: Path = BASE) -> Scene:
    """Writes the data of a scene; nothing outside it is read afterwards.

    Args:
        directory: Empty.
        corpus: The demonstration's corpus.
        stages: Short names.
        base: Directory of the tiny model.
    """
    base = Path(shutil.copytree(base, directory / "base"))
    train = _manifest(directory / "train.jsonl", corpus / "train.jsonl", NUM_TRAIN)
    second = _manifest(directory / "second.jsonl", corpus / "train.jsonl", 2, skip=NUM_TRAIN)
    valid = _manifest(directory / "valid.jsonl", corpus / "valid.jsonl", NUM_VALID)
    _enrich(train, _EXTRAS)
    _enrich(valid, {})  # hot words are shuffled: validation would not repeat
    others = {
        "train list": _list(directory / "other.txt", second),
        "broken list": _list(directory / "broken.txt", train, _broken(second)),
        "valid": str(_manifest(directory / "valid-2.jsonl", corpus / "valid.jsonl", 2)),
        "weights": str(_other_weights(base / "model.pt", directory / "other.pt")),
        "hot words": _text(directory / "hotwords.txt", "流量\n彩铃\n短信\n"),
        "channel": _text(directory / "channel.yaml", "codecs: [gsm]\nnoise: {kinds: [babble]}\n"),
        "directory": str(directory / "elsewhere"),
        "nothing": str(directory / "nothing"),
    }
    settings = {
        **SETTINGS,
        "train_data_set_list": _list(directory / "train.txt", train, second),
        "valid_data_set_list": str(valid),
        "output_dir": str(directory / "output"),
    }
    configs = {
        stage: load_config(
            stage_config_path(stage), init_param=base / "model.pt", layers=[("scene", settings)]
        )
        for stage in stages
    }
    return Scene(directory, configs, others)


def _manifest(path: Path, source: Path, count: int, skip: int = 0) -> Path:
    """A manifest of some utterances, their recordings copied beside it."""
    utterances = [
        replace(utterance, source=Path(shutil.copy(utterance.source, path.parent)))
        for utterance in read_data_list(source)[skip : skip + count]
    ]
    return write_manifest(path, utterances, read_headers(utterances), len)


def _enrich(path: Path, extras: Mapping[int, Mapping[str, Any]]) -> None:
    """Puts into a manifest what some keys act on."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for number, values in extras.items():
        lines[number] |= values
    if len(lines) > _TOO_LONG:
        lines[_TWO_TURNS]["messages"] += [
            {"role": "user", "content": "请再说一遍"},
            {"role": "assistant", "content": "好的"},
        ]
    last = min(_TOO_LONG, len(lines) - 1)
    user, answer = lines[last]["messages"][1:]
    source = user["content"].partition("!")[2].partition("<")[0]
    samples, rate_hz = soundfile.read(source, dtype="int16")
    short = path.with_name(f"{path.stem}-short.wav")
    soundfile.write(short, samples[: rate_hz * 3 // 10], rate_hz)
    user["content"] = user["content"].replace(source, str(short))
    answer["content"] = "一二三四五六七八九十" * 10
    lines[last] |= {"speech_length": 30, "text_length": len(answer["content"])}
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")


def _broken(manifest: Path) -> Path:
    """A copy of a manifest whose recordings are not there."""
    path = manifest.with_name("broken.jsonl")
    text = manifest.read_text(encoding="utf-8").replace(".wav<", ".missing<")
    path.write_text(text, encoding="utf-8")
    return path


def _list(path: Path, *manifests: Path) -> str:
    return _text(path, "".join(f"{manifest}\n" for manifest in manifests))


def _text(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def _other_weights(source: Path, path: Path) -> Path:
    loaded = torch.load(source, map_location="cpu", weights_only=True)
    state = loaded.get("state_dict", loaded)
    torch.save({"state_dict": {name: value * 0.9 for name, value in state.items()}}, path)
    return path
