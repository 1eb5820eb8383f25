"""Blocks scored by the workers of a Dask cluster, which read the files by themselves."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import re
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import kldiv
from kldiv import _optional
from kldiv.evaluation.engines import worker
from kldiv.evaluation.engines.errors import EngineError
from kldiv.evaluation.engines.finished import Finished
from kldiv.evaluation.engines.job import Block, Job, Run, blocks_of, joined
from kldiv.evaluation.engines.work import WorkDirectory
from kldiv.evaluation.positions import Interrupted
from kldiv.evaluation.wording import counted

if TYPE_CHECKING:
    from distributed import Client, Future

CONNECT = 10.0  # seconds in which a scheduler answers
FIRST_WORKER = 60.0  # seconds in which there is a worker, which a cluster may start when asked
LOCAL = "local:"
MOST_THREADS = 256  # of kldiv
AHEAD = 2
"""Blocks handed over for each thread of the cluster: one to score and one to go on with."""
RECOUNT = 5.0  # seconds after which workers may have come or gone
MOST_DEATHS = 3
"""Workers that may end while they have a block; also where the cluster allows none."""


def library() -> Any:
    """The package.

    Raises
    ------
    EngineError
        Where it is not installed.
    """
    try:
        return _optional.module("distributed")
    except ModuleNotFoundError as error:
        raise EngineError(str(error)) from None


@contextmanager
def client_of(given: Any) -> Iterator[Client]:
    """A client as it is, or one of a cluster or an address, closed afterwards.

    The address is that of a scheduler, ``tcp://HOST:8786``, or ``local:N`` for N processes of one
    thread on this machine, which end with the run.

    Raises
    ------
    EngineError
        For a scheduler that does not answer.
    """
    distributed = library()
    if isinstance(given, distributed.Client):
        if given.asynchronous:
            raise EngineError("the client is asynchronous; expected one that waits for results")
        yield given
        return
    # A cluster has one, too.
    address = str(getattr(given, "scheduler_address", given))
    if address.startswith(LOCAL):
        count = address.removeprefix(LOCAL)
        if not (count.isascii() and count.isdigit() and 0 < int(count) <= 1024):
            raise EngineError(f"{address!r} is not {LOCAL}N, for N processes of this machine")
        with (
            distributed.LocalCluster(
                n_workers=int(count),
                threads_per_worker=1,
                processes=True,
                dashboard_address=":0",
                silence_logs=50,
                preload=["kldiv.evaluation.engines.local_worker"],
            ) as cluster,
            distributed.Client(cluster, set_as_default=False) as client,
        ):
            yield client
        return
    if not re.fullmatch(r"([a-z]+://)?(\[[^\]]+\]|[^:/\s]+):\d+", address):
        raise EngineError(
            f"{address!r} is no address of a scheduler of Dask; expected tcp://HOST:PORT, "
            f"or {LOCAL}N"
        )
    with _quiet():
        try:
            client = distributed.Client(address, timeout=CONNECT, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            said = f"no scheduler of Dask answers at {address}: {_line(error)}"
            raise EngineError(said) from None
        with client:
            yield client


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the library logs of a connection: what matters of it is raised."""
    loggers = [logging.getLogger(name) for name in list(logging.root.manager.loggerDict)]
    ours = [one for one in loggers if one.name.partition(".")[0] == "distributed"]
    levels = [one.level for one in ours]
    for one in ours:
        one.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for one, level in zip(ours, levels, strict=True):
            one.setLevel(level)


@dataclass
class OnDask:
    """The workers of a cluster."""

    client: Client
    work: WorkDirectory | None = None
    isa: str = ""
    threads: int = 0
    _finished: dict[int, Finished] = field(default_factory=dict)
    _blocks: dict[Any, Block] = field(default_factory=dict)
    """Those handed over, by their futures."""
    _deaths: dict[int, int] = field(default_factory=dict)
    _counted: float = 0.0

    def check(self) -> None:
        """Raise `EngineError` unless the workers have this kldiv, and all the same arithmetic."""
        distributed = library()

        def versions() -> tuple[str, str]:
            # Sent as it is written: a worker without kldiv has no module to look it up in.
            import kldiv

            return kldiv.__version__, kldiv.isa()

        # A cluster that starts workers when there is work gets some.
        waiting = self.client.submit(int, pure=False)
        try:
            waiting.result(timeout=FIRST_WORKER)
        except (TimeoutError, distributed.TimeoutError):
            waiting.cancel()
            raise EngineError(
                f"the cluster at {_address(self.client)} has no worker; "
                f"dask worker {_address(self.client)} starts one"
            ) from None
        found = self.client.run(versions, on_error="return")
        for address, said in found.items():
            if isinstance(said, ModuleNotFoundError):
                raise EngineError(f"the worker at {address} lacks {said.name}: pip install kldiv")
            if isinstance(said, BaseException):
                raise EngineError(f"the worker at {address} cannot run kldiv: {_line(said)}")
            _check_version(said[0], address)
        _, self.isa = next(iter(found.values()))
        for address, (_, isa) in found.items():
            self._check_isa(isa, address)
        self._count_threads()

    def run(self, job: Job) -> Run:
        """Hand out the blocks that are missing, a few ahead, and collect them as they come."""
        distributed = library()
        worker.check_heads(job.heads)
        run = uuid.uuid4().hex
        waiting = distributed.as_completed(loop=self.client.loop)
        missing = self._missing(job)
        try:
            self._hand_out(job, run, missing, waiting)
            for future in waiting:
                block = self._blocks.pop(future)
                found = self._collect(job, run, future, block, waiting)
                if found is not None:
                    job.say(found.warned)
                    job.advance(found.positions)
                self._hand_out(job, run, missing, waiting)
        except KeyboardInterrupt:
            self._cancel()
            if not self._finished:
                raise
            raise Interrupted(joined(self._finished)) from None
        except (distributed.comm.CommClosedError, distributed.TimeoutError):
            raise self._gone() from None
        except BaseException:
            self._cancel()
            raise
        positions = sum(found.positions for found in self._finished.values())
        if job.scoring.chunks is None:
            job.marks.check(positions)
        return Run(joined(self._finished), self.isa, self.threads)

    def _missing(self, job: Job) -> Iterator[Block]:
        """Blocks that no run has finished; those that one has are taken."""
        for block in blocks_of(job):
            found = None if self.work is None else self.work.find(block)
            if found is None:
                yield block
            else:
                # First, as in `_collect`: Ctrl-C in between leaves no kept block out.
                self._finished[block.number] = found
                job.found(found.positions)
                job.say(found.warned)

    def _count_threads(self) -> None:
        self.threads = sum(self.client.nthreads().values())
        self._counted = time.monotonic()

    def _hand_out(self, job: Job, run: str, blocks: Iterator[Block], waiting: Any) -> None:
        if time.monotonic() - self._counted > RECOUNT:
            self._count_threads()
        while len(self._blocks) < max(2, AHEAD * self.threads):
            block = next(blocks, None)
            if block is None:
                return
            self._submit(job, run, block, waiting)

    def _submit(self, job: Job, run: str, block: Block, waiting: Any) -> None:
        task = worker.packed(job, block, run)
        key = f"kldiv-{run}-{block.number}-{self._deaths.get(block.number, 0)}"
        with warnings.catch_warnings():
            # Of arrays, which have to be sent.
            warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
            future = self.client.submit(_on_worker, task, key=key, pure=False)
        self._blocks[future] = block
        waiting.add(future)

    def _collect(
        self, job: Job, run: str, future: Future, block: Block, waiting: Any
    ) -> Finished | None:
        """The finished block of a future; None where it was handed out again."""
        distributed = library()
        try:
            outcome: worker.Outcome = future.result()
        except distributed.KilledWorker as error:
            deaths = self._deaths.get(block.number, 0) + error.allowed_failures + 1
            self._deaths[block.number] = deaths
            if deaths > MOST_DEATHS:
                raise EngineError(
                    f"{block} ended {counted(deaths, 'worker')}, one after the other: for want of "
                    "memory, most likely"
                ) from None
            self._submit(job, run, block, waiting)
            return None
        except (asyncio.CancelledError, concurrent.futures.CancelledError):
            raise self._gone() from None
        except (distributed.comm.CommClosedError, distributed.TimeoutError):
            raise
        except Exception as error:
            raise EngineError(f"{block} failed on its worker: {_line(error)}") from error
        future.release()
        _check_version(outcome.version, "one that came later")
        self._check_isa(outcome.isa, "one that came later")
        if outcome.data is None:
            raise EngineError(f"{block}: {outcome.problem}")
        found, _ = Finished.decode(outcome.data)
        self._finished[block.number] = found
        if self.work is not None:
            self.work.keep(block, found, outcome.data)
        return found

    def _gone(self) -> EngineError:
        kept = "" if self.work is None else f"; {self.work.path} has what was finished"
        return EngineError(
            f"the scheduler at {_address(self.client)} is gone, or was restarted{kept}"
        )

    def _check_isa(self, isa: str, address: str) -> None:
        if isa != self.isa:
            raise EngineError(
                f"workers have the instruction sets {self.isa} and {isa} ({address}), which differ "
                "in the last digits; KLDIV_ISA=avx2 in their environment gives all of them one"
            )

    def _cancel(self) -> None:
        # Of a cluster that is gone there is nothing to cancel.
        with contextlib.suppress(Exception):
            self.client.cancel(list(self._blocks))


def _on_worker(task: bytes) -> worker.Outcome:
    """Score a block on as many threads as Dask gave the worker."""
    threads = library().get_worker().state.nthreads
    return worker.score(task, min(threads, MOST_THREADS))


def _check_version(version: str, address: str) -> None:
    if version != kldiv.__version__:
        raise EngineError(
            f"the worker at {address} has kldiv {version}, this process {kldiv.__version__}; "
            "expected the same"
        )


def _address(client: Client) -> str:
    scheduler = client.scheduler
    return "?" if scheduler is None else str(scheduler.address)


def _line(error: BaseException) -> str:
    said = " ".join(str(error).split()) or type(error).__name__
    return said[:300]
