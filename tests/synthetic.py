"""A sweep that nobody trained, in a real MLflow store: what tables and reports are tried on.

    write_sweep(Path("somewhere"), Shape(trials=40, epochs=8, utterances=120))

Utterances belong to speakers who differ, the CER of a trial is a formula of its config, and every
text is its reference with that many errors, so that all numbers agree with each other as those of
a real sweep do. It is written through MLflow's own client, a few calls a trial.
"""

from __future__ import annotations

import json
import math
import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conf.delta import classify, deltas_json
from conf.document import numbers
from conf.load import Config, load_config, stage_config_path
from trainer.evaluation.error_rates import NORMALISATION, cer
from trainer.tracking.mlflow_store import Store

BASE = Path(__file__).parent.parent / "trainer" / "demo" / "base"
STAGES = ("8k", "s1", "s2", "s3")
HANDICAP = {"8k": 0.0, "s1": 0.04, "s2": 0.2, "s3": 0.26}
START_MS = 1_760_000_000_000
_STEPS = 40  # optimizer updates an epoch
_WORDS = [
    "今天",
    "天气",
    "很好",
    "我们",
    "一起",
    "去",
    "公园",
    "散步",
    "三点",
    "一刻",
    "五十八",
    "块钱",
    "请问",
    "您好",
    "电话",
    "号码",
    "幺三八",
    "零零",
    "七六",
    "取消",
    "预约",
    "信用卡",
    "账单",
    "快递",
    "地址",
    "广州",
    "中山",
    "北京",
    "OK",
    "wifi",
    "VIP",
    "套餐",
]


@dataclass(frozen=True)
class Shape:
    """How large the sweep is."""

    trials: int = 24
    epochs: int = 8
    replicates: int = 2
    """Repetitions of trial 0 with other seeds, among the trials."""
    odd_ones: bool = True
    """A trial that was scored on other data, a failed and a killed one."""
    utterances: int = 120
    speakers: int = 12
    seed: int = 0


@dataclass(frozen=True)
class Line:
    """One utterance of a set."""

    key: str
    target: str
    speaker: int
    codec: str
    snr_db: int


def write_sweep(directory: Path, shape: Shape, name: str = "synthetic") -> Store:
    """Write the corpus, and the sweep into the store that the environment names.

    Args:
        directory: For manifests and the sweep's own files.
        shape: How many trials, epochs and utterances.
        name: Of the sweep.
    """
    rng = random.Random(shape.seed)
    sets = {
        split: _lines(split, count, shape.speakers, rng)
        for split, count in {
            "valid": shape.utterances,
            "test": shape.utterances,
            "wideband": shape.utterances // 2,
        }.items()
    }
    lists = {split: _manifest(directory, split, lines) for split, lines in sets.items()}
    store = Store.open()
    parent = store.ensure_sweep(
        name, f"id-of-{name}", {"objective": "valid/cer", "sweep.dir": str(directory)}
    )
    store.log_text(parent, f"name: {name}\n", "sweep.yaml")
    base_metrics = {}
    for split, lines in sets.items():
        rate = 0.16 if split == "wideband" else 0.62
        texts, metrics = _decoded(lines, split, rate, random.Random(9))
        store.log_text(parent, texts, f"hypotheses/base/{split}.jsonl")
        base_metrics |= {f"base/{key}": value for key, value in metrics.items()}
    store.log_metrics(parent, base_metrics)
    configs = {stage: _config(stage, lists, shape) for stage in STAGES}
    for number in range(shape.trials):
        _write_trial(store, parent, name, number, shape, sets, configs)
    store.finish(parent, "FINISHED")
    return store


def _lines(split: str, count: int, speakers: int, rng: random.Random) -> Sequence[Line]:
    return [
        Line(
            key=f"{split}-{index:04}",
            target="".join(rng.choice(_WORDS) for _ in range(rng.randint(2, 7))),
            # Some speakers are heard more often than others.
            speaker=min(int(rng.expovariate(3 / speakers)), speakers - 1),
            codec=rng.choice(["g711a", "gsm", "amr-nb"]),
            snr_db=rng.randint(0, 30),
        )
        for index in range(count)
    ]


def _manifest(directory: Path, split: str, lines: Sequence[Line]) -> Path:
    path = directory / f"{split}.jsonl"
    records = (
        {
            "key": line.key,
            "source": f"wav/{line.key}.wav",
            "target": line.target,
            "speaker_id": f"speaker-{line.speaker}",
            **_recorded(line, split),
        }
        for line in lines
    )
    directory.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_text(text, encoding="utf-8")
    return path


def _recorded(line: Line, split: str) -> dict[str, object]:
    """What manifest and hypotheses say of a recording alike."""
    return {
        "duration_s": 0.4 + 0.22 * len(line.target),
        "domain": "wideband" if split == "wideband" else "telephone",
        "codec": line.codec,
        "snr_db": line.snr_db,
    }


def _config(stage: str, lists: Mapping[str, Path], shape: Shape) -> Config:
    places = {
        "train_data_set_list": str(lists["valid"]),
        "valid_data_set_list": str(lists["valid"]),
        "finetune_conf.test_data_set_list": str(lists["test"]),
        "finetune_conf.wideband_data_set_list": str(lists["wideband"]),
        "output_dir": "outputs/none",
        "train_conf.max_epoch": shape.epochs,
        "optim_conf.lr": 1e-3,
    }
    return load_config(
        stage_config_path(stage), init_param=BASE / "model.pt", layers=[("sweep", places)]
    )


def _write_trial(
    store: Store,
    parent: str,
    sweep: str,
    number: int,
    shape: Shape,
    sets: Mapping[str, Sequence[Line]],
    configs: Mapping[str, Config],
) -> None:
    from mlflow.entities import Metric, Param

    rng = random.Random(shape.seed * 100_003 + number)
    baseline = number < len(STAGES)
    replicate = shape.trials - shape.replicates <= number
    stage = STAGES[number] if baseline else "8k" if replicate else rng.choice(STAGES)
    values = {
        "optim_conf.lr": float(f"{10 ** rng.uniform(-4.5, -2):.3g}"),
        "optim_conf.weight_decay": float(f"{10 ** rng.uniform(-4, -1):.3g}"),
        "train_conf.max_epoch": rng.choice([shape.epochs // 2, shape.epochs]),
    }
    if baseline or replicate:
        values = {}
    if replicate:
        values = {"finetune_conf.seed": number}
    config = configs[stage].replace(values, f"trial {number}") if values else configs[stage]
    epochs = config["train_conf.max_epoch"]
    outcome, run_epochs = "completed", epochs
    if not baseline and not replicate:
        if shape.odd_ones and number == 6:
            outcome, run_epochs = "failed", 1
        elif shape.odd_ones and number == 7:
            outcome, run_epochs = "killed", 2
        elif _cer(config, stage, epochs) > 0.3 + HANDICAP[stage]:
            outcome, run_epochs = "pruned", min(epochs, rng.choice([1, 2, 4]))
    noise = rng.gauss(0, 0.004)
    metrics = []
    started = START_MS + 60_000 * number
    for epoch in range(run_epochs + 1):
        rate = max(0.01, _cer(config, stage, epoch) + noise + rng.gauss(0, 0.003))
        forgot = 0.16 + 0.05 * min(1.0, config["optim_conf.lr"] / 1e-3) * epoch / epochs
        found = {
            "valid/cer": rate,
            "valid/cer_ctc": 1.1 * rate,
            "valid/loss": 5 * rate,
            "train/loss": 4 * rate,
            "train/lr": config["optim_conf.lr"],
            "wideband/cer": forgot,
            "epoch": float(epoch),
        }
        moment = started + 5_000 * epoch
        metrics += [Metric(k, v, moment, _STEPS * epoch) for k, v in found.items()]
    tags = {
        "sweep": sweep,
        "trial": str(number),
        "stage": stage,
        "baseline": "true" if baseline else "false",
        "outcome": outcome,
        "delta.critical": "audio_encoder_conf.freeze, optim_conf.lr",
        "init.sha256": "a" * 64,
        "data.sha256": ("c" if shape.odd_ones and number == 5 else "b") * 64,
        "scoring": NORMALISATION,
    }
    if outcome == "failed":
        tags["outcome.reason"] = "out of memory in epoch 1: tried to allocate 2 GB"
    if replicate:
        tags["replicate.of"] = "0"
    run_id = store.ensure_run(
        kind="trial",
        name=f"{sweep}/{number:03d} {stage} lr {numbers.number(config['optim_conf.lr'])}",
        key=f"{sweep}/{number:03d}",
        parent=parent,
        tags=tags,
        started_ms=started,
    )
    client = store._client
    final = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if outcome != "failed":
            (folder / "hypotheses").mkdir()
            for split in sets if outcome == "completed" else ("valid", "wideband"):
                of_valid = rate if split == "valid" else rate + 0.02
                aim = forgot if split == "wideband" else of_valid
                # The seed of a set's speakers is the same for all trials: hard ones stay hard.
                text, scores = _decoded(sets[split], split, aim, random.Random(100 + number))
                (folder / f"hypotheses/{split}.jsonl").write_text(text, encoding="utf-8")
                final |= scores
            final["objective"] = final["valid/cer"]
        (folder / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
        if shape.trials <= 100:
            (folder / "deltas.json").write_text(deltas_json(classify(config)), encoding="utf-8")
        client.log_artifacts(run_id, scratch)
    moment = started + 5_000 * (run_epochs + 1)
    final["epoch"] = float(run_epochs)
    metrics += [Metric(k, v, moment, _STEPS * run_epochs + 1) for k, v in final.items()]
    params = [
        Param(k, v if isinstance(v, str) else json.dumps(v)) for k, v in config.flat().items()
    ]
    for start in range(0, max(len(metrics), len(params)), 900):
        client.log_batch(run_id, metrics=metrics[start : start + 900])
    for start in range(0, len(params), 100):
        client.log_batch(run_id, params=params[start : start + 100])
    ends = {"failed": "FAILED", "killed": "KILLED"}
    client.set_terminated(run_id, ends.get(outcome, "FINISHED"), end_time=moment)


def _cer(config: Config, stage: str, epoch: int) -> float:
    """Falls with every epoch, the faster the nearer the learning rate is to 1e-3."""
    distance = abs(math.log10(config["optim_conf.lr"] / 1e-3))
    floor = 0.22 + HANDICAP[stage] + 0.06 * distance
    return floor + (0.62 - floor) * math.exp(-epoch / (1 + distance))


def _decoded(
    lines: Sequence[Line], split: str, rate: float, rng: random.Random
) -> tuple[str, dict[str, float]]:
    """Hypotheses with about that many errors, and what they score."""
    written, counts = [], []
    for line in lines:
        own = rate * (0.6 + 0.8 * ((line.speaker * 7) % 10) / 9)
        text = "".join(_heard(char, own, rng) for char in line.target)
        count = cer(line.target, text)
        counts.append(count)
        written.append(
            {
                "key": line.key,
                "reference": line.target,
                "text": text,
                "ctc_text": text,
                "substitutions": count.substitutions,
                "deletions": count.deletions,
                "insertions": count.insertions,
                "reference_length": count.reference_length,
                "speaker": f"speaker-{line.speaker}",
                **_recorded(line, split),
            }
        )
    total = sum(counts[1:], start=counts[0])
    scores = {f"{split}/cer": total.rate, f"{split}/cer_ctc": total.rate}
    if split == "valid":
        scores["valid/substitutions"] = float(total.substitutions)
        scores["valid/deletions"] = float(total.deletions)
        scores["valid/insertions"] = float(total.insertions)
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in written), scores


def _heard(char: str, rate: float, rng: random.Random) -> str:
    drawn = rng.random()
    if drawn < 0.7 * rate:
        return "是" if char == "十" else rng.choice("十四时石地的得")
    if drawn < 0.9 * rate:
        return ""
    return char + rng.choice("嗯啊") if drawn < rate else char
