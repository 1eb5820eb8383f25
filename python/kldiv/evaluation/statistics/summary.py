"""Every statistic of one candidate: `summarise`, and the `EvaluationSummary` it gives."""

from __future__ import annotations

import difflib
import html
from dataclasses import dataclass
from typing import Any

import polars as pl

from kldiv.evaluation.statistics.acceptance import Acceptance, acceptance
from kldiv.evaluation.statistics.bootstrap import SAMPLES, Interval, bootstrap_mean
from kldiv.evaluation.statistics.bounds import Bounds, bounds
from kldiv.evaluation.statistics.by_confidence import by_confidence
from kldiv.evaluation.statistics.by_depth import by_depth
from kldiv.evaluation.statistics.by_stratum import by_stratum
from kldiv.evaluation.statistics.counts import Counts, by_sequence, counts
from kldiv.evaluation.statistics.estimate import Estimate
from kldiv.evaluation.statistics.estimators import Estimators, Sampled, estimators
from kldiv.evaluation.statistics.flat import named_numbers
from kldiv.evaluation.statistics.floor import Floor, floor
from kldiv.evaluation.statistics.groups import Group
from kldiv.evaluation.statistics.lost_mass import LostMass, lost_mass
from kldiv.evaluation.statistics.means import macro_mean, micro_mean
from kldiv.evaluation.statistics.percentiles import EXACT, Percentiles, percentiles
from kldiv.evaluation.statistics.perplexity import Perplexity, perplexity
from kldiv.evaluation.statistics.plain_values import plain
from kldiv.evaluation.statistics.rows import NUMBER, clusters_of, has, main_column, rows_of
from kldiv.evaluation.statistics.sections import Section, sections_of
from kldiv.evaluation.statistics.tail_share import TailShare, tail_share
from kldiv.evaluation.statistics.top1 import Top1, top1
from kldiv.evaluation.wording import counted

DIRECTION = "KL(reference || candidate)"

MEANS = (
    *("reverse_kl", "jensen_shannon", "total_variation", "entropy_p", "entropy_q"),
    *("confidence_p", "confidence_q"),
)
"""Columns of which a summary has the mean, beside that of KL."""

_PERCENTILES = {50.0: "median", 90.0: "p90", 95.0: "p95", 99.0: "p99", 99.9: "p99_9"}
_FIELD_NAMES = {"jensen_shannon": "js"}


@dataclass(frozen=True, eq=False, repr=False)
class EvaluationSummary:
    """The statistics of one candidate; what its table has no columns for is None.

    Where the rows are top-k, `kl` and what is made of it are of the lower bound of KL. Indexed by a
    name of the JSON, as ``summary["kl.p99"]``, it gives that number.
    """

    candidate: str
    kld_vocab_size: int | None
    counts: Counts
    bounded: bool
    """Whether the number called KL is its lower bound."""
    kl: Estimate
    """Mean over positions, with the error over clusters."""
    kl_independent: Estimate
    """The same with the error of independent rows, which is too small."""
    kl_macro: Estimate
    """Mean over sequences."""
    kl_bootstrap: Estimate | None
    kl_percentiles: Percentiles
    tail_shares: tuple[TailShare, ...]
    means: dict[str, Estimate]
    """Of the columns of `MEANS` that are there."""
    top1: Top1 | None
    perplexity: Perplexity | None
    floor: Floor | None
    acceptance: Acceptance | None
    estimators: Estimators | None
    bounds: Bounds | None
    lost_mass: LostMass | None
    by_confidence: tuple[Group, ...]
    by_depth: tuple[Group, ...]
    by_stratum: tuple[Group, ...]
    by_sequence: pl.DataFrame

    @property
    def uncertainty(self) -> Estimate:
        """Mean KL with the error and interval that are stated of it, in every output.

        They are those of the formula. Drawing few clusters again gives too little spread, and an
        interval without the wider ends of Student's t; the bootstrap stands beside it.
        """
        return self.kl

    @property
    def top1_agreement(self) -> Estimate | None:
        """Share of positions whose most probable class is the same."""
        return None if self.top1 is None else self.top1.agreement

    def __getitem__(self, name: str) -> Any:
        """The number of a dotted name of `as_dict`, as ``kldiv check`` takes it; NaN is None.

        Raises
        ------
        KeyError
            For a name of none, with those that are like it.
        """
        numbers = named_numbers(self.as_dict())
        if name not in numbers:
            near = difflib.get_close_matches(name, numbers, 3, 0.5)
            raise KeyError(f"no number is called {name!r}; there are {', '.join(near or numbers)}")
        return numbers[name]

    def __repr__(self) -> str:
        positions = counted(self.counts.rows, "position")
        of = counted(self.counts.sequences, "sequence")
        bound = "at least " if self.bounded else ""
        name = f"{self.candidate}: mean KL {bound}{self.kl}"
        return f"<EvaluationSummary of {name}, {positions} of {of}>"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self))}</p><pre>{html.escape(str(self))}</pre>"

    def sections(self) -> list[Section]:
        """Titled lists of lines, each a label and a value as text."""
        return sections_of(self)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers under the names of the field, for JSON.

        NaN, of statistics over no row, is None; infinity is the string "Infinity".
        """
        found = self.kl_percentiles
        kl: dict[str, Any] = {
            "mean": self.kl.mean,
            **{name: found[percent] for percent, name in _PERCENTILES.items()},
            "max": found.maximum,
            "min": found.minimum,
            "standard_error": self.kl.standard_error,
            "standard_error_independent": self.kl_independent.standard_error,
            "macro": self.kl_macro,
            "percentiles": found.percentiles,
            "percentiles_method": found.method,
            "percentiles_rank_error": found.rank_error,
            "tail_shares": self.tail_shares,
        }
        result: dict[str, Any] = {
            "candidate": self.candidate,
            "direction": DIRECTION,
            "kld_vocab_size": self.kld_vocab_size,
            "num_positions": self.counts.rows,
            "num_nan": self.counts.rows_nan,
            "num_infinite": self.counts.rows_infinite,
            "num_sequences": self.counts.sequences,
            "counts": self.counts,
            "kl_is_lower_bound": self.bounded,
            "kl": kl,
            "uncertainty": _stated(self.uncertainty),
        }
        if self.kl_bootstrap is not None:
            result["bootstrap"] = _stated(self.kl_bootstrap)
        result |= {_FIELD_NAMES.get(name, name): mean for name, mean in self.means.items()}
        if self.top1 is not None:
            result |= {"top1_agreement": self.top1.agreement.mean, "top1": self.top1}
        if self.perplexity is not None:
            losses = self.perplexity
            result["perplexity"] = plain(losses) | {
                "perplexity_p": plain(losses.perplexity_p),
                "perplexity_q": plain(losses.perplexity_q),
                "ratio": plain(losses.ratio),
            }
        if self.floor is not None:
            result["floor"] = plain(self.floor) | {"verdict": self.floor.verdict}
        if self.acceptance is not None:
            result["acceptance"] = self.acceptance
        if self.estimators is not None:
            result["estimators"] = plain(self.estimators) | {
                "k1_p_value": plain(self.estimators.k1_p_value)
            }
        if self.bounds is not None:
            result["bounds"] = plain(self.bounds) | {
                "acceptance_lower": plain(self.bounds.acceptance_lower),
                "acceptance_upper": plain(self.bounds.acceptance_upper),
            }
        if self.lost_mass is not None:
            result["lost_mass"] = self.lost_mass
        result["confidence_buckets"] = self.by_confidence
        result["context_depth_buckets"] = self.by_depth
        if self.by_stratum:
            result["strata"] = self.by_stratum
        result["per_context"] = self.by_sequence.to_dicts()
        plainly: dict[str, Any] = plain(result)
        return plainly

    def __str__(self) -> str:
        from kldiv.evaluation.tables.plain import plain_table

        return plain_table([self])


def summarise(
    positions: pl.DataFrame,
    *,
    candidate: str | None = None,
    classes: int | None = None,
    exact: int = EXACT,
    bootstrap: int = SAMPLES,
    seed: int = 0,
    interval: Interval = "bca",
    stratified: bool = False,
    sampled_from: Sampled | None = None,
) -> EvaluationSummary:
    """Every statistic that the columns of the table allow.

    Parameters
    ----------
    positions : DataFrame
        The table of positions; rows may be in any order.
    candidate : str, optional
        Whose rows, where the table has those of several.
    classes : int, optional
        How many classes were scored, for ``kld_vocab_size``.
    exact : int
        Up to how many positions percentiles are exact, see `percentiles`.
    bootstrap : int
        Samples of the bootstrap over clusters; 0 for none, and the error by formula alone.
    seed, interval, stratified
        Of the bootstrap, see `bootstrap_mean`.
    sampled_from : {"p", "q"}, optional
        The model that the tokens were sampled from, where they were: the estimators k1 and k3 are
        then beside the exact value.

    Returns
    -------
    EvaluationSummary

    Raises
    ------
    ValueError
        For options out of range; for a table with several candidates and none named, one with a
        position twice, or with neither ``kl`` nor ``kl_lower``.

    Examples
    --------
    >>> import polars as pl
    >>> table = pl.DataFrame(
    ...     {"sequence": [0, 0, 1, 1], "position": [0, 1, 0, 1], "kl": [0.1, 0.2, 0.3, 0.4]}
    ... )
    >>> summary = summarise(table)
    >>> print(summary.kl)
    0.25 ± 0.1
    >>> summary.as_dict()["kl"]["median"]
    0.25
    """
    if bootstrap < 0 or bootstrap == 1:
        raise ValueError(f"bootstrap is 0, or at least 2 samples, got {bootstrap}")
    if exact < 0:
        raise ValueError(f"exact is a number of positions, got {exact}")
    rows = rows_of(positions, candidate)
    if not has(rows, main := main_column(rows)):
        raise ValueError("positions has neither column kl nor kl_lower; expected one of them")
    name = candidate or _name_of(rows)
    # Clusters are made numbers once.
    rows = rows.with_columns(pl.Series(NUMBER, clusters_of(rows), pl.Int64))

    def where(*needed: str) -> bool:
        return all(has(rows, one) for one in needed)

    return EvaluationSummary(
        candidate=name,
        kld_vocab_size=classes,
        counts=counts(rows),
        bounded=main == "kl_lower",
        kl=micro_mean(rows, main),
        kl_independent=micro_mean(rows, main, errors="independent"),
        kl_macro=macro_mean(rows, main),
        kl_bootstrap=bootstrap_mean(
            rows, main, samples=bootstrap, seed=seed, interval=interval, stratified=stratified
        )
        if bootstrap
        else None,
        kl_percentiles=percentiles(rows, main, exact=exact),
        tail_shares=tail_share(rows, main),
        means={one: micro_mean(rows, one) for one in MEANS if where(one)},
        top1=top1(rows) if where("same_top") else None,
        perplexity=perplexity(rows) if where("nll_p", "nll_q") else None,
        floor=floor(rows) if where("kl_floor") else None,
        acceptance=acceptance(rows) if where("acceptance") else None,
        estimators=estimators(rows, sampled_from=sampled_from) if sampled_from else None,
        bounds=bounds(rows) if where("kl_lower") else None,
        lost_mass=lost_mass(rows) if where("lost_p", "lost_q") else None,
        by_confidence=by_confidence(rows) if where("confidence_p") else (),
        by_depth=by_depth(rows),
        by_stratum=by_stratum(rows) if where("stratum") else (),
        by_sequence=by_sequence(rows),
    )


def _stated(found: Estimate) -> dict[str, Any]:
    return {
        "method": found.method,
        "standard_error": found.standard_error,
        "ci95_low": found.ci95_low,
        "ci95_high": found.ci95_high,
        "clusters": found.clusters,
        "few_clusters": found.few_clusters,
        "samples": found.samples,
    }


def _name_of(rows: pl.DataFrame) -> str:
    if "candidate" in rows.columns and len(rows):
        return str(rows["candidate"][0])
    return "candidate"
