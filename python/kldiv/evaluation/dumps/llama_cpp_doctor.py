"""What a base file of llama.cpp can and cannot say: `kldiv info FILE.kld`."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

import kldiv
from kldiv._arrays import Array
from kldiv.evaluation.dumps.llama_cpp import SCALED, LlamaCppDump, scale_and_min

LARGEST_PPL_DIFFERENCE = 0.005
"""Of ln PPL from what the writer printed, up to which the file is taken for faithful."""


@dataclass(frozen=True)
class Diagnosis:
    """One reading of all rows."""

    format: str
    bytes: int
    context_length: int
    chunks: int
    rows: int
    vocabulary: int
    row_bytes: int
    nan_rows: int
    """Rows that hold NaN; nothing else counts them."""
    mean_nll: float
    """Mean −ln p of the true next tokens, as decoded."""
    perplexity: float
    infinite_nll: int
    """True next tokens without a probability."""
    clip: float
    """How far below the most probable class the codes reach, in nats: the largest of all rows."""
    labels_at_clip: float
    """Share of the true next tokens that the lowest code stands for."""
    mass_at_clip: float
    """Mean probability on classes that the lowest code stands for."""
    mass: float
    """Mean sum of the probabilities of a row, as stored."""
    mass_off: float
    """The largest distance of it from 1."""
    step: float
    """The largest step between codes, or numbers of float16 at probability 1/e, in nats."""
    rounding_floor: float
    """Σ p·(error of ln p) of a row, root mean square, for errors uniform in a step: what
    llama.cpp's KL of a position is off by."""
    expected_ppl: float | None = None

    @property
    def ppl_difference(self) -> float | None:
        """How far ln PPL is from that of what was expected."""
        return None if self.expected_ppl is None else self.mean_nll - math.log(self.expected_ppl)

    @property
    def fits(self) -> bool | None:
        """Whether the perplexity is the expected one, where there is one."""
        difference = self.ppl_difference
        return None if difference is None else abs(difference) <= LARGEST_PPL_DIFFERENCE

    def as_dict(self) -> dict[str, Any]:
        """All numbers by name."""
        verdict = {"ppl_difference": self.ppl_difference, "fits": self.fits}
        return dataclasses.asdict(self) | verdict

    def lines(self) -> list[tuple[str, str]]:
        """Labels and what to print beside them."""
        lines = [
            ("format", self.format),
            ("size", f"{self.bytes:,} bytes, {self.row_bytes:,} a row"),
            ("chunks", f"{self.chunks:,} of {self.context_length:,} tokens"),
            ("positions", f"{self.rows:,}"),
            ("vocabulary", f"{self.vocabulary:,}"),
            ("PPL(base)", f"{self.perplexity:.4f}, ln {self.mean_nll:.6f}"),
        ]
        if self.expected_ppl is not None:
            verdict = "as expected" if self.fits else "NOT AS EXPECTED"
            lines.append(
                (
                    "PPL expected",
                    f"{self.expected_ppl:.4f}, ln differs by {self.ppl_difference:+.6f} "
                    f"(up to {LARGEST_PPL_DIFFERENCE}): {verdict}",
                )
            )
        lines += [
            ("normalised", f"rows sum to {self.mass:.6f}, at most {self.mass_off:.1e} off 1"),
            ("clip", f"{self.clip:.2f} nats below the top" if self.clip else "none"),
            ("true tokens at the clip", f"{self.labels_at_clip:.4%}"),
            ("mass at the clip", f"{self.mass_at_clip:.4%}"),
            ("step", f"{self.step:.2e} nats"),
            ("rounding floor", f"±{self.rounding_floor:.1e} nats a position"),
        ]
        if self.infinite_nll:
            lines.append(("true tokens of probability 0", f"{self.infinite_nll:,}"))
        if self.nan_rows:
            lines.append(("NaN rows", f"{self.nan_rows:,}"))
        return lines


def examine(dump: LlamaCppDump, expect_ppl: float | None = None) -> Diagnosis:
    """Read all rows of a base file and say what they are worth.

    Parameters
    ----------
    dump
        The file. A pipe cannot be read again after it.
    expect_ppl
        The perplexity that the run printed that wrote the file.

    Raises
    ------
    DumpError
        For a damaged file.
    ValueError
        For an expected perplexity that is none.
    """
    if expect_ppl is not None and not 0 < expect_ppl < math.inf:
        raise ValueError(f"expect_ppl must be positive and finite, got {expect_ppl}")
    header = dump.header
    step = max(1, dump.block_bytes // dump.row_bytes)
    columns: list[Array] = []
    for chunk in range(dump.count):
        labels = dump.tokens[chunk, header.first + 1 :]
        row = 0
        for stored, log_probs in dump.blocks(chunk, step):
            block = labels[row : row + len(stored)]
            columns.append(_measure(header.magic, stored, log_probs, block))
            row += len(stored)
    nll, at_clip, mass_at_clip, mass, clip, largest_step, variance = np.concatenate(columns, axis=1)
    good = ~np.isnan(mass)
    if not good.any():
        good = np.ones_like(good)
    mean = math.fsum(nll[good]) / int(good.sum()) if np.isfinite(nll[good]).all() else math.inf

    def average(values: Array) -> float:
        return math.fsum(values[good]) / int(good.sum())

    return Diagnosis(
        format=dump.format,
        bytes=header.file_bytes,
        context_length=header.context,
        chunks=dump.count,
        rows=len(nll),
        vocabulary=header.classes,
        row_bytes=header.row_bytes,
        nan_rows=int(np.isnan(mass).sum()),
        mean_nll=mean,
        perplexity=math.exp(mean) if mean < 700 else math.inf,
        infinite_nll=int(np.isinf(nll).sum()),
        clip=float(clip[good].max()),
        labels_at_clip=average(at_clip),
        mass_at_clip=average(mass_at_clip),
        mass=average(mass),
        mass_off=float(np.abs(mass[good] - 1).max()),
        step=float(largest_step[good].max()),
        rounding_floor=math.sqrt(average(variance)),
        expected_ppl=expect_ppl,
    )


def _measure(magic: str, stored: Array, log_probs: Array, labels: Array) -> Array:
    """Numbers of every row, float64 ``[7, rows]``.

    They are −ln p of the label, whether it is at the clip, the mass there, all mass, the clip, the
    step, and the variance of Σ p·(error of ln p).
    """
    rows, classes = log_probs.shape
    nll = -log_probs[np.arange(rows), labels].astype(np.float64)
    # Rows of −∞ only are no distribution: their sum is NaN, as that of NaN rows.
    mass = np.exp(kldiv.logsumexp(log_probs).astype(np.float64))
    mass[mass == 0] = np.nan
    at_clip, mass_at_clip, clip = np.zeros((3, rows))
    if magic in SCALED:
        codes = stored[:, 8 : 8 + 2 * classes].view("<u2")
        step, lowest = scale_and_min(stored).astype(np.float64).T
        # Σ p² is the sum of exponentials at half the temperature.
        squares = np.exp(kldiv.logsumexp(log_probs, temperature=0.5).astype(np.float64))
        variance = step**2 / 12 * squares
        if magic == "_logits_":
            at_clip = (codes[np.arange(rows), labels] == 0).astype(np.float64)
            clip = 65535 * step
            clipped = classes - np.count_nonzero(codes, axis=1)
            mass_at_clip = clipped * np.exp(lowest)
    else:
        # Halves have steps of their own; rows one by one, so as to be few numbers at a time.
        step = np.full(rows, float(np.spacing(np.float16(1))))
        variance = np.empty(rows)
        for row, numbers in enumerate(log_probs):
            steps = np.spacing(numbers.astype(np.float16)).astype(np.float32)
            weighted = np.exp(numbers) * steps
            known = np.isfinite(weighted)
            variance[row] = np.sum(weighted[known].astype(np.float64) ** 2) / 12
    if magic == "_logp16n":
        nll = np.ascontiguousarray(stored[:, :4]).view("<f4")[:, 0].astype(np.float64)
    return np.stack([nll, at_clip, mass_at_clip, mass, clip, step, variance])
