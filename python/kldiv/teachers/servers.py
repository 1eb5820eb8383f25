"""Responses of vLLM, SGLang, OpenAI and Tinker, in JSON and JSON lines."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from kldiv import _optional
from kldiv._top_k.container import TopK


def from_server_json(path: str | os.PathLike[str], *, classes: int) -> Iterator[TopK]:
    """The texts of a file of responses, one after the other.

    ``.json`` holds one response or a list of them, ``.jsonl`` one a line, and ``.gz`` of both; what
    each server is asked for, and how its responses are known, is in ``docs/evaluation.md``. A
    million positions of 64 tokens go through a few at a time. ``kldiv convert`` writes all of
    them to a file, with the text's own tokens as labels.

    Parameters
    ----------
    path : str or path-like
        The file.
    classes : int
        The number of classes of whole rows, which no server says.

    Yields
    ------
    TopK
        Log-probabilities of one text, a ragged row a position. The text's own token is among them
        also where it is not among the k most probable.

    Raises
    ------
    ValueError
        As `TopK`, for what is no response, tokens that are named by their text, and in vLLM's a
        log-probability above that of a lower rank; the message names file, line, row and id.
    ModuleNotFoundError
        Without the extra ``eval``.

    Examples
    --------
    >>> import json, pathlib, tempfile
    >>> import kldiv.teachers
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "answers.jsonl"
    >>> answer = {"prompt_logprobs": [None, {"7": {"logprob": -0.5, "rank": 1}}]}
    >>> _ = file.write_text(json.dumps(answer))
    >>> next(kldiv.teachers.from_server_json(file, classes=8)).ids
    array([7])
    """
    formats = _optional.module("kldiv.evaluation.dumps.formats")
    writer = _optional.module("kldiv.evaluation.dumps.top_k_writer")
    source = writer.Source(formats.open_dump(os.fspath(path)))
    if source.dump.kind != "top_k" or hasattr(source.dump, "classes"):
        raise ValueError(f"{path} is {source.dump.format}; expected responses of a server in JSON")
    for sequence in source.each():
        pieces = list(writer.pieces_of(source, sequence, classes, np.dtype(np.float64)))
        offsets = np.concatenate([[0], *(piece.counts for piece in pieces)]).cumsum()
        yield TopK._of(
            np.concatenate([np.zeros(0, np.int64), *(piece.ids for piece in pieces)]),
            np.concatenate([np.zeros(0), *(piece.values for piece in pieces)]),
            "log_probs",
            classes=classes,
            offsets=offsets.astype(np.int64),
            checked=True,
        )
