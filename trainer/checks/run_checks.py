"""The checks before training, each with what was expected, what was found, why it matters and how
to mend it.

    python -m trainer check --config conf/config_8k_telephone.yaml --init_param MODEL/model.pt \\
        --train_data_set_list train.txt --valid_data_set_list valid.txt [--json]

They come in three parts by what they need: the configuration, the data, the model. The first two
need no weights. Nothing heavy is imported until a part asks for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from conf import keys, rules
from conf.channels import check_installed, load_channel
from conf.checks import CHECKS, Part
from conf.delta import classify
from conf.errors import ConfigError, DataError, WorkError
from conf.explain import nearest_hint
from conf.load import ALLOWED, Config, is_as_shipped
from conf.progress import Progress
from conf.rules import Finding, Run, judged

if TYPE_CHECKING:
    from trainer.checks.data_checks import Survey
    from trainer.checks.model_checks import Built

Status = Literal["passed", "warning", "failed", "skipped", "not run"]
PARTS: tuple[Part, ...] = ("config", "data", "model")


@dataclass(frozen=True)
class CheckResult:
    """One check and what came of it."""

    id: str
    status: Status
    expected: str
    found: str
    why: str = field(repr=False)
    mend: str = field(repr=False)
    key: str = ""


class ChecksFailed(WorkError):
    """Checks failed: one line each; exit 1, as `python -m trainer check` ends."""


def run_checks(
    config: Config,
    *,
    skip: Collection[str] = (),
    parts: Collection[Part] = PARTS,
    searched: Iterable[str] = (),
    of_gpu: bool = False,
    progress: Progress | None = None,
) -> list[CheckResult]:
    """Look at everything that can be known before training.

    Args:
        config: The run's configuration; what it does not name (data, weights) is not looked at.
        skip: Ids of checks to leave out, which the results then say.
        parts: `config` needs nothing else, `data` the manifests and (where weights are named) the
            tokenizers, `model` builds the model and loads its weights.
        searched: Keys that a sweep varies on purpose.
        of_gpu: Look at the memory of a GPU also where the part `model` is left out: exhausted
            memory comes late, with the longest batch or with the first evaluation.
        progress: Told how many checks are done; None says nothing.

    Returns:
        A result for each check of those parts, in the order of `conf.checks.CHECKS`.

    Raises:
        ConfigError: If an id in `skip` is that of no check.
    """
    _refuse_unknown(skip)
    work = _Work(config, frozenset(parts), frozenset(searched))
    checks = [
        check
        for check in CHECKS.values()
        if check.part in parts or (of_gpu and check.id == "memory")
    ]
    results = []
    with (progress or Progress(quiet=True)).of("check", len(checks), "checks") as advance:
        for check in checks:
            if check.id in skip:
                finding = Finding(check.id, "not run", "", "", "")
            else:
                finding = work.find(check.id)
            status: Status = "skipped" if check.id in skip else finding.status
            results.append(
                CheckResult(
                    check.id,
                    status,
                    finding.expected,
                    finding.found or "--skip-check",
                    check.why,
                    check.mend,
                    finding.key,
                )
            )
            advance(1)
    return results


def failed(results: Iterable[CheckResult]) -> list[CheckResult]:
    """Those that failed."""
    return [result for result in results if result.status == "failed"]


def raise_if_failed(results: Sequence[CheckResult]) -> None:
    """Stop a run whose checks failed.

    Raises:
        ChecksFailed: One line per failed check, with how to mend it and how to skip it.
    """
    if wrong := failed(results):
        raise ChecksFailed("\n".join(one_line(result) for result in wrong))


def one_line(result: CheckResult) -> str:
    """A result for whoever only wants to know what to do."""
    key = f" {result.key}:" if result.key else ""
    return (
        f"check {result.id}:{key} got {result.found}, expected {result.expected}. "
        f"{result.mend} (or --skip-check {result.id})"
    )


def tags(results: Iterable[CheckResult]) -> dict[str, str]:
    """What MLflow shall know: the ids of warnings, of failures and of what was skipped."""
    results = list(results)
    return {
        f"checks.{name}": ", ".join(r.id for r in results if r.status == status)
        for name, status in (("failed", "failed"), ("warned", "warning"), ("skipped", "skipped"))
        if any(r.status == status for r in results) or status != "failed"
    }


def to_json(results: Iterable[CheckResult]) -> str:
    """The results as a JSON list."""
    return json.dumps([asdict(result) for result in results], ensure_ascii=False, indent=1) + "\n"


def print_table(results: Sequence[CheckResult]) -> None:
    """The results for people: a table, then what to do about those that are not well."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=160)
    colours = {"passed": "green", "warning": "yellow", "failed": "red"}
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("check", "result", "expected", "found"):
        grid.add_column(head, overflow="fold")
    for result in results:
        status = f"[{colours.get(result.status, 'dim')}]{result.status}[/]"
        grid.add_row(result.id, status, _plain(result.expected), _plain(result.found))
    console.print(grid)
    for status in ("warning", "failed"):
        for result in results:
            if result.status == status:
                console.print(
                    f"\n[{colours[status]}]{status}[/] {result.id}: {result.why} {result.mend}"
                )
    counts = {status: sum(r.status == status for r in results) for status in (*colours, "skipped")}
    said = ", ".join(f"{number} {status}" for status, number in counts.items() if number)
    console.print(f"\n{said}")


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


def _refuse_unknown(skip: Collection[str]) -> None:
    for id in skip:
        if id not in CHECKS:
            hint = nearest_hint(id, CHECKS)
            raise ConfigError(f"--skip-check: got {id!r}, expected the id of a check{hint}")


class _Work:
    """What several checks share, looked up once and only if one of them asks."""

    def __init__(self, config: Config, parts: frozenset[Part], searched: frozenset[str]) -> None:
        self.config = config
        self._parts = parts
        self._searched = searched

    def find(self, id: str) -> Finding:
        """What one check finds."""
        if rule := rules.RULES.get(id):
            return rule(self.config, self.run)
        if CHECKS[id].part == "config":
            return _CONFIG_CHECKS[id](self.config)
        if CHECKS[id].part == "data":
            if id == "data-paths":
                return self._data_paths()
            if not self.config.get("train_data_set_list"):
                return Finding(id, "not run", "", "", "no data given")
            if self._survey is None:
                return Finding(id, "not run", "", "", "the data cannot be read")
            return self._survey.find(id)
        if not has_weights(self.config):
            return Finding(id, "not run", "", "", "no weights given")
        if "model" not in self._parts:
            return self._memory_of_gpu()
        return self._built.find(id, self._survey)

    @cached_property
    def run(self) -> Run:
        """What the data says to the rules between keys."""
        survey = self._survey
        if survey is None:
            return Run(searched=self._searched)
        return Run(
            sample_rates_hz=survey.sample_rates_hz,
            batches_per_epoch=survey.batches_per_epoch,
            longest_utterance=survey.longest_utterance,
            searched=self._searched,
        )

    @cached_property
    def _reading(self) -> Survey | list[str] | None:
        """The data, or what is wrong with it, or None if there is none to look at."""
        if "data" not in self._parts or not self.config.get("train_data_set_list"):
            return None
        from trainer.checks.data_checks import survey

        try:
            return survey(self.config)
        except (DataError, ConfigError) as error:
            return list(error.problems)

    @property
    def _survey(self) -> Survey | None:
        return None if isinstance(self._reading, list) else self._reading

    @cached_property
    def _built(self) -> Built:
        from trainer.checks.model_checks import examine

        return examine(self.config)

    def _memory_of_gpu(self) -> Finding:
        import torch

        from trainer.checks.model_checks import memory_finding

        wanted = self.config.get("device") or "cuda"
        if wanted == "cpu" or not torch.cuda.is_available():
            return Finding("memory", "not run", "", "", "no GPU")
        return memory_finding(self.config, self._survey, torch.device(wanted))

    def _data_paths(self) -> Finding:
        named = {
            key: self.config.get(key)
            for key in (
                "train_data_set_list",
                "valid_data_set_list",
                "finetune_conf.wideband_data_set_list",
                "finetune_conf.test_data_set_list",
            )
        }
        expected = "every manifest and recording is there"
        if not any(named.values()):
            return Finding("data-paths", "not run", "", expected, "no data given")
        missing = [key for key, path in list(named.items())[:2] if not path]
        if missing:
            return Finding("data-paths", "failed", missing[0], expected, f"no {missing[0]}")
        reading = self._reading
        if isinstance(reading, list):
            more = f" (and {len(reading) - 1} more)" if len(reading) > 1 else ""
            return Finding("data-paths", "failed", "", expected, f"{reading[0]}{more}")
        assert reading is not None
        return Finding("data-paths", "passed", "", expected, reading.sizes)


def has_weights(config: Config) -> bool:
    """Whether a configuration names weights that are there."""
    return config.weights is not None and config.weights.is_file()


def _init_param(config: Config) -> Finding:
    expected = "a file of weights (--init_param MODEL/model.pt)"
    if config.weights is None:
        return Finding("init-param", "failed", "init_param", expected, "none")
    there = has_weights(config)
    found = str(config.weights) if there else f"{config.weights}, which is not there"
    return judged("init-param", there, "init_param", expected, found)


def _effects(config: Config) -> Finding:
    changed = [delta for delta in classify(config) if delta.is_change and delta.key != ALLOWED]
    # Our files also set what only stock training reads: nobody who takes them over changed it.
    dead = [
        delta
        for delta in changed
        if delta.effect in ("stock", "none") and not is_as_shipped(delta.key, config)
    ]
    unproven = [delta for delta in changed if delta.effect is None]
    says = {"stock": "read by stock training only", "none": "read by nothing"}
    found = [
        f"{', '.join(d.key for d in dead if d.effect == effect)} ({said})"
        for effect, said in says.items()
        if any(d.effect == effect for d in dead)
    ]
    if unproven:
        found.append(f"{len(unproven)} of {len(changed)} changed keys unproven")
    expected = "changed keys that this trainer reads"
    said = "; ".join(found) or f"{len(changed)} changed keys, all read or as shipped"
    return judged("effects", not dead, "", expected, said, "warning")


def _unknown_keys(config: Config) -> Finding:
    allowed = config[ALLOWED]
    found = [f"{key}{nearest_hint(key, [*keys.all_keys(), *keys.blocks()])}" for key in allowed]
    expected, said = "no key outside the schema", ", ".join(found) or "none"
    return judged("unknown-keys", not allowed, ALLOWED, expected, said, "warning")


def _channel(config: Config) -> Finding:
    key = "finetune_conf.channel"
    name, expected = config[key], "a channel that can be simulated here, or none"
    if name is None:
        return Finding("channel", "passed", key, expected, "none")
    try:
        check_installed(load_channel(name))
    except ConfigError as error:
        return Finding("channel", "failed", key, expected, str(error))
    return Finding("channel", "passed", key, expected, name)


_CONFIG_CHECKS: Mapping[str, Callable[[Config], Finding]] = {
    "init-param": _init_param,
    "channel": _channel,
    "effects": _effects,
    "unknown-keys": _unknown_keys,
}
