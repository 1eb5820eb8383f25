"""How good translations are: BLEU and chrF with intervals and tests, and a baseline."""

from __future__ import annotations

import numpy as np
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest
from sklearn.feature_extraction.text import TfidfVectorizer

from texts import Pair

SAMPLES = 1000
"""Of the bootstrap."""


def nearest(train: list[Pair], held_out: list[Pair]) -> list[str]:
    """The Chinese of the training pair whose English is nearest by TF-IDF of words and pairs."""
    vectors = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]", sublinear_tf=True)
    known = vectors.fit_transform([pair.english for pair in train])
    similar = vectors.transform([pair.english for pair in held_out]) @ known.T
    return [train[i].chinese for i in np.asarray(similar.argmax(axis=1)).ravel()]


def judged(
    systems: dict[str, list[str]], held_out: list[Pair], baseline: str
) -> dict[str, dict[str, float]]:
    """BLEU and chrF of each system, half the width of their 95 % intervals, p-values.

    The p-values are of the paired bootstrap, against `baseline`, one of the systems.
    """
    references = [[pair.chinese for pair in held_out]]
    metrics = {"BLEU": BLEU(tokenize="zh"), "chrF2": CHRF()}
    # The first system is the one that others are tested against.
    names = [baseline, *(name for name in systems if name != baseline)]
    test = PairedTest(
        [(name, systems[name]) for name in names],
        metrics,
        references=references,
        test_type="bs",
        n_samples=SAMPLES,
    )
    _, results = test()
    quality = {
        name: {
            key: float(value)
            for metric, found in (("BLEU", "BLEU"), ("chrF", "chrF2"))
            for key, value in (
                (metric, results[found][i].score),
                (f"{metric} ±", results[found][i].ci),
                (f"{metric} p", results[found][i].p_value),
            )
            if value is not None
        }
        for i, name in enumerate(names)
    }
    return {name: quality[name] for name in systems}
