"""The fresh process of `trainer.export.verify`: loads a written model as its users do, and decodes.

    python -m trainer.export.verify_process MODEL_DIR RUN [SERVED_DIR]

prints one JSON line. Nothing of FunASR has been loaded in it before, and nothing of our model
code is: what decodes is stock FunASR, and MLflow with what it finds in its own directory.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from conf.document import numbers
from conf.errors import DataError, run_command
from conf.load import Config, load_config
from conf.model_dir import file_paths
from trainer.data.manifest import Utterance, read_data_list
from trainer.evaluation.error_rates import cer, interval, total
from trainer.export.verify import Verification
from trainer.tracking.event_log import read_events


def main(arguments: Sequence[str]) -> int:
    """Decode with stock FunASR, and through pyfunc where a third directory is given."""
    model, run, *served = map(Path, arguments)
    with contextlib.redirect_stdout(io.StringIO()):  # FunASR prints; the result is one line
        file_paths(model)  # stock FunASR obeys it, code or not
        config = load_config(run / "config.yaml")
        logged, logged_cer = _logged(run)
        utterances = _validation_set(config, logged)
        ways: list[tuple[str, Callable[[], list[str]]]] = [
            ("stock FunASR", lambda: _with_stock(model, config, utterances))
        ]
        if served:
            ways.append(("MLflow pyfunc", lambda: _with_pyfunc(served[0], utterances)))
        logged_cers = [cer(line["reference"], line["text"]) for line in logged.values()]
        results = []
        for way, decode in ways:
            texts = dict(zip((item.key for item in utterances), decode(), strict=True))
            cers = [cer(logged[key]["reference"], text) for key, text in texts.items()]
            results.append(
                Verification(
                    way=way,
                    utterances=len(texts),
                    equal_texts=sum(logged[key]["text"] == text for key, text in texts.items()),
                    cer=total(cers).rate,
                    logged_cer=logged_cer,
                    llm_dtype=config.get("llm_conf.llm_dtype", "fp32"),
                    interval=interval(cers),
                    logged_interval=interval(logged_cers),
                )
            )
            gc.collect()  # the next way loads the weights again
    print(json.dumps([vars(result) for result in results]))
    return 0


def _with_stock(model: Path, config: Config, utterances: Sequence[Utterance]) -> list[str]:
    from funasr import AutoModel  # the whole of FunASR, as its users import it

    from trainer.model.build import choose_device

    device = str(choose_device(config.get("device")))
    loaded = AutoModel(
        model=str(model),
        device=device,
        trust_remote_code=False,  # whatever config.yaml says
        disable_update=True,
        disable_pbar=True,
        ncpu=1,
    )
    return [loaded.generate(input=str(item.source))[0]["text"] for item in utterances]


def _with_pyfunc(served: Path, utterances: Sequence[Utterance]) -> list[str]:
    import mlflow

    loaded = mlflow.pyfunc.load_model(str(served))
    texts: list[str] = loaded.predict([{"audio": item.source} for item in utterances])
    return texts


def _logged(run: Path) -> tuple[Mapping[str, Mapping[str, Any]], float]:
    """The chosen checkpoint's lines by key, and the CER that was logged with them."""
    path = run / "hypotheses" / "valid.jsonl"
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: got no texts of the fine-tune to compare with") from error
    known = {
        event["step"]: event["metrics"]["valid/cer"]
        for event in read_events(run)
        if "valid/cer" in event.get("metrics", {})
    }
    if not known:
        raise DataError(f"{run}: got no logged valid/cer, expected a finished fine-tune")
    texts_cer = total(cer(line["reference"], line["text"]) for line in lines).rate
    last = known[max(known)]  # in whatever order they stand: a damaged log is logged to again
    if not math.isclose(texts_cer, last, abs_tol=1e-9):
        raise DataError(
            f"{path}: got texts of CER {numbers.rate(texts_cer)}, expected those of the logged "
            f"{numbers.rate(last)}"
        )
    return {line["key"]: line for line in lines}, last


def _validation_set(config: Config, logged: Mapping[str, Any]) -> list[Utterance]:
    manifest = config["valid_data_set_list"]
    utterances = [item for item in read_data_list(manifest) if item.key in logged]
    for item in utterances:
        if not item.source.is_file():
            raise DataError(f"{item.place}: source: got {str(item.source)!r}, which is gone")
    if missing := len(logged) - len(utterances):
        raise DataError(f"{manifest}: lacks {missing} of {len(logged)} utterances scored before")
    return utterances


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
