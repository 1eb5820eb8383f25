"""The table of the numbers that are quoted, candidates side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from kldiv.evaluation.report import numbers
from kldiv.evaluation.report.cells import EMPTY, Cell, Row, Table, of_estimate, of_number
from kldiv.evaluation.report.words import Words
from kldiv.evaluation.statistics.bounds import Bounds
from kldiv.evaluation.statistics.summary import EvaluationSummary


def headline(summaries: Sequence[EvaluationSummary], words: Words) -> Table:
    """Rows that no candidate has a number for are left out, but the first."""
    columns = [dict(_column(summary, words)) for summary in summaries]
    keys = list(dict.fromkeys(key for column in columns for key in column))
    rows = [
        Row(words[key], [column.get(key, EMPTY) for column in columns], _unit(key, words))
        for place, key in enumerate(keys)
        if place == 0 or any(_is_known(column.get(key, EMPTY)) for column in columns)
    ]
    header = [summary.candidate for summary in summaries]
    return Table("headline", words["headline"], header, rows, candidates_from=0)


def _is_known(cell: Cell) -> bool:
    return cell.value is not None and not math.isnan(cell.value)


_UNITS = {
    "headline.mean": "headline.nats",
    "headline.mean_bound": "headline.nats",
    "headline.js": "headline.nats",
    "headline.worst": "headline.of_kl",
    "headline.delta_p": "headline.percent_points",
    "headline.coverage": "headline.coverage_of",
}


def _unit(key: str, words: Words) -> str | None:
    return words[_UNITS[key]] if key in _UNITS else None


def _column(summary: EvaluationSummary, words: Words) -> Iterator[tuple[str, Cell]]:
    """The cells of a candidate, by the names of their labels."""
    counts, percentiles, stated = summary.counts, summary.kl_percentiles, summary.uncertainty
    yield (
        "headline.mean_bound" if summary.bounded else "headline.mean",
        of_estimate(summary.kl, "kl.mean", words),
    )
    interval = numbers.interval(stated.ci95_low, stated.ci95_high, words)
    yield "headline.interval", Cell(interval, "uncertainty.ci95_low", stated.ci95_low)
    of = words["headline.bound_of"] if summary.bounded else None
    yield "headline.median", of_number(percentiles[50.0], "kl.median", note=of)
    yield "headline.p99", of_number(percentiles[99.0], "kl.p99", note=of)
    yield "headline.max", of_number(percentiles.maximum, "kl.max", note=of)
    if not summary.bounded:
        for one in summary.tail_shares:
            if one.percent == 1.0 and one.share >= 0:
                note = words.count(one.rows, "position")
                name = "kl.tail_shares.1.0.share"
                yield "headline.worst", of_number(one.share, name, percents=True, note=note)
    if (top1 := summary.top1) is not None:
        agreement = of_estimate(top1.agreement, "top1_agreement", words, percents=True)
        yield "headline.top1", agreement
        if not summary.bounded:
            share = numbers.percent(top1.changed_share_of_kl)
            of_it = words("headline.changed_share", share=share) if top1.kl_changed.rows else None
            name = "top1.kl_changed.mean"
            yield "headline.changed", of_estimate(top1.kl_changed, name, words, note=of_it)
    if (losses := summary.perplexity) is not None:
        for side in ("p", "q"):
            name = f"perplexity.perplexity_{side}.mean"
            found = getattr(losses, f"perplexity_{side}")
            yield f"headline.perplexity_{side}", of_estimate(found, name, words)
        p_value = f"p = {numbers.number(losses.p_value, 2)}" if losses.p_value >= 0 else None
        ratio = of_estimate(losses.ratio, "perplexity.ratio.mean", words, note=p_value)
        yield "headline.ratio", ratio
        delta = of_estimate(losses.delta_p, "perplexity.delta_p.mean", words, percents=True)
        yield "headline.delta_p", delta
    for name, key, called in (
        ("jensen_shannon", "headline.js", "js.mean"),
        ("total_variation", "headline.tv", "total_variation.mean"),
    ):
        if name in summary.means:
            yield key, of_estimate(summary.means[name], called, words)
    if (bounds := summary.bounds) is not None:
        yield from _bounds(bounds, words)
    if (floor := summary.floor) is not None:
        yield "headline.floor", of_estimate(floor.floor, "floor.floor.mean", words)
    yield "headline.positions", Cell(f"{counts.rows:,}", "num_positions", counts.rows)
    if counts.rows_nan:
        yield "headline.nan", Cell(f"{counts.rows_nan:,}", "num_nan", counts.rows_nan)
    if counts.rows_infinite:
        cell = Cell(f"{counts.rows_infinite:,}", "num_infinite", counts.rows_infinite)
        yield "headline.infinite", cell


def _bounds(bounds: Bounds, words: Words) -> Iterator[tuple[str, Cell]]:
    low, high = bounds.total_variation_lower, bounds.total_variation_upper
    if low is not None and high is not None:
        text = words("value.to", low=numbers.number(low.mean), high=numbers.number(high.mean))
        yield "headline.tv_bounds", Cell(text, "bounds.total_variation_lower.mean", low.mean)
    if bounds.coverage_p is not None and bounds.coverage_q is not None:
        shares = (numbers.percent(one.mean, 4) for one in (bounds.coverage_p, bounds.coverage_q))
        name = "bounds.coverage_p.mean"
        yield "headline.coverage", Cell(" · ".join(shares), name, bounds.coverage_p.mean)
