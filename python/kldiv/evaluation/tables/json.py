"""Every number as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence

from kldiv.evaluation.statistics.paired import Pair
from kldiv.evaluation.statistics.summary import EvaluationSummary


def json_table(summaries: Sequence[EvaluationSummary], pairs: Sequence[Pair] = ()) -> str:
    """An object with ``candidates`` and ``pairs``; NaN is null, infinity the string Infinity."""
    content = {
        "candidates": [summary.as_dict() for summary in summaries],
        "pairs": [pair.as_dict() for pair in pairs],
    }
    return json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
