"""Speech that nobody here made: Debian's Asterisk prompts, prepared and trained on to the end.

apt-get install asterisk-core-sounds-en-wav asterisk-core-sounds-en
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Workspace

SOUNDS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
TRANSCRIPTS = Path("/usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz")


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_config_8k_learns_english_prompts_through_ctc(workspace: Workspace) -> None:
    if not (SOUNDS.is_dir() and TRANSCRIPTS.is_file()):
        pytest.skip("needs Debian's asterisk-core-sounds-en-wav and asterisk-core-sounds-en")
    prepared = workspace.python(
        *("-m", "trainer", "prepare", "--wav_dir", str(SOUNDS), "--transcripts", str(TRANSCRIPTS)),
        *("--spoken", "--output_dir", "data/asterisk"),
    )
    assert "train 480, valid 53" in prepared.stdout
    workspace.python(
        *("-m", "trainer", "train", "--config", "conf/config_8k_telephone.yaml"),
        *("--init_param", "trainer/demo/base/model.pt"),
        *("--train_data_set_list", "data/asterisk/train.jsonl"),
        *("--valid_data_set_list", "data/asterisk/valid.jsonl"),
        *("--output_dir", "outputs/asterisk", "--no_mlflow"),
        *("--optim_conf.lr", "2e-3", "--scheduler_conf.warmup_steps", "500"),
        *("--dataset_conf.batch_type", "example", "--dataset_conf.batch_size", "4"),
        *("--detach_ctc_decoder", "false", "--specaug", "null", "--skip-check", "specaug-on"),
        timeout_s=1400,
    )
    events = (workspace.directory / "outputs/asterisk/events.jsonl").read_text("utf-8")
    metrics = [json.loads(line).get("metrics", {}) for line in events.splitlines()]
    curve = [m["valid/cer_ctc"] for m in metrics if "valid/cer_ctc" in m]
    llm = [m["valid/cer"] for m in metrics if "valid/cer" in m]
    print(
        f"valid/cer_ctc {curve[0]:.3f} -> {min(curve):.3f}, valid/cer {llm[0]:.3f} -> {llm[-1]:.3f}"
    )
    assert len(curve) >= 21  # before the first step and after each of 20 epochs
    assert min(curve) <= 0.7 * curve[0]
