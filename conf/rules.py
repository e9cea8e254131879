"""Rules between keys, and between keys and what is known of a run: pure functions, no imports.

    for finding in findings(config, Run(batches_per_epoch=40, sample_rates_hz=frozenset({8000}))):
        print(finding.id, finding.severity, finding.expected, finding.found)

The schema says what one key may be; here stands what keys may be together.
`trainer.checks.run_checks` runs the rules with everything else that is looked at before training;
why each matters and how to mend it stands in checks.py under the same id.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from conf.load import Config, is_as_shipped
from conf.writing import format_value

Status = Literal["passed", "warning", "failed", "not run"]

FREEZE_KEYS: Mapping[str, str] = {
    "audio_encoder": "audio_encoder_conf.freeze",
    "audio_adaptor": "audio_adaptor_conf.freeze",
    "ctc_decoder": "ctc_decoder_conf.freeze",
    "llm": "llm_conf.freeze",
}
STAGE_TRAINS: Mapping[str, frozenset[str]] = {
    "8k": frozenset({"audio_encoder", "ctc_decoder"}),
    "s1": frozenset({"audio_encoder"}),
    "s2": frozenset({"audio_adaptor", "ctc_decoder"}),
    "s3": frozenset({"lora"}),
}
"""What each stage is for; a file of that name that trains something else is a mistake."""

FS_HZ = 16000
"""What FunASR's frontend takes where nobody says it."""
NATIVE_FS_HZ = 8000
"""Sample rate of stage 1, which adapts the encoder to telephone speech as it is."""
HIGHEST_LR = 1e-2
"""Beyond it every model we measured was ruined, the tiny one too."""


@dataclass(frozen=True)
class Run:
    """What is known of the run beside its configuration; None where nobody knows."""

    sample_rates_hz: frozenset[int] | None = None
    """Sample rates of the training data, from the files' headers."""
    batches_per_epoch: int | None = None
    longest_utterance: int | None = None
    """Length of the longest training utterance as dataset_conf.batch_size counts it."""
    searched: frozenset[str] = frozenset()
    """Keys that a sweep varies on purpose: any value that the schema allows is right."""


@dataclass(frozen=True)
class Finding:
    """What a rule found, kept or broken."""

    id: str
    status: Status
    key: str
    expected: str
    found: str

    @property
    def severity(self) -> Literal["error", "warning"] | None:
        """How bad it is; None where all is well."""
        severities: Mapping[str, Literal["error", "warning"]]
        severities = {"failed": "error", "warning": "warning"}
        return severities.get(self.status)


def judged(
    id: str, right: bool, key: str, expected: str, found: str, otherwise: Status = "failed"
) -> Finding:
    """Passed where what was found is right, `otherwise` where it is not."""
    return Finding(id, "passed" if right else otherwise, key, expected, found)


Rule = Callable[[Config, Run], Finding]


def judge(config: Config, run: Run | None = None) -> tuple[Finding, ...]:
    """What every rule says, kept rules included."""
    return tuple(rule(config, run or Run()) for rule in RULES.values())


def findings(config: Config, run: Run | None = None) -> tuple[Finding, ...]:
    """What is wrong: errors first, then warnings."""
    wrong = [finding for finding in judge(config, run) if finding.severity]
    return tuple(sorted(wrong, key=lambda finding: finding.severity != "error"))


def trained(config: Config) -> frozenset[str]:
    """The parts that a configuration trains: components of the model, and `lora`.

    With adapters the LLM's own weights stay as they are, whatever its `freeze` says.
    """
    parts = {part for part, key in FREEZE_KEYS.items() if not config[key]}
    if config["llm_conf.use_lora"]:
        parts.discard("llm")
        if not config["llm_conf.lora_conf.freeze_lora"]:
            parts.add("lora")
    return frozenset(parts)


def updates(config: Config, batches_per_epoch: int) -> int:
    """How many updates a run makes; what is left of an epoch's last accumulation is one, too."""
    per_epoch: int = -(-batches_per_epoch // config["train_conf.accum_grad"])
    return per_epoch * int(config["train_conf.max_epoch"])


def peak_lr(lr: float, warmup_steps: int, num_updates: int) -> float:
    """The highest learning rate that `warmuplr` (the Noam curve) reaches.

    It rises in a straight line to `lr` at `warmup_steps`; a shorter run ends on the way up.
    """
    return lr * min(1.0, num_updates / warmup_steps)


def _freeze(id: str, part: str, config: Config, run: Run) -> Finding:
    key = FREEZE_KEYS[part]
    found = config[key]
    if config.stage not in STAGE_TRAINS:
        return Finding(id, "passed", key, "any (custom stage)", format_value(found))
    expected = part not in STAGE_TRAINS[config.stage]
    right = found == expected or key in run.searched
    return judged(
        id, right, key, f"{format_value(expected)} (stage {config.stage})", format_value(found)
    )


def _learning_rate(config: Config, run: Run) -> Finding:
    key = "optim_conf.lr"
    lr, released = config[key], config.base["optim_conf"]["lr"]
    too_low = lr <= released and config.stage in STAGE_TRAINS
    right = key in run.searched or not (too_low or lr > HIGHEST_LR)
    highest = format_value(HIGHEST_LR)
    expected = f"above the released model's {format_value(released)}, at most {highest}"
    return judged("learning-rate", right, key, expected, format_value(lr))


def _one_gpu(config: Config, run: Run) -> Finding:
    key = "train_conf.use_deepspeed"
    names = ("use_deepspeed", "use_ddp", "use_fsdp")
    on = [name for name in names if config.get(f"train_conf.{name}", False)]
    found = format_value(config.get(key, False))
    found += "" if key in config.in_file else " (inherited)"
    others = [f"{name}: true" for name in on if name != "use_deepspeed"]
    return judged("deepspeed-off", not on, key, "false (one GPU)", ", ".join([found, *others]))


def _weight_decay(config: Config, run: Run) -> Finding:
    key = "optim_conf.weight_decay"
    value = config.get(key, 0.01)
    none = value == 0 and config.stage in STAGE_TRAINS
    right = not none or key in run.searched
    return judged("weight-decay", right, key, "above 0", format_value(value))


def _specaug(config: Config, run: Run) -> Finding:
    found = config.get("specaug")
    missing = found != "SpecAugLFR" and config.stage in STAGE_TRAINS
    right = not missing or "specaug" in run.searched
    expected = "SpecAugLFR" if config.stage in STAGE_TRAINS else "any (custom stage)"
    return judged("specaug-on", right, "specaug", expected, format_value(found))


def _fs_stage(config: Config, run: Run) -> Finding:
    key = "frontend_conf.fs"
    fs, weights = config.get(key, FS_HZ), config.base.get("frontend_conf", {}).get("fs", FS_HZ)
    if config.stage == "s1":
        expected, why = NATIVE_FS_HZ, "stage s1 adapts to the native rate"
    elif config.stage in STAGE_TRAINS or "audio_encoder" not in trained(config):
        expected, why = weights, "the rate that the weights were trained at"
    else:
        return Finding("fs-stage", "passed", key, "any (custom stage)", f"{fs} Hz")
    right = fs == expected or key in run.searched
    return judged("fs-stage", right, key, f"{expected} Hz ({why})", f"{fs} Hz")


def _fs_data(config: Config, run: Run) -> Finding:
    key = "frontend_conf.fs"
    fs, rates = config.get(key, FS_HZ), run.sample_rates_hz
    expected = f"one rate, at most {fs} Hz"
    if rates is None:
        return Finding("fs-data", "not run", key, expected, "no data given")
    found = ", ".join(f"{rate} Hz" for rate in sorted(rates))
    if len(rates) == 1 and max(rates) < fs:
        found += f", upsampled to {fs} Hz"
    right = len(rates) == 1 and max(rates) <= fs
    return judged("fs-data", right, key, expected, found, "warning")


def _lora_freeze(config: Config, run: Run) -> Finding:
    key = "llm_conf.lora_conf.freeze_lora"
    use = config["llm_conf.use_lora"]
    frozen = config.get(key, False)
    found = f"use_lora: {format_value(use)}, freeze_lora: {format_value(frozen)}"
    if not config["llm_conf.freeze"] and use:
        expected = "llm_conf.freeze: true with adapters, since its own weights do not train then"
        return Finding("lora-freeze", "warning", "llm_conf.freeze", expected, f"{found}, false")
    status: Status = "passed"
    if use and frozen:
        status = "failed"
    elif not use and not frozen and key in config.in_file:
        status = "warning"
    return Finding("lora-freeze", status, key, "freeze_lora: false if and only if use_lora", found)


def _trains_something(config: Config, run: Run) -> Finding:
    parts = trained(config)
    ctc_only = parts <= {"ctc_decoder"} and config.get("ctc_weight", 0.3) == 0
    found = ", ".join(sorted(parts)) or "everything frozen"
    if parts and ctc_only:
        found += ", and ctc_weight 0"
    expected = "a part that trains and a loss that reaches it"
    right = bool(parts) and not ctc_only
    return judged("trains-something", right, "*.freeze", expected, found)


def _text_path(config: Config, run: Run) -> Finding:
    parts = trained(config)
    expected = "encoder, adaptor or LLM trains, so that valid/cer can change"
    found = ", ".join(sorted(parts)) or "everything frozen"
    return judged("text-path", parts != {"ctc_decoder"}, "*.freeze", expected, found, "warning")


def _warmup(config: Config, run: Run) -> Finding:
    key = "scheduler_conf.warmup_steps"
    warmup, lr = config.get(key, 25000), config["optim_conf.lr"]
    if run.batches_per_epoch is None:
        expected = "at most the number of updates"
        return Finding("warmup", "not run", key, expected, f"{warmup}, no data given")
    number = updates(config, run.batches_per_epoch)
    reached = format_value(float(f"{peak_lr(lr, warmup, number):.3g}"))
    expected = f"at most the run's {number:,} updates, so that lr {format_value(lr)} is reached"
    found = f"{warmup:,}, so the learning rate peaks at {reached}"
    return judged("warmup", warmup <= number, key, expected, found, "warning")


def _intervals(config: Config, run: Run) -> Finding:
    keys = ("validate_interval", "save_checkpoint_interval")
    said = {name: config.get(f"train_conf.{name}", 5000) for name in keys}
    values = {name: value for name, value in said.items() if value is not None}
    found = ", ".join(f"{name} {value:,}" for name, value in values.items())
    key = f"train_conf.{next(iter(values))}"
    if run.batches_per_epoch is None:
        return Finding("intervals", "not run", key, "at most the number of updates", found)
    number = updates(config, run.batches_per_epoch)
    late = [
        f"{name} {value:,}"
        for name, value in values.items()
        if value > number and not is_as_shipped(f"train_conf.{name}", config)
    ]
    expected = f"at most the run's {number:,} updates"
    if late:
        found = f"{', '.join(late)}: comes due at the ends of epochs alone"
    return judged("intervals", not late, key, expected, found, "warning")


def _batch_longest(config: Config, run: Run) -> Finding:
    key = "dataset_conf.batch_size"
    kind, size = config.get("dataset_conf.batch_type", "token"), config[key]
    found = f"batch_size {size:,}"
    if kind == "example":
        return Finding("batch-longest", "passed", key, "any (batch_type: example)", found)
    expected = "at least the longest utterance"
    if run.longest_utterance is None:
        return Finding("batch-longest", "not run", key, expected, f"{found}, no data given")
    expected += f", {run.longest_utterance:,} frames and tokens"
    right = run.longest_utterance <= size
    return judged("batch-longest", right, key, expected, found, "warning")


def _dither(config: Config, run: Run) -> Finding:
    key = "frontend_conf.dither"
    value = config.get(key, 1.0)
    return judged("dither", value == 0, key, "0.0", format_value(value), "warning")


def _precision(config: Config, run: Run) -> Finding:
    names = ("use_bf16", "use_fp16")
    on = [name for name in names if config.get(f"train_conf.{name}", False)]
    expected, found = "at most one of use_bf16 and use_fp16", ", ".join(on) or "neither"
    return judged("precision", len(on) <= 1, "train_conf.use_bf16", expected, found)


RULES: Mapping[str, Rule] = {
    "encoder-trains": partial(_freeze, "encoder-trains", "audio_encoder"),
    "learning-rate": _learning_rate,
    "deepspeed-off": _one_gpu,
    "weight-decay": _weight_decay,
    "specaug-on": _specaug,
    "llm-frozen": partial(_freeze, "llm-frozen", "llm"),
    "adaptor-freeze": partial(_freeze, "adaptor-freeze", "audio_adaptor"),
    "ctc-freeze": partial(_freeze, "ctc-freeze", "ctc_decoder"),
    "fs-stage": _fs_stage,
    "fs-data": _fs_data,
    "lora-freeze": _lora_freeze,
    "trains-something": _trains_something,
    "text-path": _text_path,
    "warmup": _warmup,
    "intervals": _intervals,
    "batch-longest": _batch_longest,
    "dither": _dither,
    "precision": _precision,
}
"""Every rule by its id, in the order in which they are told."""
