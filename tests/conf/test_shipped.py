"""Every YAML in conf/ loads, holds the recipe's values and answers the document's greps."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from conf.delta import classify
from conf.keys import all_keys
from conf.load import STAGES, load_config, read_yaml, stage_config_path

pytestmark = pytest.mark.quick

ROOT = Path(__file__).parents[2]
TABLES = {"effects.yaml", "parameters.yaml", "expectations.yaml"}
"""What lies beside the configurations and is none."""
CONFIGS = sorted(path for path in (ROOT / "conf").glob("*.yaml") if path.name not in TABLES)
NAMES = ("config_8k_telephone", *list(STAGES.values())[1:], "config_8k_telephone_from_hub")

# One row per key: the pretrained value, then those of the five configurations in NAMES' order.
RECIPE: dict[str, tuple[Any, ...]] = {
    "hub": (*(None,) * 5, "ms"),
    "audio_encoder_conf.freeze": (True, False, False, True, True, True),
    "audio_adaptor_conf.freeze": (True, True, True, False, True, True),
    "ctc_decoder_conf.freeze": (False, False, True, False, True, False),
    "llm_conf.freeze": (True,) * 6,
    "llm_conf.use_lora": (False, False, False, False, True, False),
    "llm_conf.lora_conf.freeze_lora": (True, True, True, True, False, True),
    "llm_conf.lora_conf.r": (16,) * 6,
    "llm_conf.lora_conf.lora_alpha": (32,) * 6,
    "llm_conf.lora_conf.lora_dropout": (0.05,) * 6,
    "llm_conf.lora_conf.target_modules": (
        *(["q_proj", "v_proj"],) * 4,
        ["q_proj", "k_proj", "v_proj", "o_proj"],
        ["q_proj", "v_proj"],
    ),
    "frontend_conf.fs": (16000, 16000, 8000, 16000, 16000, 16000),
    "frontend_conf.dither": (None, 0.0, 0.0, 0.0, 0.0, 0.0),
    "specaug": (None, *("SpecAugLFR",) * 4, None),
    "specaug_conf.freq_mask_width_range": (None, [0, 15], [0, 10], [0, 10], [0, 8], None),
    "specaug_conf.time_mask_width_range": (None, [0, 10], [0, 50], [0, 50], [0, 30], None),
    "specaug_conf.num_freq_mask": (None, 1, 1, 1, 1, None),
    "specaug_conf.num_time_mask": (None, 1, 2, 2, 1, None),
    "specaug_conf.lfr_rate": (None, 6, 6, 6, 6, None),
    "specaug_conf.apply_time_warp": (None, *(False,) * 4, None),
    "specaug_conf.apply_freq_mask": (None, *(True,) * 4, None),
    "specaug_conf.apply_time_mask": (None, *(True,) * 4, None),
    "train_conf.accum_grad": (1, 1, 1, 1, 2, 1),
    "train_conf.grad_clip": (5.0,) * 6,
    "train_conf.max_epoch": (2, 20, 10, 10, 20, 20),
    "train_conf.keep_nbest_models": (200, 10, 5, 5, 10, 10),
    "train_conf.log_interval": (100, 10, 10, 10, 5, 10),
    "train_conf.validate_interval": (2000, *(None,) * 5),  # ours; the recipe has those below
    "train_conf.save_checkpoint_interval": (2000, 2000, 1000, 1000, 200, 2000),
    "train_conf.avg_nbest_model": (100, 100, 3, 3, 5, 100),
    "train_conf.use_deepspeed": (True, *(False,) * 5),
    "train_conf.use_lora": (False, False, False, False, True, False),
    "optim": ("adamw",) * 6,
    "optim_conf.lr": (5e-6, 5e-5, 1e-4, 5e-5, 1e-5, 5e-5),
    "optim_conf.weight_decay": (0.0, *(0.01,) * 5),
    "scheduler": ("warmuplr",) * 6,
    "scheduler_conf.warmup_steps": (2500, 1000, 1000, 500, 100, 1000),
    "dataset_conf.batch_size": (6000, 6000, 6000, 6000, 4096, 4096),
    "dataset_conf.max_token_length": (3500, 1024, 3500, 3500, 3500, 3500),
    "dataset_conf.sort_size": (1024, 1024, 1024, 1024, 512, 1024),
    "dataset_conf.num_workers": (4, 4, 8, 8, 4, 4),
    "dataset_conf.shuffle": (True,) * 6,
    "dataset_conf.audio_encoder_downsample_rate": (6, 2, 2, 2, 2, 6),
    "dataset_conf.data_split_num": (256, 512, 256, 256, 256, 256),
    "dataset_conf.batch_size_sample_max": (10, 15, 10, 10, 10, 10),
    "dataset_conf.retry": (2000, 20, 2000, 20, 20, 2000),
    "tokenizer_conf.unk_symbol": (None, *("<unk>",) * 4, None),
}

# The source document's checks, verbatim, and what it says they print.
GREPS = [
    ('grep -A2 "audio_encoder_conf:" conf/config_8k_telephone.yaml | grep freeze', "freeze: false"),
    ('grep "lr:" conf/config_8k_telephone.yaml', "lr: 5e-5"),
    ('grep "use_deepspeed:" conf/config_8k_telephone.yaml', "use_deepspeed: false"),
    ('grep "weight_decay:" conf/config_8k_telephone.yaml', "weight_decay: 0.01"),
    ('grep "specaug:" conf/config_8k_telephone.yaml', "specaug: SpecAugLFR"),
    ('grep -A3 "llm_conf:" conf/config_8k_telephone.yaml | grep freeze', "freeze: true"),
    ('echo "记住用 --init_param 加载预训练模型"', "记住用 --init_param 加载预训练模型"),
]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_loads(path: Path) -> None:
    """The file is valid, and with it the whole that it stands for."""
    config = load_config(path, find_model=False)
    assert set(config.flat()) <= set(all_keys())
    assert config.in_file


@pytest.mark.parametrize(("name", "column"), [(name, i) for i, name in enumerate(NAMES, 1)])
def test_has_the_recipes_values(name: str, column: int) -> None:
    """Value for value, and nothing is changed beside those."""
    config = load_config(ROOT / "conf" / f"{name}.yaml", find_model=False)
    assert {key: config.get(key) for key in RECIPE} == {
        key: row[column] for key, row in RECIPE.items()
    }
    assert {delta.key for delta in classify(config) if delta.is_change} <= RECIPE.keys()


def test_pretrained_has_the_recipes_values() -> None:
    """The base of every comparison."""
    config = load_config(ROOT / "conf/pretrained.yaml")
    assert {key: config.get(key) for key in RECIPE} == {key: row[0] for key, row in RECIPE.items()}
    assert not [delta for delta in classify(config) if delta.is_change]


@pytest.mark.parametrize(("command", "expected"), GREPS, ids=[f"step{i}" for i in range(1, 8)])
def test_documents_grep_commands(command: str, expected: str) -> None:
    """Exactly one line, that of the document; only a comment may stand behind it."""
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert [line.split("#")[0].strip() for line in done.stdout.splitlines()] == [expected]


@pytest.mark.parametrize("short", STAGES)
@pytest.mark.parametrize(("command", "_"), GREPS[:6], ids=[f"step{i}" for i in range(1, 7)])
def test_grep_commands_fit_every_stage(command: str, _: str, short: str) -> None:
    """The same commands find their one line in every stage's configuration."""
    command = command.replace("config_8k_telephone", STAGES[short])
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize("name", NAMES)
def test_every_change_has_its_reason(name: str) -> None:
    """Behind the value, in the file: the documents take it from there."""
    config = load_config(ROOT / "conf" / f"{name}.yaml", find_model=False)
    silent = [
        delta.key
        for delta in classify(config)
        if delta.is_change and delta.key in config.in_file and not delta.reason
    ]
    assert silent == []


@pytest.mark.parametrize("short", STAGES)
def test_stages_hold_no_architecture(short: str) -> None:
    """They fit the full and the tiny model alike; `fs`, `dither` and `<unk>` are choices."""
    config = load_config(stage_config_path(short))
    assert config.stage == short
    architecture = {key for key in config.in_file if all_keys()[key].role == "architecture"}
    assert architecture == set()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_opens_with_its_command(path: Path) -> None:
    """A comment at the top says how the file is used; `freeze` stands first in its block."""
    head = path.read_text(encoding="utf-8").split("\n\n")[0]
    assert "python -m " in head
    assert path.name in head or path.stem == "pretrained"
    for block in read_yaml(path).values.values():
        if isinstance(block, dict) and "freeze" in block:
            assert next(iter(block)) == "freeze"
