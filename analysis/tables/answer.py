"""The comparison in one paragraph: the best trial, against what, how sure, and what moved it."""

from __future__ import annotations

from collections import Counter

from analysis.facts.comparison import FIRST, Comparison, Row
from analysis.facts.records import OUTCOMES, differing
from analysis.facts.significance import Estimate
from analysis.facts.utterances import BASE, json_numbers
from conf.document.language import ENGLISH, Language, Listed, Said, joined
from conf.document.numbers import (
    NOTHING,
    change,
    duration,
    ends,
    measured,
    number,
    p_value,
    points,
    rate,
    setting,
)
from conf.document.tables import span

COMMA = Said(", ")


def answer(facts: Comparison, words: Language = ENGLISH, *, full: bool = False) -> str:
    """The paragraph.

    Args:
        facts: The comparison.
        words: Its language.
        full: For a report: with what it cost, and what the best config changes.
    """
    says = _sentences(facts)
    if full and facts.best is not None:
        says[-1:-1] = [_against_base(facts, facts.best), _cost(facts), _changed(facts, facts.best)]
    return joined(words, [said for said in says if said is not None])


def _sentences(facts: Comparison) -> list[Said | None]:
    best = facts.best
    ended = _ended(facts)
    if best is None or best.objective is None:
        return [
            Said(
                "No trial of sweep {sweep} has completed yet ({ended}).",
                sweep=facts.sweep,
                ended=ended,
            )
        ]
    stage = next((s for s in facts.stages if s.stage == best.stage), None)
    says: list[Said | None] = [_which(facts, best, ended), *_on_the_test_set(facts, best)]
    says += [_reaches(facts, best, best.objective), _over_seeds(facts, best)]
    if best.baseline:
        says.append(Said("It is itself the default config of {stage}.", stage=best.stage))
    elif stage is None or stage.baseline is None or best.over_baseline is None:
        says.append(
            Said(
                "The default config of {stage} did not complete, so there is no baseline.",
                stage=best.stage,
            )
        )
    else:
        says.append(
            Said(
                "The default config of {stage} has {baseline}: {change}{paired}.",
                stage=best.stage,
                baseline=measured(facts.objective, stage.baseline),
                change=change(best.over_baseline),
                paired=_chosen(best.corrected, facts.compared),
            )
        )
    says += _alike(facts)
    if len(facts.stages) > 1:
        reach = ", ".join(f"{s.stage} {measured(facts.objective, s.best)}" for s in facts.stages)
        says.append(Said("The best of each stage: {reach}.", reach=reach))
    if stage is not None and stage.worst > stage.best and stage.worst_lr != stage.best_lr:
        says.append(
            Said(
                "Within {stage} the trials range from {best} (lr {best_lr}) to {worst} "
                "(lr {worst_lr}).",
                stage=stage.stage,
                best=measured(facts.objective, stage.best),
                best_lr=number(stage.best_lr),
                worst=measured(facts.objective, stage.worst),
                worst_lr=number(stage.worst_lr),
            )
        )
    return [*says, _certainty(facts), _narrow(facts)]


def _ended(facts: Comparison) -> Said:
    states = Counter(row.outcome for row in facts.rows)
    found = [o for o in OUTCOMES if states[o]]
    if not found:
        return Said("no trials")
    template = ", ".join(f"{{{o}_count}} {{{o}}}" for o in found)
    values: dict[str, object] = {f"{o}_count": states[o] for o in found}
    return Listed(template, **values, **{o: Said(o) for o in found})


def _which(facts: Comparison, best: Row, ended: Said) -> Said:
    values = {
        "count": len(facts.rows),
        "ended": ended,
        "trial": best.trial,
        "stage": best.stage,
        "lr": number(best.lr),
        "weight_decay": number(best.weight_decay),
        "epochs": NOTHING if best.epochs is None else best.epochs,
    }
    trials = "trials" if len(facts.rows) > 1 else "trial"
    template = (
        f"Best of {{count}} {trials} ({{ended}}): trial {{trial}}, {{stage}}, lr {{lr}}, "
        "weight decay {weight_decay}, {epochs} epochs."
    )
    return Said(template, **values)


def _reaches(facts: Comparison, best: Row, objective: float) -> Said:
    figure = f"{facts.objective} {measured(facts.objective, objective)}"
    errors: Said | str = ""
    if best.errors is not None and facts.objective == "valid/cer":
        errors = Said(" ({errors} errors)", errors=best.errors)
    interval: Said | str = ""
    if found := ends(best.interval):
        interval = Said(", 95 % interval {interval}", interval=span(found))
    base = facts.base.get(facts.objective)
    values = {"figure": figure, "errors": errors, "interval": interval}
    values["base"] = measured(facts.objective, base)
    reaches = "It reaches {figure}{errors}{interval}; "
    if base is None or best.over_base is None:
        return Said(reaches + "the base was not measured.", **values)
    if objective == 0:
        return Said(reaches + "the base has {base}.", **values)
    times = f"{1 / best.over_base:.1f}"
    return Said(reaches + "the base has {base}, {times} times as much.", **values, times=times)


def _over_seeds(facts: Comparison, best: Row) -> Said | None:
    """What other seeds say of the choice."""
    if best.confirmed is None:
        return None
    mean = (
        "Over {seeds} seeds its mean is {mean}, the lowest of the {configs} configs that were "
        "repeated"
    )
    values = {
        "seeds": len(best.seeds),
        "mean": measured(facts.objective, best.confirmed),
        "configs": sum(1 for row in facts.rows if row.seeds),
    }
    default = facts.baseline_of(best)
    if default is None or default.confirmed is None or default.trial == best.trial:
        return Said(mean + ".", **values)
    also = "; that of the default config is {default}."
    return Said(mean + also, **values, default=measured(facts.objective, default.confirmed))


def _on_the_test_set(facts: Comparison, best: Row) -> list[Said]:
    if best.test_cer is None:
        return []
    base = facts.base.get("test/cer")
    lead = "On the test set, by which no trial was chosen: {cer}"
    says = [
        Said(lead + ".", cer=rate(best.test_cer))
        if base is None
        else Said(lead + " (base {base}).", cer=rate(best.test_cer), base=rate(base))
    ]
    baseline = facts.baseline_of(best)
    if baseline is not None and baseline.trial != best.trial:
        confirmed = facts.paired(best.trial, baseline.trial, "test")
        if confirmed is not None:
            says.append(
                Said(
                    "There it is {paired} against the default config of {stage}: {shown}.",
                    paired=_paired(confirmed, ""),
                    stage=best.stage,
                    shown=Said("shown" if confirmed.certain else "not shown"),
                )
            )
    return says


def _against_base(facts: Comparison, best: Row) -> Said | None:
    paired = facts.paired(best.trial, BASE, "test") or facts.paired(best.trial, BASE, "valid")
    if paired is None:
        return None
    return Said("Against the untrained base it is {paired}.", paired=_paired(paired, ""))


def _cost(facts: Comparison) -> Said:
    """Trials that are not compared have cost something too."""
    trials = facts.sweep_record.trials
    seconds = sum(trial.duration_s or 0.0 for trial in trials)
    epochs = sum(trial.metric("epoch") or 0.0 for trial in trials)
    return Said(
        "All {trials} trials took {epochs} epochs, {time} of training.",
        trials=len(trials),
        epochs=f"{epochs:.0f}",
        time=duration(seconds),
    )


def _changed(facts: Comparison, best: Row) -> Said | None:
    """What the best config changes against its stage's default."""
    baseline = facts.baseline_of(best)
    if baseline is None or baseline.trial == best.trial:
        return None
    trials = facts.sweep_record.by_number
    found = differing([trials[baseline.trial], trials[best.trial]])
    keys = sorted(found, key=lambda key: FIRST.index(key) if key in FIRST else len(FIRST))
    if not keys:
        return None
    changes = ", ".join(f"{k} {_value(found[k][0])} → {_value(found[k][1])}" for k in keys)
    return Said("Against that default it changes {changes}.", changes=changes)


def _value(text: str | None) -> str:
    return NOTHING if text is None else setting(json_numbers(text))


def _paired(estimate: Estimate | None, lead: str | Said = COMMA) -> Said | str:
    """A paired difference in words."""
    if estimate is None:
        return ""
    values: dict[str, object] = {"lead": lead, "points": points(estimate.value)}
    interval = ends(estimate, signed=True)
    if not interval or estimate.p is None:
        return Said("{lead}{points} points", **values)
    return Said(
        "{lead}{points} points (paired, 95 % interval {interval}, p {p})",
        **values,
        interval=span(interval),
        p=p_value(estimate.p),
    )


def _chosen(estimate: Estimate | None, compared: int) -> Said | str:
    """A paired difference of the best of several."""
    if estimate is None:
        return ""
    values: dict[str, object] = {"lead": COMMA, "points": points(estimate.value)}
    if estimate.p is None:
        return Said("{lead}{points} points", **values)
    values |= {"p": p_value(estimate.p), "count": compared}
    interval = ends(estimate, signed=True)
    if not interval:
        return Said("{lead}{points} points (paired; chosen among {count}: p {p})", **values)
    return Said(
        "{lead}{points} points (paired; chosen among {count}: 95 % interval {interval}, p {p})",
        **values,
        interval=span(interval),
    )


def _alike(facts: Comparison) -> list[Said]:
    """What might as well have been chosen, and what one would choose among them by."""
    if not facts.alike or facts.best is None:
        return []
    numbers = ", ".join(str(row.trial) for row in facts.alike)
    says = [Said("The validation set does not tell it from trials {trials}.", trials=numbers)]
    among = [facts.best, *facts.alike]
    if all(row.epochs_run for row in among):
        least = min(among, key=lambda row: row.epochs_run or 0)
        says.append(
            Said(
                "Of all these trial {trial} took the fewest epochs ({epochs}).",
                trial=least.trial,
                epochs=least.epochs_run,
            )
        )
    if all(row.wideband_cer is not None for row in among):
        least = min(among, key=lambda row: row.wideband_cer or 0)
        says.append(
            Said(
                "Trial {trial} forgot least (wideband/cer {cer}).",
                trial=least.trial,
                cer=rate(least.wideband_cer),
            )
        )
    return says


def _narrow(facts: Comparison) -> Said | None:
    """That the intervals rest on names which are not there."""
    sets = facts.evidence.sets
    found = [split for split, one in sets.items() if one.grouping.may_be_narrow]
    if not found or not any(row.interval for row in facts.rows):
        return None
    return Said(
        "Intervals of {sets} are too narrow if anybody speaks twice: {why}.",
        sets=", ".join(found),
        why=Said(sets[found[0]].note),
    )


def _certainty(facts: Comparison) -> Said:
    """What the differences in the table are worth, and which chance their p speaks of."""
    if facts.noise is not None:
        return Said(
            "Differences under {band} points are noise of the seed ({runs} runs of {configs} "
            "config(s) that differ in it alone); intervals and p are of the utterances.",
            band=f"{100 * facts.noise.band:.2g}",
            runs=facts.noise.runs,
            configs=facts.noise.configs,
        )
    if any(row.interval for row in facts.rows):
        return Said("One run per config: intervals and p are of the utterances, not of the seed.")
    return Said("One run per trial: differences carry no interval.")
