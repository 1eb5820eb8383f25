"""Tables of parts: by depth, confidence, stratum and text, and of the worst positions' share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kldiv.evaluation.report import numbers
from kldiv.evaluation.report.cells import EMPTY, Cell, Row, Table, of_estimate, of_number
from kldiv.evaluation.report.words import Words
from kldiv.evaluation.statistics.by_stratum import WITHOUT
from kldiv.evaluation.statistics.groups import Group
from kldiv.evaluation.statistics.summary import EvaluationSummary

MOST_TEXTS = 20

_KINDS = {
    "tail": ("kl.tail_shares", "tail.worst"),
    "depth": ("context_depth_buckets", "groups.label.depth"),
    "confidence": ("confidence_buckets", "groups.label.confidence"),
    "stratum": ("strata", "groups.label.stratum"),
}


def tables(summaries: Sequence[EvaluationSummary], words: Words) -> list[Table]:
    """All that there is something for; of lower bounds groups say nothing of those of KL."""
    if any(summary.bounded for summary in summaries):
        return []
    found = [
        _tail(summaries, words),
        _groups("depth", [one.by_depth for one in summaries], summaries, words),
        _groups("confidence", [one.by_confidence for one in summaries], summaries, words),
        _groups("stratum", [one.by_stratum for one in summaries], summaries, words),
        _texts(summaries, words),
    ]
    return [table for table in found if table.rows]


def _header(label: str, summaries: Sequence[EvaluationSummary], words: Words) -> list[str]:
    return [label, words["groups.positions"], *(one.candidate for one in summaries)]


def _tail(summaries: Sequence[EvaluationSummary], words: Words) -> Table:
    rows = []
    for place, one in enumerate(summaries[0].tail_shares):
        cells = []
        for summary in summaries:
            found = summary.tail_shares[place]
            name = f"kl.tail_shares.{found.percent}.share"
            note = f"{words['tail.from']} {numbers.number(found.smallest)}"
            cells.append(of_number(found.share, name, percents=True, note=note))
        if any(summary.tail_shares[place].rows for summary in summaries):
            rows.append(Row(f"{one.percent:g} %", [Cell(f"{one.rows:,}"), *cells]))
    header = _header(words["tail.worst"], summaries, words)
    return Table("tail", words["tail"], header, rows, candidates_from=1)


def _groups(
    kind: str,
    columns: Sequence[Sequence[Group]],
    summaries: Sequence[EvaluationSummary],
    words: Words,
) -> Table:
    path, label = _KINDS[kind]
    found = [{group.label: group for group in groups} for groups in columns]
    labels = dict.fromkeys(name for groups in found for name in groups)
    rows = []
    for name in labels:
        groups = [one.get(name) for one in found]
        count = max(group.rows for group in groups if group is not None)
        if count:
            cells = [_cell(group, f"{path}.{name}", words) for group in groups]
            called = words["groups.none"] if name == WITHOUT else name.replace("-", "–", 1)
            rows.append(Row(name if kind == "stratum" else called, [Cell(f"{count:,}"), *cells]))
    header = _header(words[label], summaries, words)
    title = words("chart.of", name=words[f"groups.{kind}"], said=words["groups.kl"])
    return Table(kind, title, header, rows, candidates_from=1)


def _cell(group: Group | None, path: str, words: Words) -> Cell:
    if group is None or not group.rows:
        return EMPTY
    notes = [f"{numbers.percent(group.share_of_kl)} {words['groups.share']}"]
    if group.top1_agreement is not None and group.top1_agreement.rows:
        share = numbers.percent(group.top1_agreement.mean)
        notes.append(f"{words['groups.top1']} {share}")
    return of_estimate(group.kl, f"{path}.kl.mean", words, note=" · ".join(notes))


def _texts(summaries: Sequence[EvaluationSummary], words: Words) -> Table:
    """The texts whose mean KL is the largest, of any candidate."""
    frames = [summary.by_sequence for summary in summaries]
    count = len(frames[0])
    means = [frame["kl"].fill_null(float("inf")).to_list() for frame in frames]
    worst = sorted(range(count), key=lambda one: (-max(kl[one] for kl in means), one))
    rows = []
    for place in worst[:MOST_TEXTS] if count > 1 else []:
        records = [frame.row(place, named=True) for frame in frames]
        name = str(records[0].get("name", records[0]["sequence"]))
        note = records[0].get("stratum")
        cells = [Cell(f"{records[0]['rows']:,}"), *_of_texts(records, place, words)]
        rows.append(Row(name, cells, note))
    title = words("chart.of", name=words["texts"], said=words["groups.kl"])
    if count > MOST_TEXTS:
        title = words("texts.some", shown=len(rows), count=f"{count:,}")
    header = _header(words["texts.name"], summaries, words)
    return Table("texts", title, header, rows, candidates_from=1)


def _of_texts(records: Sequence[dict[str, object]], place: int, words: Words) -> Iterator[Cell]:
    for record in records:
        mean, infinite = record["kl"], record["rows_infinite"]
        text = numbers.number(mean) if isinstance(mean, float) else words["value.none"]
        notes = [words("value.infinite_in", count=f"{infinite:,}")] if infinite else []
        if isinstance(same := record.get("top1_agreement"), float):
            notes.append(f"{words['groups.top1']} {numbers.percent(same)}")
        value = mean if isinstance(mean, float) else None
        yield Cell(text, f"per_context.{place}.kl", value, " · ".join(notes))
