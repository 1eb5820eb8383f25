"""Top-k log-probabilities as servers answer them, in JSON: one file a server.

A new server is a module with `reads` and `answers`, and its line in `READERS` of `dump`.
"""

from kldiv.evaluation.dumps.server_json.dump import ServerJson, open, probe  # noqa: A004
from kldiv.evaluation.dumps.server_json.texts import TEXT_IDS, describe, text_of

SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")

__all__ = ["SUFFIXES", "TEXT_IDS", "ServerJson", "describe", "open", "probe", "text_of"]
