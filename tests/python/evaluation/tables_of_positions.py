"""Tables of positions to test statistics on: uneven sequences, ties, NaN, infinity, no tokens."""

import numpy as np
import polars as pl

from kldiv.evaluation.columns import COLUMNS


def table(seed=0, sequences=12, candidate="candidate", spoiled=True, noise=1.0, lengths=None):
    """One candidate's rows. The reference's columns depend on `seed` alone."""
    rng = np.random.default_rng(seed)
    if lengths is None:
        lengths = rng.integers(20, 90, sequences)
    sequence = np.repeat(np.arange(len(lengths)), lengths)
    count = len(sequence)
    position = np.concatenate([np.arange(length) * 17 for length in lengths] or [[]])
    hard = np.repeat(rng.normal(0, 0.7, len(lengths)), lengths)
    confidence_p = np.round(rng.beta(2, 1, count), 2)
    top1_p = rng.integers(0, 50, count)
    nll_p = rng.exponential(2, count)
    token = rng.integers(0, 50, count)
    own = np.random.default_rng([seed, len(candidate), sum(candidate.encode())])
    # Rounded, so that there are ties.
    kl = np.round(noise * np.exp(own.normal(-4, 1.5, count) + hard), 4)
    frame = {
        "candidate": [candidate] * count,
        "sequence": sequence,
        "name": [f"{number}.npy" for number in sequence],
        "cluster": [None if number == 1 else f"book {number // 3}" for number in sequence],
        "stratum": [
            None if number == 1 else ("prose", "code")[number // 3 % 2] for number in sequence
        ],
        "position": position,
        "token": token,
        "kl": kl,
        "reverse_kl": kl * own.uniform(0.8, 1.3, count),
        "jensen_shannon": kl / 4,
        "total_variation": np.minimum(1, np.sqrt(kl / 2)),
        "entropy_p": rng.gamma(2, 1, count),
        "entropy_q": own.gamma(2, 1, count),
        "top1_p": top1_p,
        "top1_q": np.where(own.random(count) < 0.9, top1_p, 50),
        "confidence_p": confidence_p,
        "confidence_q": own.beta(2, 1, count),
        "nll_p": nll_p,
        "nll_q": nll_p + own.normal(0.02, 0.2, count),
        "kl_floor": np.round(kl * own.uniform(0.2, 1.4, count), 4),
    }
    if spoiled and count > 20:
        nan = own.choice(count, 5, replace=False)
        for name in ("kl", "reverse_kl", "jensen_shannon", "total_variation", "confidence_q"):
            frame[name][nan] = np.nan
        frame["nll_q"][nan] = np.nan
        frame["top1_q"][nan] = -1
        infinite = own.choice(np.setdiff1d(np.arange(count), nan), 3, replace=False)
        frame["kl"][infinite] = np.inf
        frame["nll_q"][infinite[:1]] = np.inf
        frame["kl_floor"][7] = np.nan
    result = pl.DataFrame({name: pl.Series(name, values) for name, values in frame.items()})
    result = result.with_columns(pl.col(name).cast(COLUMNS[name].dtype) for name in frame)
    if spoiled and count > 20:
        result = result.with_columns(
            pl.when(pl.col("position") % 5 != 3).then(pl.col(name)).alias(name)
            for name in ("token", "nll_p", "nll_q")
        )
    return result


def numbers(frame, name):
    """A column as a list of floats, null as NaN."""
    return [float("nan") if value is None else float(value) for value in frame[name].to_list()]


def cluster_names(frame):
    """What each row's cluster is called."""
    return [
        ("sequence", row["sequence"]) if row.get("cluster") is None else row["cluster"]
        for row in frame.iter_rows(named=True)
    ]
