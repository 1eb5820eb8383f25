"""Numbers as a page shows them: as many digits as their errors leave them."""

from __future__ import annotations

import math
from decimal import Decimal

from kldiv.evaluation.report.words import Words
from kldiv.evaluation.statistics.estimate import Estimate

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
BOUND = "\u00a0"
"""A space at which no line ends."""
SMALL, LARGE = -3, 6
"""Powers of ten from and up to which numbers are written without one."""


def number(value: float, digits: int = 3) -> str:
    """A number with so many significant digits; – for NaN."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    power = _power(value, digits)
    if SMALL <= power < LARGE:
        return _signed(value, max(0, digits - 1 - power))
    return f"{_signed(_scaled(value, power), digits - 1)}{_times_ten_to(power)}"


def with_error(mean: float, error: float) -> str:
    """Mean ± error, the error with two digits and the mean with as many decimals.

    The mean alone where its error is not known, or 0.
    """
    if not math.isfinite(error) or not math.isfinite(mean):
        return number(mean)
    if error == 0:
        # Every text has the same, as where a model is compared with itself.
        return f"{mean:,.0f}" if mean.is_integer() else number(mean, 4)
    largest = max(abs(mean), error)
    power = _power(largest)
    scale = 0 if SMALL <= power < LARGE else power
    mean, error = _scaled(mean, scale), _scaled(error, scale)
    # Never more digits than a float has.
    decimals = min(max(0, 1 - _power(error)), 15)
    text = f"{_signed(mean, decimals)} ±{BOUND}{_signed(error, decimals)}"
    return f"({text}){_times_ten_to(scale)}" if scale else text


def percent(value: float, digits: int = 3) -> str:
    """A share in percent."""
    return f"{number(100 * value, digits)}{BOUND}%" if math.isfinite(value) else number(value)


def estimate(found: Estimate, words: Words, *, percents: bool = False) -> str:
    """A mean with its error, and at how many positions it is infinite."""
    if not found.rows:
        return words["value.infinite"] if found.rows_infinite else words["value.none"]
    factor = 100.0 if percents else 1.0
    text = with_error(found.mean * factor, found.standard_error * factor)
    if percents:
        text += f"{BOUND}%"
    if found.rows_infinite:
        text = words("value.and_infinite", value=text, count=f"{found.rows_infinite:,}")
    return text


def interval(low: float, high: float, words: Words) -> str:
    """From … to …, with digits that tell them apart."""
    if math.isnan(low) or math.isnan(high):
        return words["value.none"]
    low_text, high_text = ends(low, high)
    return words("value.to", low=low_text, high=high_text)


def ends(low: float, high: float) -> tuple[str, str]:
    """Both ends of an interval, with the decimals that its width asks for."""
    return within(low, low, high), within(high, low, high)


def within(value: float, low: float, high: float) -> str:
    """A number with the decimals that the width of its interval asks for."""
    if not all(map(math.isfinite, (value, low, high))) or low == high:
        return number(value, 4)
    power = _power(max(abs(low), abs(high)))
    scale = 0 if SMALL <= power < LARGE else power
    decimals = min(max(0, 1 - _power(_scaled(high - low, scale))), 15)
    tail = _times_ten_to(scale) if scale else ""
    return _signed(_scaled(value, scale), decimals) + tail


def _power(value: float, digits: int = 2) -> int:
    """The power of ten of a number that is rounded to so many digits."""
    return int(f"{value:.{digits - 1}e}".partition("e")[2])


def _scaled(value: float, power: int) -> float:
    """A number over a power of ten, which may itself be beyond floats."""
    return float(Decimal(value).scaleb(-power))


def _signed(value: float, decimals: int) -> str:
    text = f"{value:,.{decimals}f}"
    if text.startswith("-"):
        # Of what rounds to 0 no sign is left.
        return text.replace("-", "−") if float(text.replace(",", "")) else text[1:]
    return text


def _times_ten_to(power: int) -> str:
    return f"×10{str(power).translate(_SUPERSCRIPTS)}"
