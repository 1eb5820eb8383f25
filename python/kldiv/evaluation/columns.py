"""The columns of the table of positions: what is known of every scored position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl


@dataclass(frozen=True)
class Column:
    """One column: its dtype, and what it says."""

    dtype: Any
    meaning: str


# In the order of the table. Rows are in the order of candidates, sequences and positions; rows
# left out by a mask are not in it. Columns of what was not asked for are not in it either.
COLUMNS: dict[str, Column] = {
    "candidate": Column(pl.String, "the candidate, as it was named"),
    "sequence": Column(pl.UInt32, "number of the sequence, from 0"),
    "name": Column(pl.String, "the sequence's file or key in the reference"),
    "cluster": Column(pl.String, "what the sequence belongs to, as its source document"),
    "stratum": Column(pl.String, "label of the sequence, as its domain"),
    "position": Column(pl.UInt32, "tokens of the context before this row's own"),
    "token": Column(pl.Int64, "the true next token; null where there is none"),
    "kl": Column(pl.Float64, "KL(p‖q); NaN of rows with NaN or +inf"),
    "reverse_kl": Column(pl.Float64, "KL(q‖p)"),
    "jensen_shannon": Column(pl.Float64, "Jensen–Shannon divergence, β = ½"),
    "total_variation": Column(pl.Float64, "½ Σ |p − q|"),
    "entropy_p": Column(pl.Float64, "entropy of p"),
    "entropy_q": Column(pl.Float64, "entropy of q"),
    "top1_p": Column(pl.Int64, "p's most probable class, the first of several; −1 of NaN rows"),
    "top1_q": Column(pl.Int64, "q's"),
    "confidence_p": Column(pl.Float64, "probability of p's most probable class under p"),
    "confidence_q": Column(pl.Float64, "probability of q's most probable class under q"),
    "nll_p": Column(pl.Float64, "−ln p of the token; null where there is none"),
    "nll_q": Column(pl.Float64, "−ln q of the token"),
    "kl_floor": Column(pl.Float64, "KL of two runs of the same model at this position"),
    "kl_llama_cpp": Column(pl.Float64, "KL as llama.cpp computes it of its base file"),
    "nll_p_llama_cpp": Column(pl.Float64, "−ln p of the token as stored there, not normalised"),
    "nll_q_llama_cpp": Column(pl.Float64, "−ln q of the token, rounded as llama.cpp does"),
    "kl_lower": Column(pl.Float64, "lower bound of KL(p‖q), of top-k rows"),
    "reverse_kl_lower": Column(pl.Float64, "lower bound of KL(q‖p)"),
    "total_variation_lower": Column(pl.Float64, "lower bound of total variation"),
    "total_variation_upper": Column(pl.Float64, "upper bound of total variation"),
    "coverage_p": Column(pl.Float64, "mass of p on the classes known on both sides"),
    "coverage_q": Column(pl.Float64, "mass of q on them"),
    "lost_p": Column(pl.Float64, "mass of p on classes that were not scored"),
    "lost_q": Column(pl.Float64, "mass of q on them"),
}
