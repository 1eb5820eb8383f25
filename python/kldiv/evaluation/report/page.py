"""An evaluation as one page of HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

import kldiv
from kldiv.evaluation import charts
from kldiv.evaluation.evaluation import Evaluation
from kldiv.evaluation.report import groups, method, worst
from kldiv.evaluation.report.answer import Answer, answer
from kldiv.evaluation.report.cells import Table
from kldiv.evaluation.report.colours import series
from kldiv.evaluation.report.contexts import Speller, Texts, check_vocabulary
from kldiv.evaluation.report.figures import Figure, figure
from kldiv.evaluation.report.headline import headline
from kldiv.evaluation.report.letters import visible
from kldiv.evaluation.report.names import short_names
from kldiv.evaluation.report.render import render
from kldiv.evaluation.report.tokens import tokens_of
from kldiv.evaluation.report.words import Words, words_of
from kldiv.evaluation.statistics.rows import has, main_column
from kldiv.evaluation.statistics.summary import EvaluationSummary

WORST = 20
"""Positions shown of all candidates together, as far as `WORST_OF_EACH` allows."""
WORST_OF_EACH = (3, 10)
"""At least and at most."""


@dataclass(frozen=True)
class Candidate:
    """How a candidate is called, and its colour."""

    name: str
    colour: str


@dataclass(frozen=True)
class Page:
    """What a page says, in its order."""

    answer: Answer
    candidates: Sequence[Candidate]
    headline: Table
    figures: Sequence[Figure]
    groups: Sequence[Table]
    worst: Sequence[tuple[Candidate, Sequence[worst.Position]]]
    with_text: bool
    notes_of_worst: Sequence[str]
    meaning: Sequence[tuple[str, str]]
    dumps: Table
    settings: Table
    version: str


def html_page(
    result: Evaluation, *, lang: str = "en", tokenizer: Any = None, **options: Any
) -> str:
    """The page of `Evaluation.to_html`."""
    words = words_of(lang)
    return render("page.html.jinja", words, page=page(result, words, tokenizer, **options))


def page(result: Evaluation, words: Words, tokenizer: Any = None, **options: Any) -> Page:
    """What the page says."""
    if not len(result):
        raise ValueError("there is no position to report on")
    tokens = tokens_of(tokenizer)
    if tokens is not None:
        check_vocabulary(tokens, result.positions)
    if "windows" in result.about:
        words = words.of_windows()
    reference, result = _with_short_names(result, words)
    frame = result.positions
    summaries = [result.summary(name, **options) for name in result.candidates]
    candidates = [Candidate(name, series(place)) for place, name in enumerate(result.candidates)]
    number = int(np.clip(WORST // len(candidates), *WORST_OF_EACH))
    texts, speller = Texts(frame, result.about), Speller(tokens, words)
    shown = [
        (one, worst.positions(_worst(result[one.name], number), texts, speller, words))
        for one in candidates
    ]
    every = [position for _, found in shown for position in found]
    with_text = any(position.passage is not None for position in every)
    return Page(
        answer=answer(summaries, result.pairs(), reference, words),
        candidates=candidates,
        headline=headline(summaries, words),
        figures=figures(frame, summaries, words),
        groups=groups.tables(summaries, words),
        worst=shown,
        with_text=with_text,
        notes_of_worst=_notes(every, tokens is not None, with_text, words),
        meaning=list(_meaning(summaries, words)),
        dumps=method.dumps(result.about, words),
        settings=method.settings(result.about, summaries, words),
        version=kldiv.__version__,
    )


def figures(
    frame: pl.DataFrame, summaries: Sequence[EvaluationSummary], words: Words
) -> list[Figure]:
    """The charts that the table has columns and numbers for."""
    kl = frame[main_column(frame)].to_numpy()
    if not (np.isfinite(kl) & (kl > 0)).any():
        return []
    names = [summary.candidate for summary in summaries]

    def made(name: str, chart: Any) -> Figure:
        return figure(name, chart, words[f"caption.{name}"], names)

    found = [made("histogram", charts.kl_histogram(frame, words))]
    if any(summary.bounded for summary in summaries):
        # What is made of lower bounds alone says nothing of KL.
        return found
    found.append(made("tail", charts.tail_shares(frame, words)))
    found.append(made("depth", charts.kl_by_position(frame, words)))
    if has(frame, "confidence_p"):
        found.append(made("confidence", charts.kl_by_confidence(frame, words)))
    if has(frame, "stratum"):
        found.append(made("stratum", charts.kl_by_stratum(frame, words)))
    for place, (name, losses) in enumerate((one.candidate, one.perplexity) for one in summaries):
        if losses is not None and losses.delta_p.rows:
            rows = frame.filter(pl.col("candidate") == name)
            chart = charts.token_probability(rows, words)
            one = figure("token", chart, words["caption.token"], [name], first_colour=place)
            if len(names) > 1:
                one = one.called(f"token-{place}", words("chart.of", name=one.title, said=name))
            found.append(one)
    return found


def _with_short_names(result: Evaluation, words: Words) -> tuple[str, Evaluation]:
    """The reference's name and the table, in which paths are their ends; `about` has them whole."""
    reference = str((result.about.get("reference") or {}).get("file") or words["reference"])
    called = short_names([reference, *result.candidates])
    frame = result.positions.with_columns(
        pl.col("candidate").replace({name: called[name] for name in result.candidates})
    )
    if "name" in frame.columns:
        names = frame["name"].unique(maintain_order=True).drop_nulls().to_list()
        frame = frame.with_columns(pl.col("name").replace(short_names(names)))
    if "stratum" in frame.columns:
        # Charts write these themselves.
        labels = frame["stratum"].unique(maintain_order=True).drop_nulls().to_list()
        seen = {label: visible(label) for label in labels}
        frame = frame.with_columns(pl.col("stratum").replace(seen))
    return called[reference], replace(result, positions=frame)


def _worst(result: Evaluation, number: int) -> pl.DataFrame:
    """The rows of the largest KL that is above 0."""
    found = result.worst(number)
    return found.filter(pl.col(main_column(found)) > 0)


def _notes(
    every: Sequence[worst.Position], has_tokens: bool, with_text: bool, words: Words
) -> list[str]:
    if not every or all(one.true is None for one in every):
        return []
    if with_text:
        return []
    if has_tokens:
        return [words["warning.text"]]
    shown_as_text = any(one.true is not None and one.true.is_text for one in every)
    return [] if shown_as_text else [words["warning.ids"]]


def _meaning(summaries: Sequence[EvaluationSummary], words: Words) -> list[tuple[str, str]]:
    """Of the numbers that are on the page."""
    there = {
        "kl": True,
        "bound": any(one.bounded for one in summaries),
        "error": any(one.kl.clusters > 1 for one in summaries),
        "infinite": any(one.counts.rows_infinite for one in summaries),
        "tail": True,
        "top1": any(one.top1 is not None for one in summaries),
        "perplexity": any(one.perplexity is not None for one in summaries),
        "js": any("jensen_shannon" in one.means for one in summaries),
        "floor": any(one.floor is not None for one in summaries),
        "not": True,
    }
    return [
        (words[f"meaning.{name}"], words[f"meaning.{name}.text"])
        for name, shown in there.items()
        if shown
    ]
