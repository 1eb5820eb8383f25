"""The answer in a sentence, what stands below it, and what must be known first."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from kldiv.evaluation.report import numbers
from kldiv.evaluation.report.words import Words
from kldiv.evaluation.statistics.estimate import FEW_CLUSTERS, Estimate
from kldiv.evaluation.statistics.paired import Pair
from kldiv.evaluation.statistics.summary import EvaluationSummary


@dataclass(frozen=True)
class Answer:
    """What the page says first."""

    title: str
    sentence: str
    details: tuple[str, ...]
    warnings: tuple[str, ...]


def answer(
    summaries: Sequence[EvaluationSummary],
    pairs: Sequence[Pair],
    reference: str,
    words: Words,
) -> Answer:
    """In words: how far the candidates are from the reference, and how sure that is."""
    ranked = sorted(summaries, key=_rank)
    neighbours = itertools.pairwise(ranked)
    found = [pair for names in neighbours if (pair := _pair_of(pairs, *names)) is not None]
    if len(summaries) == 1:
        title = words("title", candidates=summaries[0].candidate, reference=reference)
        sentence = _alone(summaries[0], reference, words)
    else:
        count = words.count(len(summaries), "candidate")
        title = words("title.several", count=count, reference=reference)
        sentence = _of_several(ranked, found, reference, words)
    details = [_details(summary, reference, words) for summary in summaries]
    details = [one for one in details if one and one != sentence]
    details += [_of_pair(pair, words) for pair in found]
    return Answer(title, sentence, tuple(details), tuple(_warnings(summaries, ranked[0], words)))


def is_equal(summary: EvaluationSummary) -> bool:
    """Whether the candidate is the reference, at every position."""
    found = summary.kl_percentiles
    rows = summary.counts.rows
    return not summary.bounded and found.rows == rows > 0 and found.minimum == found.maximum == 0


def _rank(summary: EvaluationSummary) -> tuple[bool, int, float]:
    mean = summary.kl.mean
    return math.isnan(mean), summary.kl.rows_infinite, mean


def _pair_of(pairs: Sequence[Pair], a: EvaluationSummary, b: EvaluationSummary) -> Pair | None:
    names = {a.candidate, b.candidate}
    return next((pair for pair in pairs if {pair.a, pair.b} == names), None)


def _alone(summary: EvaluationSummary, reference: str, words: Words) -> str:
    q, positions = summary.candidate, words.count(summary.counts.rows, "position")
    kl = summary.kl
    if is_equal(summary):
        return words("answer.equal", q=q, p=reference, positions=positions)
    if not kl.rows:
        name = "answer.all_infinite" if kl.rows_infinite else "answer.nothing"
        return words(name, q=q, p=reference, positions=positions)
    mean = numbers.with_error(kl.mean, kl.standard_error)
    if kl.rows_infinite:
        count = f"{kl.rows_infinite:,}"
        name = "answer.infinite_bound" if summary.bounded else "answer.infinite"
        return words(name, q=q, p=reference, kl=mean, count=count, positions=positions)
    name = "answer.bound" if summary.bounded else "answer.one"
    return words(name, q=q, p=reference, kl=mean)


def _of_several(
    ranked: Sequence[EvaluationSummary], pairs: Sequence[Pair], reference: str, words: Words
) -> str:
    first, second = ranked[:2]
    if is_equal(first) or not first.kl.rows or first.kl.rows_infinite:
        return _alone(first, reference, words)
    means = [
        numbers.with_error(first.kl.mean, first.kl.standard_error),
        numbers.estimate(second.kl, words),
    ]
    bound = "_bound" if first.bounded else ""
    told_apart = not pairs or pairs[0].better is not None or second.kl.rows_infinite
    difference = pairs[0].kl.difference if pairs else None
    # Of one text nothing is known of others, but which of two is closer there.
    if not told_apart and difference and (difference.clusters > 1 or difference.mean == 0):
        return words(
            f"answer.not_told_apart{bound}",
            first=first.candidate,
            second=second.candidate,
            p=reference,
            kl_first=means[0],
            kl_second=means[1],
        )
    return words(
        f"answer.best{bound}",
        q=first.candidate,
        p=reference,
        second=second.candidate,
        kl=means[0],
        kl_second=means[1],
    )


def _details(summary: EvaluationSummary, reference: str, words: Words) -> str:
    """A paragraph on one candidate."""
    said = []
    kl, stated = summary.kl, summary.uncertainty
    bound = "_bound" if summary.bounded else ""
    if is_equal(summary):
        positions = words.count(summary.counts.rows, "position")
        return words("answer.equal", q=summary.candidate, p=reference, positions=positions)
    if kl.rows:
        values = {
            "q": summary.candidate,
            "kl": numbers.with_error(kl.mean, kl.standard_error),
            "positions": words.count(kl.rows, "position"),
            "clusters": clusters(summary, words),
        }
        if math.isnan(stated.ci95_low):
            said.append(words(f"detail.no_error{bound}", **values))
        else:
            low, high = numbers.ends(stated.ci95_low, stated.ci95_high)
            said.append(words(f"detail.interval{bound}", low=low, high=high, **values))
    if summary.top1 is not None and summary.top1.agreement.rows:
        share = numbers.estimate(summary.top1.agreement, words, percents=True)
        said.append(words("detail.top1", share=share))
    if summary.perplexity is not None and summary.perplexity.ratio.rows:
        said.append(_of_ratio(summary.perplexity.ratio, words))
    if summary.floor is not None and summary.floor.floor.rows:
        floor = numbers.estimate(summary.floor.floor, words)
        said.append(words(f"detail.floor.{summary.floor.verdict}", floor=floor))
    return words["sentence.space"].join(said)


def _of_ratio(ratio: Estimate, words: Words) -> str:
    if math.isnan(ratio.ci95_low):
        return words("detail.ratio_unknown", ratio=numbers.number(ratio.mean, 4))
    low, high = numbers.ends(ratio.ci95_low, ratio.ci95_high)
    mean = numbers.within(ratio.mean, ratio.ci95_low, ratio.ci95_high)
    same = ratio.ci95_low <= 1 <= ratio.ci95_high
    name = "detail.ratio_same" if same else "detail.ratio_changed"
    return words(name, ratio=mean, low=low, high=high)


def _of_pair(pair: Pair, words: Words) -> str:
    estimate = pair.kl.difference
    bound = "_bound" if pair.kl.name == "kl_lower" else ""
    said = []
    if estimate.clusters < 2:
        said.append(words("detail.pair_unknown", a=pair.a, b=pair.b))
    else:
        estimate = estimate if estimate.mean >= 0 else estimate.negative()
        low, high = numbers.ends(estimate.ci95_low, estimate.ci95_high)
        values = {
            "difference": numbers.within(estimate.mean, estimate.ci95_low, estimate.ci95_high),
            "low": low,
            "high": high,
            "p": numbers.number(pair.kl.p_value, 2),
        }
        if pair.better is None:
            said.append(words(f"detail.pair_same{bound}", a=pair.a, b=pair.b, **values))
        else:
            other = pair.b if pair.better == pair.a else pair.a
            name = f"detail.pair_better{bound}"
            said.append(words(name, better=pair.better, other=other, **values))
    if pair.kl.rows_infinite_a or pair.kl.rows_infinite_b:
        counts = {
            "a_count": f"{pair.kl.rows_infinite_a:,}",
            "b_count": f"{pair.kl.rows_infinite_b:,}",
        }
        said.append(words("detail.pair_infinite", a=pair.a, b=pair.b, **counts))
    return words["sentence.space"].join(said)


def _warnings(
    summaries: Sequence[EvaluationSummary], first: EvaluationSummary, words: Words
) -> list[str]:
    """What must be known before any number is quoted; `first` is whom the sentence is about."""
    said = []
    for summary in summaries:
        counts = summary.counts
        values = {"q": summary.candidate, "positions": words.count(counts.rows, "position")}
        of_one = []
        if counts.rows_nan:
            of_one.append(words("warning.nan", count=f"{counts.rows_nan:,}", **values))
        in_sentence = summary is first and counts.rows_infinite == summary.kl.rows_infinite
        if counts.rows_infinite and not in_sentence:
            name = "warning.also_infinite" if of_one else "warning.infinite"
            of_one.append(words(name, count=f"{counts.rows_infinite:,}", **values))
        if of_one:
            said.append(words["sentence.space"].join(of_one))
        if summary.lost_mass is not None:
            lost = summary.lost_mass
            shares = {
                "lost_p": numbers.estimate(lost.mean_p, words, percents=True),
                "lost_q": numbers.estimate(lost.mean_q, words, percents=True),
            }
            said.append(words("warning.lost", q=summary.candidate, **shares))
    if any(summary.bounded for summary in summaries):
        said.append(words["warning.bound"])
    if (few := min((one.kl for one in summaries), key=lambda kl: kl.clusters)).few_clusters:
        said.append(words("warning.few", number=few.clusters, least=FEW_CLUSTERS))
    if not any(summary.perplexity is not None for summary in summaries):
        said.append(words["warning.labels"])
    return said


def clusters(summary: EvaluationSummary, words: Words) -> str:
    """What errors are over: so many texts, or clusters of them."""
    counts = summary.counts
    what = "text" if counts.clusters == counts.sequences else "cluster"
    return words.count(counts.clusters, what)
