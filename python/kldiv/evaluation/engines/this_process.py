"""Blocks scored here, one after the other; with a directory, those that are missing in it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import kldiv
from kldiv.evaluation.engines.finished import Finished, recorded
from kldiv.evaluation.engines.job import Job, Run, blocks_of, joined
from kldiv.evaluation.engines.work import WorkDirectory
from kldiv.evaluation.positions import Interrupted, score_dumps, score_sequences


@dataclass(frozen=True)
class ThisProcess:
    """The process that asks."""

    work: WorkDirectory | None = None

    def run(self, job: Job) -> Run:
        """Score all dumps in one go, or by blocks where there is a directory to keep them."""
        if self.work is None:
            reference, *candidates = job.dumps
            tables = score_dumps(
                reference, candidates, job.scorers, job.scoring, job.marks, job.advance
            )
            return self._done(tables)
        finished: dict[int, Finished] = {}
        positions = 0
        try:
            for block in blocks_of(job):
                found = self.work.find(block)
                kept = found is not None
                if found is None:
                    with recorded() as warned:
                        scored = score_sequences(
                            block.sequences,
                            job.dumps,
                            job.scorers,
                            block.marks(job),
                            job.advance,
                            block.start,
                        )
                    found = Finished(scored.tables, scored.positions, warned)
                # Before it is kept or told of: Ctrl-C in between leaves no kept block out.
                finished[block.number] = found
                if kept:
                    job.found(found.positions)
                else:
                    self.work.keep(block, found)
                job.say(found.warned)
                positions += found.positions
        except KeyboardInterrupt as error:
            # Of one Ctrl-C polars raises an error of its own, and Python another one at the next
            # call, which is this one. A `with` would be interrupted before it began.
            try:  # noqa: SIM105
                time.sleep(0)
            except KeyboardInterrupt:
                pass
            if isinstance(error, Interrupted):
                finished[len(finished)] = Finished(error.tables, 0)
            if not finished:
                raise
            raise Interrupted(joined(finished)) from None
        if job.scoring.chunks is None:
            job.marks.check(positions)
        return self._done(joined(finished))

    def _done(self, tables: list) -> Run:  # type: ignore[type-arg]
        return Run(tables, kldiv.isa(), kldiv.get_num_threads())
