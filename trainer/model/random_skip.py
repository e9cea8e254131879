"""PyTorch's CPU generator as it is after so many 32-bit draws, without drawing them.

    skip_draws(800_000_000)    # 0.04 s; drawing them takes 2.5 s

The generator is the Mersenne Twister MT19937 (Matsumoto and Nishimura 1998), whose words follow a
linear recurrence over GF(2). The word N places on is therefore a sum of the first 19,937 words; the
polynomial t^N modulo the recurrence's own says of which (Haramoto et al. 2008). Polynomials are
integers here, a bit for each power.
"""

from __future__ import annotations

import functools
import operator
from typing import Any

import numpy
import torch

_N, _M, _DEGREE = 624, 397, 19_937
_TWIST, _UPPER = 0x9908B0DF, 0x80000000
_FEW = 1_500_000
"""Up to here drawing is as fast as jumping so far again, as for each layer's adapters."""


def skip_draws(number: int) -> None:
    """Put the CPU's default generator where `number` draws of 32 bits would have put it."""
    state = torch.get_rng_state()
    # struct CPUGeneratorImplStateLegacy: seed, (left, seeded), next, words; normal's cache follows.
    fields = state[: 8 * (3 + _N)].view(torch.int64).numpy()
    words, position = fields[3:].astype(numpy.uint32), int(fields[2])
    if fields[1] & 0xFFFFFFFF == 1:  # all words of this round are drawn, or it has just been seeded
        position = _N
    if number > _FEW:
        # A later stretch of the same sequence, of which as many words are drawn.
        words = _jumped(words, number)
    else:
        drawn = numpy.random.MT19937()
        drawn.state = {"bit_generator": "MT19937", "state": {"key": words, "pos": position}}
        drawn.random_raw(number, output=False)
        found: Any = drawn.state["state"]
        words, position = found["key"], found["pos"]
    fields[1] = (1 << 32) | (_N + 1 - position)
    fields[2], fields[3:] = position, words
    torch.set_rng_state(state)


def _jumped(words: numpy.ndarray[Any, Any], places: int) -> numpy.ndarray[Any, Any]:
    """The 624 words so many places on."""
    course = numpy.empty(1 + _DEGREE + _N, numpy.uint32)
    course[:_N] = words
    step = _N - _M
    for start in range(_N, len(course), step):
        stop = min(start + step, len(course))
        mixed = (course[start - _N : stop - _N] & _UPPER) | (
            course[start - _N + 1 : stop - _N + 1] & (_UPPER - 1)
        )
        twisted = (mixed >> 1) ^ ((mixed & 1) * numpy.uint32(_TWIST))
        course[start:stop] = course[start - step : stop - step] ^ twisted
    stretches = numpy.lib.stride_tricks.sliding_window_view(course, _N)
    found: numpy.ndarray[Any, Any] = numpy.bitwise_xor.reduce(stretches[_chosen(places)])
    return found


@functools.lru_cache(maxsize=32)
def _chosen(places: int) -> numpy.ndarray[Any, Any]:
    """Where in the first words the stretches begin whose sum is the one so many places on.

    Of the first word only the upper bit is defined, hence they begin at the second.
    """
    return numpy.flatnonzero(_bits(_power(places - 1))) + 1


def _power(places: int) -> int:
    """t^places modulo the recurrence's polynomial."""
    power = 1
    for bit in f"{places:b}":
        power = _reduced(_squared(power) << int(bit))
    return power


def _reduced(polynomial: int) -> int:
    while (high := polynomial >> _DEGREE) > 0:
        polynomial &= (1 << _DEGREE) - 1
        for power in _lower_powers():
            polynomial ^= high << power
    return polynomial


@functools.cache
def _lower_powers() -> tuple[int, ...]:
    """The recurrence's polynomial but for its highest power, as in the appendix of the paper."""
    one = (1 << _N) | (1 << _M)
    other = (1 << (_N - 1)) | (1 << (_M - 1))
    twist = [_TWIST >> bit & 1 for bit in range(32)]
    ones = [_raised(one, power) for power in range(32)]
    others = [_raised(other, power) for power in range(32)]
    terms = [_product(ones[1], others[31])]
    terms += [_product(ones[1], others[30 - bit]) for bit in range(31) if twist[bit]]
    terms += [1] if twist[31] else []
    return tuple(numpy.flatnonzero(_bits(functools.reduce(operator.xor, terms)))[:-1].tolist())


def _raised(polynomial: int, power: int) -> int:
    return functools.reduce(_product, [polynomial] * power, 1)


def _product(one: int, other: int) -> int:
    places = numpy.flatnonzero(_bits(other)).tolist()
    return functools.reduce(operator.xor, (one << place for place in places), 0)


def _squared(polynomial: int) -> int:
    bits = _bits(polynomial)
    spread = numpy.zeros(2 * len(bits), numpy.uint8)
    spread[::2] = bits
    return int.from_bytes(numpy.packbits(spread, bitorder="little").tobytes(), "little")


def _bits(polynomial: int) -> numpy.ndarray[Any, Any]:
    length = polynomial.bit_length()
    data = polynomial.to_bytes(-(-length // 8), "little")
    return numpy.unpackbits(numpy.frombuffer(data, numpy.uint8), bitorder="little")[:length]
