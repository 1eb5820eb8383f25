"""Which engine scores a run, by what is asked for."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

from kldiv.evaluation.dumps.part import is_stream
from kldiv.evaluation.engines.errors import EngineError
from kldiv.evaluation.engines.identity import identity
from kldiv.evaluation.engines.job import Engine, Job, Run
from kldiv.evaluation.engines.this_process import ThisProcess
from kldiv.evaluation.engines.work import WorkDirectory


def run(job: Job, work: str | os.PathLike[str] | None, client: Any) -> Run:
    """Score a run here, or on the cluster of a client; keep its blocks where there is a directory.

    Raises
    ------
    ValueError
        For a number of positions that is none, or that nothing has blocks for.
    DumpError, EngineError, OSError, Interrupted
        As `kldiv.evaluation.engines.job.Engine.run`.
    """
    if job.block_positions is not None:
        if work is None and client is None:
            raise ValueError("block_positions is about blocks, which work and client have")
        if job.block_positions < 1:
            raise ValueError(f"block_positions must be at least 1, got {job.block_positions}")
    if work is None and client is None:
        return _timed(ThisProcess(), job)
    for dump in job.dumps:
        if is_stream(dump):
            does = "taken up again" if client is None else "sent to workers"
            raise EngineError(
                f"{dump.name} is a stream, which is read once and cannot be {does}; "
                "expected files or arrays"
            )
    with contextlib.ExitStack() as stack:
        engine: Engine
        if client is None:
            engine = ThisProcess(_opened(stack, job, work))
        else:
            from kldiv.evaluation.engines.dask import OnDask, client_of

            on_dask = OnDask(stack.enter_context(client_of(client)))
            on_dask.check()
            on_dask.work = _opened(stack, job, work, on_dask.isa)
            engine = on_dask
        return _timed(engine, job)


def _timed(engine: Engine, job: Job) -> Run:
    begin = time.perf_counter()
    try:
        return engine.run(job)
    finally:
        job.seconds = time.perf_counter() - begin


def _opened(
    stack: contextlib.ExitStack, job: Job, work: str | os.PathLike[str] | None, isa: str = ""
) -> WorkDirectory | None:
    """The work directory, until the run ends."""
    if work is None:
        return None
    if job.block_positions is None:
        job.block_positions = WorkDirectory.positions_of_a_block(work)
    directory = WorkDirectory(work, identity(job, isa))
    stack.callback(directory.close)
    return directory
