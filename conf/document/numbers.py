"""Numbers as a person reads them: rates in percent, learning rates as configs spell them."""

from __future__ import annotations

from typing import Any, Protocol

from conf.writing import format_value

NOTHING = "-"


class Interval(Protocol):
    """An estimate's ends; None where they could not be estimated."""

    @property
    def low(self) -> float | None:
        """The lower end."""

    @property
    def high(self) -> float | None:
        """The upper end."""


def rate(value: float | None, digits: int = 2) -> str:
    """A fraction as a person reads it: 8.25 %."""
    return NOTHING if value is None else f"{percent(value, digits)} %"


def measured(metric: str, value: float | None, digits: int = 2) -> str:
    """A metric's value as a person reads it: an error rate in percent, a loss as it is."""
    if value is None or not metric.endswith("loss"):
        return rate(value, digits)
    return f"{value:.{digits + 1}f}"


def percent(value: float, digits: int = 1) -> str:
    """A fraction in percent, where the sign stands elsewhere."""
    return f"{100 * value:.{digits}f}"


def points(value: float | None) -> str:
    """A difference of rates in percentage points."""
    return NOTHING if value is None else f"{100 * value:+.2f}"


def ends(interval: Interval | tuple[float, float] | None, *, signed: bool = False) -> str:
    """An interval in percent: `7.10 to 9.20`; empty where there is none."""
    if interval is None:
        return ""
    low, high = interval if isinstance(interval, tuple) else (interval.low, interval.high)
    if low is None or high is None:
        return ""
    form = "{:+.2f} to {:+.2f}" if signed else "{:.2f} to {:.2f}"
    return form.format(100 * low, 100 * high)


def p_value(p: float | None) -> str:
    """A p-value as it is reported: small ones only as small."""
    if p is None:
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def change(ratio: float | None, digits: int = 1) -> str:
    """A ratio as a relative change: 0.82 is -18.0 %."""
    return NOTHING if ratio is None else f"{100 * (ratio - 1):+.{digits}f} %"


def number(value: float | None) -> str:
    """Three significant digits, in the spelling of the configs: 5e-5, 0.01; thousands whole."""
    if value is None:
        return NOTHING
    if 1000 <= abs(value) < 1e5:
        return f"{value:.0f}"
    if value == 0:
        return "0"
    if 0.01 <= abs(value) < 1e5:
        return f"{value:.3g}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def setting(value: Any) -> str:
    """A config's value: a learning rate that a search drew has 17 digits, of which three matter."""
    return number(value) if isinstance(value, float) else format_value(value)


def hours(seconds: float | None) -> str:
    """Seconds as hours, to half a minute."""
    return NOTHING if seconds is None else f"{seconds / 3600:.2f}"


def duration(seconds: float | None) -> str:
    """Seconds as a person reads them: 42 s, 3m05s, 2h10m."""
    if seconds is None:
        return NOTHING
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60}m{total % 60:02}s"
    return f"{total // 3600}h{total % 3600 // 60:02}m"


def roughly(seconds: float) -> str:
    """A forecast or a sum of seconds in one unit: 18 s, 30 min, 12.3 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:,.1f} h"


def clock(seconds: float) -> str:
    """Seconds as a clock that runs shows them: 1:15, 1:01:40."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def size(num_bytes: float, digits: int = 1) -> str:
    """Bytes as a person reads them: 1.2 GB, 120 MB, 5.5 MB; gigabytes with so many digits."""
    if num_bytes >= 1e9:
        return f"{num_bytes / 1e9:,.{digits}f} GB"
    return f"{num_bytes / 1e6:.{0 if num_bytes >= 1e7 else 1}f} MB"
