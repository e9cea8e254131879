"""Numbers as people read them: one way for a rate, a duration and a size."""

import pytest

from conf.document.numbers import (
    change,
    clock,
    duration,
    ends,
    hours,
    number,
    p_value,
    percent,
    points,
    rate,
    roughly,
    setting,
    size,
)


def test_numbers_have_three_digits() -> None:
    assert (hours(5400), hours(None)) == ("1.50", "-")
    assert [number(value) for value in (3400.4, -0.0, 0.00005, 123.4)] == [
        "3400",
        "0",
        "5e-5",
        "123",
    ]


def test_rates_are_in_percent() -> None:
    assert [rate(0.08246), rate(0.08246, 1), rate(None)] == ["8.25 %", "8.2 %", "-"]
    assert [percent(0.08246), percent(0.08246, 0)] == ["8.2", "8"]
    assert [points(-0.0125), points(None)] == ["-1.25", "-"]
    assert [change(0.82), change(1.25, 0), change(None)] == ["-18.0 %", "+25 %", "-"]
    assert [ends((0.071, 0.092)), ends((-0.01, 0.02), signed=True), ends(None)] == [
        *("7.10 to 9.20", "-1.00 to +2.00", "")
    ]
    assert [p_value(0.0004), p_value(0.0123), p_value(None)] == ["< 0.001", "0.012", "-"]


def test_settings_are_spelt_as_in_a_config() -> None:
    assert [setting(0.00034567), setting(4), setting(None)] == ["3.46e-4", "4", "null"]


@pytest.mark.parametrize(
    ("seconds", "as_measured", "as_forecast", "as_a_clock"),
    [
        (0, "0 s", "0 s", "0:00"),
        (18, "18 s", "18 s", "0:18"),
        (75, "1m15s", "75 s", "1:15"),
        (1800, "30m00s", "30 min", "30:00"),
        (3700, "1h01m", "1.0 h", "1:01:40"),
        (44424, "12h20m", "12.3 h", "12:20:24"),
        (5_400_000, "1500h00m", "1,500.0 h", "1500:00:00"),
    ],
)
def test_durations(seconds: float, as_measured: str, as_forecast: str, as_a_clock: str) -> None:
    assert duration(seconds) == as_measured
    assert roughly(seconds) == as_forecast
    assert clock(seconds) == as_a_clock


@pytest.mark.parametrize(
    ("num_bytes", "shown"),
    [
        *((400_000, "0.4 MB"), (5_500_000, "5.5 MB"), (100_000_000, "100 MB")),
        *((1_230_000_000, "1.2 GB"), (2.5e12, "2,500.0 GB")),
    ],
)
def test_sizes(num_bytes: float, shown: str) -> None:
    assert size(num_bytes) == shown


@pytest.mark.parametrize(
    ("value", "text"),
    [(5e-5, "5e-5"), (1.234e-3, "1.23e-3"), (0.01, "0.01"), (0.0, "0"), (1e-3, "1e-3"), (2, "2")],
)
def test_number(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.4, "0 s"), (59.6, "1m00s"), (185, "3m05s"), (7800, "2h10m")],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text
