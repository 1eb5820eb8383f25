"""The table that ``llama-perplexity --kl-divergence`` prints, digit for digit."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import polars as pl

from kldiv._arrays import Array

KL_PERCENTILES = (
    ("99.9%  ", 0.999),
    ("99.0%  ", 0.990),
    ("95.0%  ", 0.950),
    ("90.0%  ", 0.900),
    ("Median ", None),
    ("10.0%  ", 0.100),
    (" 5.0%  ", 0.050),
    (" 1.0%  ", 0.010),
    (" 0.1%  ", 0.001),
)
DELTA_P_PERCENTILES = (
    *KL_PERCENTILES[:4],
    ("75.0%  ", 0.750),
    KL_PERCENTILES[4],
    ("25.0%  ", 0.250),
    *KL_PERCENTILES[5:],
)


class Estimate(NamedTuple):
    """A mean and its uncertainty, as llama.cpp has them."""

    value: np.float64
    error: np.float64


def llama_cpp_table(positions: pl.DataFrame) -> str:
    """Print a candidate's positions as llama.cpp does.

    The numbers are ``kl_llama_cpp``, ``nll_p_llama_cpp`` and ``nll_q_llama_cpp`` where the
    reference is a base file, else ``kl``, ``nll_p`` and ``nll_q``. As there, each −ln p and its
    square are float32, and so are percentiles; sums are float64. llama.cpp itself prints nothing
    for fewer than 100 rows.

    Parameters
    ----------
    positions
        The table of positions of one candidate.

    Raises
    ------
    ValueError
        For rows without a label, and for rows of NaN, of which llama.cpp's table says nothing.
    """
    kl = _column(positions, "kl")
    nll_base, nll = _column(positions, "nll_p"), _column(positions, "nll_q")
    with np.errstate(all="ignore"):
        return "\n".join(
            [
                *_perplexity_lines(nll.astype(np.float32), nll_base.astype(np.float32)),
                "",
                *_kl_lines(kl),
                "",
                *_probability_lines(nll.astype(np.float32), nll_base.astype(np.float32)),
                *_top_lines(positions),
            ]
        )


def _column(positions: pl.DataFrame, name: str) -> Array:
    if f"{name}_llama_cpp" in positions.columns:
        name = f"{name}_llama_cpp"
    if name not in positions.columns:
        raise ValueError(
            f"llama.cpp's table needs labels: the positions have no {name} (--labels, labels=)"
        )
    if not len(positions):
        raise ValueError("llama.cpp's table needs positions, and there are none")
    column = positions[name]
    missing = column.is_null() | column.is_nan()
    if missing.any():
        row = int(missing.arg_max() or 0)
        raise ValueError(
            f"llama.cpp's table needs {name} of every position: {missing.sum():,} of "
            f"{len(positions):,} have none, the first is {row}; a mask of the others leaves these "
            "out (--where, where=)"
        )
    return column.to_numpy().astype(np.float64)


def _perplexity_lines(nll: Array, nll_base: Array) -> list[str]:
    count = len(nll)
    log_q = _mean(_sum(nll), _sum(nll * nll), count)
    log_base = _mean(_sum(nll_base), _sum(nll_base * nll_base), count)
    covariance = np.float64(0)
    if count >= 10:
        product = _sum(nll * nll_base) / count
        covariance = (product - _sum(nll) / count * (_sum(nll_base) / count)) / (count - 1)
    ppl, base = (
        Estimate(np.exp(mean.value), np.exp(mean.value) * mean.error) for mean in (log_q, log_base)
    )
    correlation = covariance / (log_q.error * log_base.error)
    ln_ratio = Estimate(
        log_q.value - log_base.value,
        np.sqrt(log_q.error * log_q.error + log_base.error * log_base.error - 2 * covariance),
    )
    ratio = Estimate(np.exp(ln_ratio.value), np.exp(ln_ratio.value) * ln_ratio.error)
    of_ppl = ppl.value * base.value * covariance
    difference = Estimate(
        ppl.value - base.value,
        np.sqrt(ppl.error * ppl.error + base.error * base.error - 2 * of_ppl),
    )
    return [
        "====== Perplexity statistics ======",
        f"Mean PPL(Q)                   : {_both(ppl)}",
        f"Mean PPL(base)                : {_both(base)}",
        f"Cor(ln(PPL(Q)), ln(PPL(base))): {_number(100 * correlation, 6, 2)}%",
        f"Mean ln(PPL(Q)/PPL(base))     : {_both(ln_ratio)}",
        f"Mean PPL(Q)/PPL(base)         : {_both(ratio)}",
        f"Mean PPL(Q)-PPL(base)         : {_both(difference)}",
    ]


def _kl_lines(kl: Array) -> list[str]:
    values = np.sort(kl.astype(np.float32))
    mean = _mean(_sum(kl), _sum(kl * kl), len(kl))
    return [
        "====== KL divergence statistics ======",
        f"Mean    KLD: {_both(mean)}",
        f"Maximum KLD: {_number(values[-1], 10, 6)}",
        *(f"{name} KLD: {_number(_at(values, f), 10, 6)}" for name, f in KL_PERCENTILES),
        f"Minimum KLD: {_number(values[0], 10, 6)}",
    ]


def _probability_lines(nll: Array, nll_base: Array) -> list[str]:
    difference = _exp(-nll) - _exp(-nll_base)
    squares = (difference * difference).astype(np.float64)
    values = np.sort(difference)
    mean = _mean(_sum(difference), _sum(squares), len(values))
    of_squares = _mean(_sum(squares), _sum(squares * squares), len(values))
    rms = np.sqrt(of_squares.value)
    return [
        "====== Token probability statistics ======",
        f"Mean    Δp: {_percent(mean)}",
        f"Maximum Δp: {_number(100 * np.float64(values[-1]), 6, 3)}%",
        *(
            f"{name} Δp: {_number(100 * np.float64(_at(values, f)), 6, 3)}%"
            for name, f in DELTA_P_PERCENTILES
        ),
        f"Minimum Δp: {_number(100 * np.float64(values[0]), 6, 3)}%",
        f"RMS Δp    : {_percent(Estimate(rms, 0.5 / rms * of_squares.error))}",
    ]


def _top_lines(positions: pl.DataFrame) -> list[str]:
    same = positions["top1_p"].to_numpy() == positions["top1_q"].to_numpy()
    share = np.float64(np.count_nonzero(same)) / len(same)
    error = np.sqrt(share * (1 - share) / np.float64(len(same) - 1))
    return [f"Same top p: {_percent(Estimate(share, error))}", ""]


def _sum(values: Array) -> np.float64:
    """Float64 sum of numbers as they are."""
    return np.float64(np.sum(values, dtype=np.float64))


def _mean(total: np.float64, squares: np.float64, count: int) -> Estimate:
    """The mean and its standard error, which is 0 for up to ten."""
    mean = total / count
    variance = squares / count - mean * mean
    if not (variance > 0 and count > 10):
        return Estimate(mean, np.float64(0))
    return Estimate(mean, np.sqrt(variance / (count - 1)))


def _at(values: Array, fraction: float | None) -> np.float32:
    """A percentile of sorted float32 numbers in float32; the median for None."""
    count = len(values)
    if fraction is None:
        if count % 2:
            return np.float32(values[count // 2])
        return np.float32(np.float32(0.5) * (values[count // 2] + values[count // 2 - 1]))
    place = np.float32(fraction) * np.float32(count - 1)
    whole = int(place)
    place -= np.float32(whole)
    above = min(whole + 1, count - 1)
    return np.float32((np.float32(1) - place) * values[whole] + place * values[above])


def _exp(values: Array) -> Array:
    """e^x in float32, correctly rounded but for one in billions, as that of the C library is."""
    return np.exp(values.astype(np.float64)).astype(np.float32)


def _both(estimate: Estimate) -> str:
    return f"{_number(estimate.value, 10, 6)} ± {_number(estimate.error, 10, 6)}"


def _percent(estimate: Estimate) -> str:
    return f"{_number(100 * estimate.value, 6, 3)} ± {_number(100 * estimate.error, 5, 3)} %"


def _number(value: Any, width: int, digits: int) -> str:
    """As C prints it; NaN that arithmetic makes of numbers is negative on x86-64."""
    return f"{'-nan':>{width}}" if np.isnan(value) else f"{float(value):{width}.{digits}f}"
