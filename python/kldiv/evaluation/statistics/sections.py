"""A summary as lines of text under titles, which every table is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kldiv.evaluation.statistics.estimate import FEW_CLUSTERS, Estimate
from kldiv.evaluation.statistics.groups import Group
from kldiv.evaluation.wording import counted

if TYPE_CHECKING:
    from kldiv.evaluation.statistics.summary import EvaluationSummary

Line = tuple[str, str]


@dataclass(frozen=True)
class Section:
    """Lines under a title."""

    title: str
    lines: tuple[Line, ...]


_NAMES = {
    "reverse_kl": "mean KL(q‖p)",
    "jensen_shannon": "mean Jensen–Shannon",
    "total_variation": "mean total variation",
    "entropy_p": "mean entropy of p",
    "entropy_q": "mean entropy of q",
    "confidence_p": "mean confidence of p",
    "confidence_q": "mean confidence of q",
}


def sections_of(summary: EvaluationSummary) -> list[Section]:
    """All that a summary has, in the order in which it is read."""
    found = [
        Section("positions", tuple(_counts(summary))),
        Section("KL, lower bound" if summary.bounded else "KL", tuple(_kl(summary))),
        Section("share of the total KL", tuple(_tail(summary))),
        Section("top-1", tuple(_top1(summary))),
        Section("losses of the tokens", tuple(_losses(summary))),
        Section("noise floor", tuple(_floor(summary))),
        Section("bounds of top-k rows", tuple(_bounds(summary))),
        Section("vocabulary", tuple(_lost(summary))),
        Section("speculative decoding", tuple(_acceptance(summary))),
        Section("estimators of sampled tokens", tuple(_estimators(summary))),
    ]
    if not summary.bounded:
        found += [
            Section("KL by confidence of p", tuple(_groups(summary.by_confidence))),
            Section("KL by depth", tuple(_groups(summary.by_depth))),
            Section("KL by stratum", tuple(_groups(summary.by_stratum))),
        ]
    return [section for section in found if section.lines]


def _counts(summary: EvaluationSummary) -> list[Line]:
    counts = summary.counts
    sequences = counted(counts.sequences, "sequence")
    lines = [
        ("positions", f"{counts.rows:,}"),
        ("sequences", f"{counts.sequences:,}"),
    ]
    if counts.clusters != counts.sequences:
        lines.append(("clusters", f"{counts.clusters:,}"))
    if counts.rows_nan:
        text = f"{counts.rows_nan:,}, in {counts.sequences_nan:,} of {sequences}"
        lines.append(("rows with NaN (left out)", text))
    if counts.rows_infinite:
        text = f"{counts.rows_infinite:,}, in {counts.sequences_infinite:,} of {sequences}"
        lines.append(("rows with infinite values", text))
    if counts.rows_labelled is not None and counts.rows_labelled != counts.rows - counts.rows_nan:
        lines.append(("rows with a token", f"{counts.rows_labelled:,}"))
    if summary.kld_vocab_size is not None:
        lines.append(("classes", f"{summary.kld_vocab_size:,}"))
    return lines


def _kl(summary: EvaluationSummary) -> list[Line]:
    name = "lower bound of KL(p‖q)" if summary.bounded else "KL(p‖q)"
    lines = [
        (f"mean {name}", summary.kl.show()),
        ("95 % interval", summary.kl.interval()),
        ("error by", _how(summary.kl)),
        *_few(summary.kl),
        *_bootstrap(summary.kl_bootstrap),
        ("error were rows independent", _number(summary.kl_independent.standard_error, 2)),
        ("mean over sequences", summary.kl_macro.show()),
        (f"{name}, minimum", _number(summary.kl_percentiles.minimum)),
    ]
    for one in summary.kl_percentiles.percentiles:
        called = "median" if one.percent == 50 else f"{one.percent:g} %"
        lines.append((f"{name}, {called}", _number(one.value)))
    lines.append((f"{name}, maximum", _number(summary.kl_percentiles.maximum)))
    if summary.kl_percentiles.method != "exact":
        error = summary.kl_percentiles.rank_error * 100
        lines.append(("percentiles by", f"{summary.kl_percentiles.method}, off by {error:.2g} %"))
    lines += [(_NAMES[name], mean.show()) for name, mean in summary.means.items()]
    return lines


def _bootstrap(estimate: Estimate | None) -> list[Line]:
    if estimate is None:
        return []
    return [
        ("interval by bootstrap instead", estimate.interval()),
        ("bootstrap by", _how(estimate)),
    ]


def _few(estimate: Estimate) -> list[Line]:
    """What must be known of an interval of few clusters."""
    if not estimate.few_clusters:
        return []
    return [("few clusters", f"of fewer than {FEW_CLUSTERS} any interval is rough")]


def _how(estimate: Estimate) -> str:
    if estimate.clusters < 2:
        return "not known: it takes two clusters or more"
    text = f"{estimate.method}, {counted(estimate.clusters, 'cluster')}"
    return text if estimate.samples is None else f"{text}, {counted(estimate.samples, 'sample')}"


def _tail(summary: EvaluationSummary) -> list[Line]:
    if summary.bounded:
        return []
    # Of few positions several shares are the same rows: the largest of these says it best.
    found = {one.rows: one for one in summary.tail_shares if one.rows}
    return [
        (f"in the worst {one.percent:g} %", f"{_percent(one.share)} in {counted(rows, 'row')}")
        for rows, one in found.items()
    ]


def _top1(summary: EvaluationSummary) -> list[Line]:
    found = summary.top1
    if found is None:
        return []
    lines = [("same top-1", found.agreement.show(percent=True))]
    if summary.bounded:
        # Shares and splits of lower bounds say nothing of those of KL.
        return lines
    return [
        *lines,
        ("mean KL where it survived", found.kl_survived.show()),
        ("mean KL where it changed", found.kl_changed.show()),
        ("share of KL where it changed", _percent(found.changed_share_of_kl)),
    ]


def _losses(summary: EvaluationSummary) -> list[Line]:
    found = summary.perplexity
    if found is None:
        return []
    return [
        ("perplexity of p", found.perplexity_p.show()),
        ("perplexity of q", found.perplexity_q.show()),
        ("perplexity of q over p", found.ratio.show()),
        ("mean −ln q minus −ln p", found.nll_difference.show()),
        ("95 % interval of it", found.nll_difference.interval()),
        ("p-value of it", _number(found.p_value, 2)),
        ("mean Δp of the token", found.delta_p.show(percent=True)),
    ]


def _floor(summary: EvaluationSummary) -> list[Line]:
    found = summary.floor
    if found is None:
        return []
    lines = [
        ("mean KL there", found.kl.show()),
        ("mean of the floor", found.floor.show()),
        ("KL minus the floor", found.difference.show()),
        ("95 % interval of the difference", found.difference.interval()),
        ("positions at or below the floor", found.share_at_or_below.show(percent=True)),
        ("verdict", found.verdict),
    ]
    if found.rows_without_floor:
        lines.append(("rows without a floor", f"{found.rows_without_floor:,}"))
    return lines


def _bounds(summary: EvaluationSummary) -> list[Line]:
    found = summary.bounds
    if found is None:
        return []
    lines = [("mean KL(p‖q), at least", found.kl_lower.show())]
    for label, estimate, percent in (
        ("mean KL(q‖p), at least", found.reverse_kl_lower, False),
        ("mean total variation, at least", found.total_variation_lower, False),
        ("mean total variation, at most", found.total_variation_upper, False),
        ("acceptance rate, at least", found.acceptance_lower, True),
        ("acceptance rate, at most", found.acceptance_upper, True),
        ("mass of p on shared classes", found.coverage_p, True),
        ("mass of q on shared classes", found.coverage_q, True),
    ):
        if estimate is not None:
            lines.append((label, estimate.show(percent=percent)))
    return lines


def _lost(summary: EvaluationSummary) -> list[Line]:
    found = summary.lost_mass
    if found is None:
        return []
    return [
        ("mass of p not scored", f"{found.mean_p}, largest {found.largest_p:.6g}"),
        ("mass of q not scored", f"{found.mean_q}, largest {found.largest_q:.6g}"),
    ]


def _acceptance(summary: EvaluationSummary) -> list[Line]:
    found = summary.acceptance
    if found is None:
        return []
    lines = [("acceptance rate", found.rate.show(percent=True))]
    for one in found.lengths:
        text = f"{one.along.show()} ({one.independent.mean:.4g} were positions independent)"
        lines.append((f"accepted of {one.draft} drafted", text))
    return lines


def _estimators(summary: EvaluationSummary) -> list[Line]:
    found = summary.estimators
    if found is None:
        return []
    exact = "KL(p‖q)" if found.sampled_from == "p" else "KL(q‖p)"
    return [
        (f"exact {exact} there", found.exact.show()),
        ("k1", found.k1.show()),
        ("k3", found.k3.show()),
        ("k1 minus exact", found.k1_error.show()),
        ("k3 minus exact", found.k3_error.show()),
        ("p-value of k1 being exact", _number(found.k1_p_value, 2)),
    ]


def _groups(groups: tuple[Group, ...]) -> list[Line]:
    lines = []
    for group in groups:
        mean, _, infinite = group.kl.show().partition(" over ")
        text = f"{mean}, {counted(group.rows, 'row')}, {_percent(group.share_of_kl)} of KL"
        if infinite:
            text += f", infinite in {group.kl.rows_infinite:,}"
        if group.top1_agreement is not None and group.top1_agreement.rows:
            text += f", top-1 {_percent(group.top1_agreement.mean)}"
        lines.append((group.label, text))
    return lines


def _number(value: float, digits: int = 6) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}g}"


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{value * 100:.4g} %"
