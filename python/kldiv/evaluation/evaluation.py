"""`Evaluation`: the table of positions, and all that follows from it."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import polars as pl

import kldiv
from kldiv import _optional
from kldiv.comparison import Comparison
from kldiv.evaluation.arguments import (
    as_floor,
    with_sequence_labels,
)
from kldiv.evaluation.columns import COLUMNS
from kldiv.evaluation.dumps.names import check_exists
from kldiv.evaluation.dumps.parquet import OF_POSITIONS
from kldiv.evaluation.dumps.protocol import DumpError
from kldiv.evaluation.parquet_tables import read_table, reading
from kldiv.evaluation.positions import NO_TOKEN
from kldiv.evaluation.statistics.rows import column, has, rows_of
from kldiv.evaluation.whole_file import whole_file
from kldiv.evaluation.wording import counted

if TYPE_CHECKING:
    import altair as alt
    import pandas as pd
    import pyarrow as pa

    from kldiv.evaluation.statistics.paired import Pair
    from kldiv.evaluation.statistics.summary import EvaluationSummary

PARQUET_KEY = "kldiv"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One or more candidates against a reference: the table of positions and its statistics."""

    positions: pl.DataFrame
    """One row a scored position and candidate; the columns are those of
    `kldiv.evaluation.columns.COLUMNS` that are known."""
    about: dict[str, Any] = field(default_factory=dict)
    """What was compared, and how: dumps, options, arithmetic, version."""
    _summaries: dict[str, EvaluationSummary] = field(default_factory=dict, init=False, repr=False)
    """Those that were made: a table, a page and JSON are of the same one, of 0.1 s for 10⁵ rows."""

    @property
    def candidates(self) -> list[str]:
        """The names of the candidates, in order."""
        return self.positions["candidate"].unique(maintain_order=True).to_list()

    def __len__(self) -> int:
        """How many candidates; positions are ``len(result.positions)``."""
        return len(self.candidates)

    def __iter__(self) -> Iterator[Evaluation]:
        """The parts of the candidates, as indexing gives them."""
        return (self[name] for name in self.candidates)

    def __contains__(self, candidate: object) -> bool:
        """Whether there is a candidate of that name."""
        return candidate in self.candidates

    def __getitem__(self, candidate: str | int) -> Evaluation:
        """The part of one candidate, by name or number, without what only others have."""
        names = self.candidates
        name = names[candidate] if isinstance(candidate, int) else candidate
        if name not in names:
            raise KeyError(f"no candidate {name!r}; there are {', '.join(names)}")
        own = self.positions.filter(pl.col("candidate") == name)
        others = [
            one
            for one in own.columns
            if own[one].null_count() == len(own) and self.positions[one].count()
        ]
        return replace(self, positions=own.drop(others))

    def __repr__(self) -> str:
        sequences = self.positions["sequence"].n_unique() if len(self.positions) else 0
        names = self.candidates
        positions = counted(len(self.positions) // max(1, len(names)), "position")
        of = counted(sequences, "sequence")
        return f"<Evaluation of {', '.join(names)}: {positions} of {of}>"

    def summary(self, candidate: str | int | None = None, **options: Any) -> EvaluationSummary:
        """All statistics of one candidate, of the only one without `candidate`.

        Keywords are those of `kldiv.evaluation.statistics.summary.summarise`.
        """
        from kldiv.evaluation.statistics.summary import summarise

        names = self.candidates
        if candidate is None:
            if len(names) != 1:
                raise ValueError(f"which candidate? There are {', '.join(names)}")
            candidate = 0
        options.setdefault("classes", self.about.get("kld_vocab_size"))
        name = names[candidate] if isinstance(candidate, int) else candidate
        key = repr((name, sorted(options.items())))
        if key not in self._summaries:
            self._summaries[key] = summarise(self[name].positions, candidate=name, **options)
        return self._summaries[key]

    def pairs(self) -> list[Pair]:
        """Every candidate against every other on the same positions."""
        from kldiv.evaluation.statistics.paired import paired

        names = self.candidates
        return [
            paired(self[first].positions, self[second].positions)
            for place, first in enumerate(names)
            for second in names[place + 1 :]
        ]

    def worst(self, n: int = 10) -> pl.DataFrame:
        """The `n` positions of the largest KL, NaN rows left out, ties in the order of rows.

        Of all candidates together. Whose and where it is, and KL, are the first columns, with what
        both hold most probable; the others of the table follow.
        """
        if n < 0:
            raise ValueError(f"n must be at least 0, got {n}")
        column = "kl" if "kl" in self.positions.columns else "kl_lower"
        known = self.positions.filter(pl.col(column).is_not_nan())
        order = np.argsort(-known[column].to_numpy(), kind="stable")[:n]
        first = (
            *(("candidate",) if len(self) > 1 else ()),
            *("name", "position", column, "token", "top1_p", "top1_q"),
            *("confidence_p", "confidence_q", "nll_p", "nll_q"),
        )
        columns = dict.fromkeys((*(one for one in first if one in known.columns), *known.columns))
        return known[order].select(*columns)

    def comparison(self, candidate: str | int = 0) -> Comparison:
        """The positions of one candidate as `kldiv.compare` gives them.

        Raises
        ------
        ValueError
            For bounds, of top-k rows, which are no comparison.
        """
        frame = self[candidate].positions
        if "kl" not in frame.columns:
            raise ValueError("of top-k rows there are bounds of divergences, and no comparison")
        names = [one.name for one in fields(Comparison) if one.name in frame.columns]
        columns: dict[str, Any] = {name: frame[name].to_numpy() for name in names}
        if "token" in frame.columns:
            columns["labels"] = frame["token"].fill_null(NO_TOKEN).to_numpy()
        return Comparison(where=np.ones(len(frame), np.bool_), **columns)

    def including(self, clusters: Any = None, strata: Any = None, floor: Any = None) -> Evaluation:
        """The same positions, with other clusters, strata or floor, as `evaluate` takes them."""
        frame = self.positions
        if (values := as_floor(floor)) is not None:
            names = self.candidates
            if len(values) * len(names) != len(frame):
                raise ValueError(
                    f"floor has {len(values):,} numbers for {len(frame) // len(names):,} positions"
                )
            frame = frame.with_columns(kl_floor=pl.Series(np.tile(values, len(names))))
        for name, given in (("cluster", clusters), ("stratum", strata)):
            if given is not None:
                frame = with_sequence_labels(frame, name, given)
        return replace(self, positions=in_order(frame))

    def plot_kl(self) -> alt.Chart:
        """Histogram of KL on a logarithmic axis, a colour a candidate; needs Altair."""
        chart: alt.Chart = _charts().kl_histogram(self.positions)
        return chart

    def plot_kl_by_position(self) -> alt.Chart:
        """Mean KL along the text; needs Altair."""
        chart: alt.Chart = _charts().kl_by_position(self.positions)
        return chart

    def plot_kl_by_confidence(self) -> alt.Chart:
        """Mean KL against the probability of p's most probable class; needs Altair."""
        chart: alt.Chart = _charts().kl_by_confidence(self.positions)
        return chart

    def plot_kl_by_stratum(self) -> alt.LayerChart:
        """Mean KL of each stratum with its 95 % interval; needs Altair, and `strata`."""
        chart: alt.LayerChart = _charts().kl_by_stratum(self.positions)
        return chart

    def plot_tail_shares(self) -> alt.Chart:
        """The share of the total KL in the worst positions; needs Altair."""
        chart: alt.Chart = _charts().tail_shares(self.positions)
        return chart

    def plot_token_probability(self, candidate: str | int = 0) -> alt.LayerChart:
        """The probability of the true token under both; needs Altair, and labels.

        It is of one candidate, which its title names where there are several.
        """
        one = self[candidate]
        frame = one.positions
        if "nll_q" not in frame.columns:
            raise ValueError("probabilities of true tokens need labels, and there are none")
        of = one.candidates[0] if len(self) > 1 else None
        chart: alt.LayerChart = _charts().token_probability(frame, of=of)
        return chart

    @overload
    def to_html(
        self, path: None = None, *, lang: str = ..., tokenizer: Any = ..., **options: Any
    ) -> str: ...

    @overload
    def to_html(
        self,
        path: str | os.PathLike[str],
        *,
        lang: str = ...,
        tokenizer: Any = ...,
        **options: Any,
    ) -> None: ...

    def to_html(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        lang: str = "en",
        tokenizer: Any = None,
        **options: Any,
    ) -> str | None:
        """One page on everything, to be sent to somebody; needs the extra ``kldiv[report]``.

        It is one file that loads nothing and runs nothing: charts are SVG, light and dark. All
        text of files and models in it is escaped.

        Parameters
        ----------
        path : path, optional
            The file to write, beside its place and moved there when whole. Without it the text is
            returned.
        lang : {"en", "zh"}
            The language of the page's own words.
        tokenizer : path or tokenizer, optional
            What gives the worst positions their text: a ``tokenizer.json``, a GGUF file, a
            directory with one of them or that transformers loads, or a tokenizer of the libraries
            tokenizers or transformers.
        **options
            Of the statistics, as `summary` takes them.

        Raises
        ------
        ValueError
            For another language, for no positions, and for a tokenizer that lacks their tokens.
        DumpError
            For a file that is no tokenizer.
        ModuleNotFoundError
            Without the libraries, with the line that installs them.
        """
        page = _optional.module("kldiv.evaluation.report.page")
        text: str = page.html_page(self, lang=lang, tokenizer=tokenizer, **options)
        if path is None:
            return text
        with whole_file(Path(path)) as partial:
            partial.write_text(text, encoding="utf-8")
        return None

    def to_frame(self) -> pl.DataFrame:
        """The positions with what follows of them: same_top, delta_p and nll_difference."""
        frame = self.positions
        for name in ("same_top", "delta_p", "nll_difference"):
            if has(frame, name):
                frame = frame.with_columns(pl.Series(name, column(frame, name), nan_to_null=True))
        if "same_top" in frame.columns:
            frame = frame.with_columns(pl.col("same_top").cast(pl.Boolean))
        return frame

    def to_pandas(self) -> pd.DataFrame:
        """`to_frame` for pandas, which needs pandas and pyarrow."""
        return self.to_frame().to_pandas()

    def to_arrow(self) -> pa.Table:
        """`to_frame` for Arrow, which needs pyarrow."""
        return self.to_frame().to_arrow()

    def write_positions(self, path: str | os.PathLike[str]) -> None:
        """Keep the table as a Parquet file, which `read_positions` reads back.

        It is written beside its place and moved there when whole.
        """
        # Opened here: errors of Polars do not say which file.
        with whole_file(Path(path)) as partial, partial.open("wb") as file:
            self.positions.write_parquet(
                file, metadata={PARQUET_KEY: json.dumps(self.about, ensure_ascii=False)}
            )

    def table(self, form: str = "plain", **options: Any) -> str:
        """The statistics of all candidates side by side, in a format of `TABLES`.

        Keywords are those of `summary`.
        """
        from kldiv.evaluation.tables import TABLES

        if form not in TABLES:
            raise ValueError(f"form must be one of {', '.join(TABLES)}, got {form!r}")
        summaries = [self.summary(name, **options) for name in self.candidates]
        return TABLES[form](summaries, self.pairs())

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        lines = html.escape(self.table())
        return f"<p>{html.escape(repr(self))}</p><pre>{lines}</pre>"

    def as_dict(self, **options: Any) -> dict[str, Any]:
        """Everything but the positions, as ``kldiv compare --json`` writes it.

        What was compared stands at the top, the candidates under ``candidates`` and ``pairs``; the
        numbers of an only candidate at the top, too.
        """
        about = self.about
        found: dict[str, Any] = {"kldiv": kldiv.__version__, **about}
        if "seconds" in about:
            found["throughput"] = {
                "seconds": about["seconds"],
                "rows_per_second": about["positions_per_second"],
                "gigabytes_per_second": about["gigabytes_per_second"],
                "threads": about["arithmetic"]["threads"],
                "isa": about["arithmetic"]["isa"],
            }
        candidates = [self.summary(name, **options).as_dict() for name in self.candidates]
        if len(candidates) == 1:
            described = about.get("candidates") or [None]
            found |= candidates[0] | {"candidate": described[0]}
            if "kl" in self.positions.columns:
                found["summary"] = self.comparison().summary().as_dict()
        return found | {
            "candidates": candidates,
            "pairs": [pair.as_dict() for pair in self.pairs()],
        }

    def to_json(self, **options: Any) -> str:
        """The text of `as_dict`."""
        return json.dumps(self.as_dict(**options), indent=2, allow_nan=False, ensure_ascii=False)


def read_positions(path: str | os.PathLike[str]) -> Evaluation:
    """An evaluation of the table of positions that `Evaluation.write_positions` kept.

    Raises
    ------
    DumpError
        For a file that is no such table.
    """
    name = os.fspath(path)
    check_exists(Path(name), (".parquet",))
    frame = read_table(name, name)
    with reading(name):
        about = pl.read_parquet_metadata(name).get(PARQUET_KEY)
    if missing := OF_POSITIONS - set(frame.columns):
        raise DumpError(
            f"{name} is no table of positions: it has no column {', '.join(sorted(missing))}"
        )
    if not {"kl", "kl_lower"} & set(frame.columns):
        raise DumpError(f"{name} has neither column kl nor kl_lower")
    for one in frame.columns:
        if one in COLUMNS and frame.schema[one] != COLUMNS[one].dtype:
            raise DumpError(
                f"column {one} of {name} has dtype {frame.schema[one]}, "
                f"expected {COLUMNS[one].dtype}"
            )
    try:
        for candidate in frame["candidate"].unique(maintain_order=True):
            rows_of(frame, candidate)
    except ValueError as error:
        raise DumpError(f"{name}: {error}") from None
    try:
        kept = json.loads(about) if about else {}
    except (ValueError, RecursionError):
        kept = None
    if not isinstance(kept, dict):
        raise DumpError(f"{name} says of its table what is no JSON of kldiv")
    return Evaluation(frame, kept)


def in_order(frame: pl.DataFrame) -> pl.DataFrame:
    """The columns in the order of `COLUMNS`."""
    return frame.select(name for name in COLUMNS if name in frame.columns)


def _charts() -> Any:
    return _optional.module("kldiv.evaluation.charts")
