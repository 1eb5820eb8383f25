"""`evaluate`: dumps to a table of positions, and the `Evaluation` that holds it."""

from __future__ import annotations

import html
import json
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import polars as pl

import kldiv
from kldiv import _optional
from kldiv.comparison import Comparison
from kldiv.evaluation.arguments import (
    as_dump,
    as_labels,
    as_numbers,
    in_sequences,
    named_dumps,
    with_sequence_labels,
)
from kldiv.evaluation.class_rules import ClassRule, VocabularyRule
from kldiv.evaluation.columns import COLUMNS
from kldiv.evaluation.digests import digest_of
from kldiv.evaluation.dumps.dense import DenseDump, check_same_numbers
from kldiv.evaluation.dumps.names import check_exists
from kldiv.evaluation.dumps.part import total_rows
from kldiv.evaluation.dumps.protocol import Dump, DumpError, Kind
from kldiv.evaluation.engines import run as engines
from kldiv.evaluation.engines.job import Job, Run
from kldiv.evaluation.head import pre_norm_warning
from kldiv.evaluation.positions import NO_TOKEN, Interrupted, Marks, Scorer, Scoring
from kldiv.evaluation.scorers import Heads, scorer_of
from kldiv.evaluation.whole_file import whole_file

if TYPE_CHECKING:
    import altair as alt
    import pandas as pd
    import pyarrow as pa

    from kldiv.evaluation.statistics.paired import Pair
    from kldiv.evaluation.statistics.summary import EvaluationSummary

PARQUET_KEY = "kldiv"


class EvaluationInterrupted(KeyboardInterrupt):
    """Ctrl-C while `evaluate` scores positions. `result` is the `Evaluation` of what is done."""

    def __init__(self, result: Evaluation) -> None:
        super().__init__()
        self.result = result


class ImprobableTextWarning(UserWarning):
    """Hidden states whose logits give the true tokens no more than guessing does."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One or more candidates against a reference: the table of positions and its statistics."""

    positions: pl.DataFrame
    """One row a scored position and candidate; the columns are those of
    `kldiv.evaluation.columns.COLUMNS` that are known."""
    about: dict[str, Any] = field(default_factory=dict)
    """What was compared, and how: dumps, options, arithmetic, version."""

    @property
    def candidates(self) -> list[str]:
        """The names of the candidates, in order."""
        return self.positions["candidate"].unique(maintain_order=True).to_list()

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, candidate: str | int) -> Evaluation:
        """The part of one candidate, by name or number."""
        names = self.candidates
        name = names[candidate] if isinstance(candidate, int) else candidate
        if name not in names:
            raise KeyError(f"no candidate {name!r}; there are {', '.join(names)}")
        return replace(self, positions=self.positions.filter(pl.col("candidate") == name))

    def __repr__(self) -> str:
        sequences = self.positions["sequence"].n_unique() if len(self) else 0
        names = self.candidates
        each = len(self) // max(1, len(names))
        return f"<Evaluation of {', '.join(names)}: {each:,} positions of {sequences:,} sequences>"

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
        one = self[candidate]
        options.setdefault("classes", self.about.get("kld_vocab_size"))
        return summarise(one.positions, candidate=one.candidates[0], **options)

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
        """The `n` positions of the largest KL, NaN rows left out, ties in the order of rows."""
        if n < 0:
            raise ValueError(f"n must be at least 0, got {n}")
        column = "kl" if "kl" in self.positions.columns else "kl_lower"
        known = self.positions.filter(pl.col(column).is_not_nan())
        order = np.argsort(-known[column].to_numpy(), kind="stable")[:n]
        return known[order]

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
        if (values := as_numbers("floor", floor, np.float64)) is not None:
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
        """The probability of the true token under both; needs Altair, and labels."""
        frame = self[candidate].positions
        if "nll_q" not in frame.columns:
            raise ValueError("probabilities of true tokens need labels, and there are none")
        chart: alt.LayerChart = _charts().token_probability(frame)
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
        if "top1_p" in frame.columns:
            same = (pl.col("top1_p") == pl.col("top1_q")) & (pl.col("top1_p") >= 0)
            frame = frame.with_columns(same_top=same)
        if "nll_p" in frame.columns:
            frame = frame.with_columns(
                delta_p=(-pl.col("nll_q")).exp() - (-pl.col("nll_p")).exp(),
                nll_difference=pl.col("nll_q") - pl.col("nll_p"),
            )
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
        """Everything but the positions, for JSON."""
        return {
            "about": self.about,
            "candidates": [self.summary(name, **options).as_dict() for name in self.candidates],
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
    try:
        frame = pl.read_parquet(name)
        about = pl.read_parquet_metadata(name).get(PARQUET_KEY)
    except (pl.exceptions.PolarsError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        reason = str(error).splitlines()[0]
        raise DumpError(f"{name} is not a readable Parquet file: {reason}") from None
    needed = {"candidate", "sequence", "position"}
    if missing := needed - set(frame.columns):
        raise DumpError(
            f"{name} is no table of positions: it has no column {', '.join(sorted(missing))}"
        )
    for column in frame.columns:
        if column in COLUMNS and frame.schema[column] != COLUMNS[column].dtype:
            raise DumpError(
                f"column {column} of {name} has dtype {frame.schema[column]}, "
                f"expected {COLUMNS[column].dtype}"
            )
    return Evaluation(frame, json.loads(about) if about else {})


def evaluate(
    reference: Any,
    *candidates: Any,
    head: Any = None,
    candidate_heads: Any = None,
    labels: Any = None,
    where: Any = None,
    ignore_index: int | None = NO_TOKEN,
    space: str | tuple[str, str] | None = None,
    temperature: float = 1.0,
    classes: int | None = None,
    vocab: VocabularyRule = "error",
    sequences: Any = None,
    chunks: int | None = None,
    clusters: Any = None,
    strata: Any = None,
    floor: Any = None,
    work: str | os.PathLike[str] | None = None,
    client: Any = None,
    block_positions: int | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> Evaluation:
    r"""Score candidates against a reference, position by position.

    Parameters
    ----------
    reference, *candidates : path, array_like, iterable of array_like, or Dump
        Outputs of the models on the same text: logits, log-probabilities, hidden states with
        `head`, or top-k log-probabilities. A path is opened by
        `kldiv.evaluation.dumps.formats.open_dump`; of an iterable each array is a sequence.
    head, candidate_heads : path, array_like or a list of them, optional
        Output layers ``[classes, size]`` of hidden states; `candidate_heads` where those of the
        candidates differ.
    labels : array_like of integers, optional
        The true next token of every position, of all sequences in order. Without it those that
        the dumps know.
    where : array_like of bool, optional
        The positions to score.
    ignore_index : int or None
        The label of positions that have none.
    space : {"logits", "log_probs", "probs"} or a pair of them, optional
        What the numbers are; without it what the dumps say.
    temperature : float
        T with p = softmax(z / T), for those that are logits.
    classes : int, optional
        How many classes are real; later ones are padding, and not scored.
    vocab : {"error", "truncate", "renormalize"}
        What becomes of classes that only one side has, see
        `kldiv.evaluation.class_rules.ClassRule`.
    sequences : path or list of integers, optional
        Lengths of the sequences, where files or keys are not they.
    chunks : int, optional
        Only so many sequences, the first ones.
    clusters, strata : list or mapping of names of sequences, optional
        What each sequence belongs to: errors treat sequences of one cluster as one; statistics
        are given by stratum, too.
    floor : array_like, optional
        KL of two runs of the reference, one number for every position.
    work : path, optional
        A directory that keeps blocks of sequences that are scored. The same call goes on from
        there if it is interrupted or killed, and gives the same bits; a directory of other
        inputs or options is refused.
    client : distributed.Client or str, optional
        A cluster of Dask, whose workers read the files by themselves: a client, a cluster, the
        address of its scheduler, or ``"local:N"`` for N processes of this machine. What lies in
        memory is sent.
    block_positions : int, optional
        About how many positions a block has, for `work` and `client`; it is of whole sequences.
        The numbers are the same for any.
    progress : callable
        Called with the number of positions just done; and its attribute ``found``, if it has one,
        with the number of those that were in `work`.

    Returns
    -------
    Evaluation
        The table of positions, and all that follows from it.

    Raises
    ------
    DumpError, ValueError, OSError
        For dumps that cannot be read or do not fit together, and options out of range.
    EngineError
        For a work directory or a cluster that cannot be used, and a block that failed on it.
    EvaluationInterrupted
        For Ctrl-C; it has the evaluation of what is done.

    Examples
    --------
    >>> import numpy as np
    >>> from kldiv.evaluation import evaluate
    >>> rng = np.random.default_rng(0)
    >>> reference = rng.normal(0, 2, (3, 50, 1000)).astype(np.float32)
    >>> candidate = reference + rng.normal(0, 0.1, reference.shape).astype(np.float32)
    >>> result = evaluate(reference, candidate)
    >>> result
    <Evaluation of candidate: 150 positions of 3 sequences>
    >>> result.positions["kl"].mean() < 0.01
    True
    """
    if not candidates:
        raise ValueError("expected at least one candidate")
    if chunks is not None and chunks < 1:
        raise ValueError(f"chunks must be at least 1, got {chunks}")
    kind: Kind = "logits" if head is None else "hidden_states"
    dumps = [as_dump(reference, "reference", kind), *named_dumps(candidates, kind)]
    dumps = in_sequences(dumps, sequences)
    spaces = (space, space) if space is None or isinstance(space, str) else (space[0], space[1])
    scoring = Scoring(spaces, temperature, ClassRule(vocab, classes), chunks)
    heads = Heads.given(head, candidate_heads, len(candidates))
    scorers = [
        scorer_of(dumps[0], dump, scoring, heads.of(place)) for place, dump in enumerate(dumps[1:])
    ]
    marks = Marks(
        labels=as_labels(labels, ignore_index),
        where=as_numbers("where", where, np.bool_),
        floor=as_numbers("floor", floor, np.float64),
    )
    check_same_numbers(dumps)
    job = Job(dumps, scorers, scoring, heads, marks, block_positions, progress)
    interrupted = False
    try:
        run = engines.run(job, work, client)
    except Interrupted as error:
        interrupted = True
        run = Run(error.tables, kldiv.isa(), kldiv.get_num_threads())
    tables = run.tables
    # Of a run that went on with the work of another the rate is that of what it did itself.
    scored = len(tables[0]) * job.scored / max(1, job.scored + job.kept)
    frame = pl.concat(
        table.insert_column(0, pl.Series("candidate", [dump.name] * len(table), pl.String))
        for dump, table in zip(dumps[1:], tables, strict=True)
    )
    _warn_of_states(dumps, tables, scorers)
    about = {
        "kldiv": kldiv.__version__,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "direction": "KL(reference || candidate)",
        "reference": describe_short(dumps[0]),
        "candidates": [
            describe_short(dump) | dict(scorer.about)
            for dump, scorer in zip(dumps[1:], scorers, strict=True)
        ],
        "kld_vocab_size": scorers[0].classes,
        "vocab": vocab,
        "space": list(spaces),
        "temperature": temperature,
        "arithmetic": {"isa": run.isa, "threads": run.threads, "sums": "float64"},
        "seconds": job.seconds,
        "positions_per_second": scored / job.seconds,
        "gigabytes_per_second": scored * sum(d.row_bytes for d in dumps) / job.seconds / 1e9,
    }
    if interrupted:
        about["interrupted"] = {"positions": len(tables[0]), "of": total_rows(dumps[0], chunks)}
    result = Evaluation(in_order(frame), about).including(clusters, strata)
    if interrupted:
        raise EvaluationInterrupted(result)
    return result


def in_order(frame: pl.DataFrame) -> pl.DataFrame:
    """The columns in the order of `COLUMNS`."""
    return frame.select(name for name in COLUMNS if name in frame.columns)


def _charts() -> Any:
    return _optional.module("kldiv.evaluation.charts")


def _warn_of_states(dumps: list[Dump], tables: list[pl.DataFrame], scorers: list[Scorer]) -> None:
    """Say that hidden states may be those before the final norm, where the text is improbable."""
    sides = [("nll_p", dumps[0], 0), *(("nll_q", dump, i) for i, dump in enumerate(dumps[1:]))]
    for column, dump, place in sides:
        classes = scorers[place].classes
        if dump.kind == "hidden_states" and classes and column in tables[place].columns:
            nll = tables[place][column].drop_nulls().to_numpy()
            if (said := pre_norm_warning(nll, classes, dump.name)) is not None:
                warnings.warn(said, ImprobableTextWarning, stacklevel=3)


def describe_short(dump: Dump) -> dict[str, Any]:
    """What a dump is, in a line of JSON."""
    shape = [total_rows(dump), dump.width]
    if isinstance(dump, DenseDump) and len(dump.parts) == 1:
        shape = list(dump.parts[0].array.shape)
    described = {
        "file": dump.name,
        "format": dump.format,
        "kind": dump.kind,
        "dtype": dump.dtype.name,
        "shape": shape,
    }
    digest = None if dump.format.startswith("memory") else digest_of(dump.name)
    return described if digest is None else described | {"digest": digest}
