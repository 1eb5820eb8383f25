"""Classify sentences of film reviews with two models, and choose one of them by KL to the truth.

    A   a linear model on TF-IDF of words and pairs of words
    B   MiniLM, an encoder of the BERT family, fine-tuned with a linear layer on its mean vector

The truth is a distribution: about 15 people rated each sentence [1]_, and their shares of
negative, neutral and positive votes are what both models learn, by kldiv's cross-entropy. On
sentences that neither has seen they are compared by KL to the truth and to each other. Each is
calibrated by the temperature that minimises its KL on sentences kept for that. Intervals come from
a paired bootstrap over sentences, and one model is chosen only if that of the difference excludes
0.

    python examples/classify.py [--quick]

.. [1] C. J. Hutto and E. Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis
   of Social Media Text" (2014).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize, stats
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor
from tqdm import tqdm

import experiment
import kldiv
import kldiv.torch
import models
import texts
from experiment import Experiment

CLASSES = ("negative", "neutral", "positive")
BATCH = 32
MAX_TOKENS = 64
"""Longer sentences are cut: one in two thousand or so."""
BINS = 10
"""Of equal width, for calibration errors."""
FEWEST = 10
"""Sentences that a bin needs to be drawn."""
TEMPERATURES = np.geomspace(0.3, 4.0, 40)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Size:
    """How many sentences, and how long both models are trained."""

    train: int
    calibration: int
    test: int
    linear_steps: int
    epochs: int
    layers_trained: int


FULL = Size(train=6000, calibration=1500, test=3000, linear_steps=300, epochs=2, layers_trained=6)
QUICK = Size(train=320, calibration=120, test=200, linear_steps=100, epochs=1, layers_trained=2)


@dataclass(frozen=True)
class Part:
    """Sentences, and the raters' shares of the classes."""

    sentences: list[str]
    shares: Array


def split(reviews: texts.RatedReviews, size: Size, seed: int) -> list[Part]:
    """Sentences to train on, to calibrate on, and to test on."""
    order = np.random.default_rng(seed).permutation(len(reviews.sentences))
    ends = np.cumsum([size.train, size.calibration, size.test])
    return [
        Part([reviews.sentences[i] for i in rows], reviews.shares[rows])
        for rows in np.split(order[: ends[-1]], ends[:-1])
    ]


def linear_model(train: Part, others: list[Part], steps: int) -> list[Array]:
    """Logits of the linear model on TF-IDF for the other parts."""
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    features = _sparse(vectorizer.fit_transform(train.sentences))
    weights = torch.zeros(features.shape[1], len(CLASSES), requires_grad=True)
    bias = torch.zeros(len(CLASSES), requires_grad=True)
    shares = torch.tensor(train.shares, dtype=torch.float32)
    optimizer = torch.optim.AdamW(
        [{"params": [weights], "weight_decay": 0.1}, {"params": [bias], "weight_decay": 0.0}],
        lr=0.03,
    )
    for _ in tqdm(range(steps), desc="A", disable=None):
        loss = kldiv.torch.cross_entropy(features @ weights + bias, shares)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return [
            (_sparse(vectorizer.transform(part.sentences)) @ weights + bias).double().numpy()
            for part in others
        ]


def _sparse(matrix: Any) -> Tensor:
    rows = matrix.tocoo()
    indices = torch.tensor(np.stack([rows.row, rows.col]))
    values = torch.tensor(rows.data, dtype=torch.float32)
    return torch.sparse_coo_tensor(indices, values, rows.shape, check_invariants=True)


class Classifier(torch.nn.Module):
    """An encoder, and a linear layer on the mean of its token vectors."""

    def __init__(self, encoder: Any, layers_trained: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = torch.nn.Linear(encoder.config.hidden_size, len(CLASSES))
        if layers_trained < len(encoder.encoder.layer):
            encoder.requires_grad_(False)
            encoder.encoder.layer[-layers_trained:].requires_grad_(True)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits of the classes; tokens of padding are not in the mean."""
        vectors = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        where = attention_mask.unsqueeze(-1)
        return self.head((vectors.last_hidden_state * where).sum(1) / where.sum(1))


def batches(tokenizer: Any, sentences: list[str]) -> list[tuple[NDArray[np.int64], Any]]:
    """Rows of sentences of about equal length, and their tokens padded to the longest."""
    encode = {"truncation": True, "max_length": MAX_TOKENS}
    lengths = [len(ids) for ids in tokenizer(sentences, **encode)["input_ids"]]
    order = np.argsort(lengths, kind="stable")
    found = []
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        tokens = tokenizer(
            [sentences[i] for i in rows], padding=True, return_tensors="pt", **encode
        )
        found.append((rows, (tokens["input_ids"], tokens["attention_mask"])))
    return found


def encoder_model(train: Part, others: list[Part], size: Size) -> list[Array]:
    """Logits of the fine-tuned encoder for the other parts."""
    encoder, tokenizer = models.minilm()
    model = Classifier(encoder, size.layers_trained)
    shares = torch.tensor(train.shares, dtype=torch.float32)
    data = batches(tokenizer, train.sentences)
    steps = size.epochs * len(data)
    optimizer = torch.optim.AdamW(
        [
            {"params": [w for w in encoder.parameters() if w.requires_grad], "lr": 1e-4},
            {"params": model.head.parameters(), "lr": 1e-3},
        ]
    )
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=steps)
    model.train()
    with tqdm(total=steps, desc="B", disable=None) as progress:
        for _ in range(size.epochs):
            for place in torch.randperm(len(data)):
                rows, tokens = data[place]
                loss = kldiv.torch.cross_entropy(model(*tokens), shares[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                progress.update()
    model.eval()
    found = []
    with torch.inference_mode():
        for part in others:
            logits = np.empty((len(part.sentences), len(CLASSES)))
            for rows, tokens in batches(tokenizer, part.sentences):
                logits[rows] = model(*tokens).double().numpy()
            found.append(logits)
    return found


def kl_to(shares: Array, logits: Array, temperature: float = 1.0) -> Array:
    """KL(raters‖model) of each sentence."""
    return kldiv.kl(shares, logits, space=("probs", "logits"), temperature=(1.0, temperature))


def best_temperature(part: Part, logits: Array) -> float:
    """The temperature of the least mean KL."""
    found = optimize.minimize_scalar(
        lambda ln_t: kl_to(part.shares, logits, np.exp(ln_t)).mean(),
        bounds=np.log(TEMPERATURES[[0, -1]]),
        method="bounded",
    )
    return float(np.exp(found.x))


def interval(values: Array, seed: int) -> tuple[float, float]:
    """The 95 % bootstrap interval of a mean over sentences."""
    found = stats.bootstrap(
        (values,), np.mean, n_resamples=2000, batch=100, method="BCa", rng=seed
    ).confidence_interval
    return float(found.low), float(found.high)


def reliability(shares: Array, logits: Array) -> tuple[Array, Array, Array]:
    """Per bin of the model's confidence: mean confidence, raters' share of that class, weight."""
    p = np.exp(kldiv.log_softmax(logits))
    top = p.argmax(-1)
    rows = np.arange(len(p))
    confidence, share = p[rows, top], shares[rows, top]
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    used = np.unique(bins)
    means = [[x[bins == b].mean() for b in used] for x in (confidence, share)]
    return np.array(means[0]), np.array(means[1]), np.array([np.mean(bins == b) for b in used])


def calibration_error(shares: Array, logits: Array) -> float:
    """The expected calibration error: mean |confidence − raters' share| over the bins."""
    confidence, share, weight = reliability(shares, logits)
    return float(np.sum(weight * np.abs(confidence - share)))


def judge(name: str, test: Part, logits: Array, temperature: float, seed: int) -> dict[str, Any]:
    """One row of the table."""
    calibrated = logits / temperature
    kl, after = kl_to(test.shares, logits), kl_to(test.shares, calibrated)
    low_raw, high_raw = interval(kl, seed)
    low, high = interval(after, seed)
    majority = test.shares.argmax(-1)
    return {
        "model": name,
        "KL": float(kl.mean()),
        "KL low": low_raw,
        "KL high": high_raw,
        "T": temperature,
        "KL calibrated": float(after.mean()),
        "low": low,
        "high": high,
        "cross-entropy": float(kldiv.cross_entropy(calibrated, test.shares).mean()),
        "ECE": calibration_error(test.shares, logits),
        "ECE calibrated": calibration_error(test.shares, calibrated),
        "accuracy": float(np.mean(logits.argmax(-1) == majority)),
    }


def choose(difference: Array, seed: int) -> dict[str, Any]:
    """The choice by the paired difference of KLs, A's less B's."""
    low, high = interval(difference, seed)
    choice = "undecided" if low <= 0.0 <= high else ("B" if low > 0.0 else "A")
    return {"KL(A) − KL(B)": float(difference.mean()), "low": low, "high": high, "choice": choice}


def draw(
    rows: list[dict[str, Any]],
    parts: dict[str, Part],
    logits: dict[str, dict[str, Array]],
    temperatures: dict[str, float],
) -> Any:
    """KL to the raters, KL against temperature, and reliability."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4.2))
    *trained, constant = rows
    places = np.arange(len(trained))
    for shift, label, keys in (
        (-0.2, "as trained", ("KL", "KL low", "KL high")),
        (0.2, "calibrated", ("KL calibrated", "low", "high")),
    ):
        mean, low, high = np.array([[row[key] for key in keys] for row in trained]).T
        left.bar(places + shift, mean, 0.38, yerr=[mean - low, high - mean], capsize=4, label=label)
    left.axhspan(constant["KL low"], constant["KL high"], color="grey", alpha=0.3, lw=0)
    left.axhline(constant["KL"], color="grey", ls=":", label="constant prediction")
    left.set_xticks(places, [row["model"] for row in trained])
    left.set(ylabel="mean KL(raters‖model) (nats)", title="test sentences, 95 % intervals")
    # Above the bars.
    left.set_ylim(top=1.35 * max(row["KL high"] for row in rows))
    left.legend(loc="upper right", ncols=2)
    for place, name in enumerate(temperatures):
        color = f"C{place + 2}"
        part, z = parts["calibration"], logits["calibration"][name]
        curve = [kl_to(part.shares, z, t).mean() for t in TEMPERATURES]
        middle.plot(TEMPERATURES, curve, color=color, label=name)
        best = temperatures[name]
        label = f"minimum, T = {best:.2f}"
        middle.plot(best, kl_to(part.shares, z, best).mean(), "o", color=color, label=label)
        for t, style in ((1.0, "o--"), (best, "s-")):
            confidence, share, weight = reliability(parts["test"].shares, logits["test"][name] / t)
            drawn = weight * len(parts["test"].sentences) >= FEWEST
            label = f"{name}, {'as trained' if t == 1.0 else 'calibrated'}"
            right.plot(confidence[drawn], share[drawn], style, ms=4, color=color, label=label)
    middle.set(
        xlabel="temperature",
        ylabel="mean KL(raters‖model) (nats)",
        xscale="log",
        title="calibration sentences",
    )
    ticks = [0.3, 0.5, 1, 2, 4]
    middle.set_xticks(ticks, [str(t) for t in ticks])
    middle.set_xticks([], minor=True)
    middle.legend()
    right.plot([0.3, 1], [0.3, 1], color="grey", lw=1, ls=":", label="calibrated perfectly")
    right.set(
        xlabel="mean confidence of the model",
        ylabel="mean share of the raters",
        title=f"reliability, test sentences ({FEWEST} or more a point)",
    )
    right.legend(loc="upper left")
    figure.tight_layout()
    return figure


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Print KL with its intervals, and the rest, in tables that fit a terminal."""
    experiment.show_table(
        f"{title}: KL(raters‖model) and 95 % intervals",
        [
            {
                "model": row["model"],
                "KL": row["KL"],
                "95 %": f"{row['KL low']:.3f} to {row['KL high']:.3f}",
                "T": row["T"],
                "at T: KL": row["KL calibrated"],
                "at T: 95 %": f"{row['low']:.3f} to {row['high']:.3f}",
            }
            for row in rows
        ],
    )
    experiment.show_table(
        f"{title}: cross-entropy at T, accuracy, calibration error",
        [
            {
                "model": row["model"],
                "cross-entropy": row["cross-entropy"],
                "accuracy": row["accuracy"],
                "ECE": row["ECE"],
                "at T: ECE": row["ECE calibrated"],
            }
            for row in rows
        ],
    )


def main(given: Experiment) -> None:
    """Train both, calibrate them, compare them, choose."""
    size = QUICK if given.quick else FULL
    train, calibration, test = split(texts.rated_reviews(given.output), size, given.seed)
    others = [calibration, test]
    of_a = linear_model(train, others, size.linear_steps)
    of_b = encoder_model(train, others, size)
    logits = {
        part: {"A, TF-IDF": a, "B, MiniLM": b}
        for part, a, b in zip(("calibration", "test"), of_a, of_b, strict=True)
    }
    temperatures = {
        name: best_temperature(calibration, z) for name, z in logits["calibration"].items()
    }
    rows = [
        judge(name, test, z, temperatures[name], given.seed) for name, z in logits["test"].items()
    ]
    # What a model that knows nothing of a sentence can do.
    constant = np.tile(np.log(train.shares.mean(0)), (len(test.sentences), 1))
    rows.append(judge("constant", test, constant, 1.0, given.seed))
    a, b = (z / temperatures[name] for name, z in logits["test"].items())
    choice = choose(kl_to(test.shares, a) - kl_to(test.shares, b), given.seed)
    entropy = float(kldiv.entropy(test.shares, space="probs").mean())
    between = {
        "KL(A‖B)": float(kldiv.kl(a, b).mean()),
        "KL(B‖A)": float(kldiv.kl(b, a).mean()),
        "Jensen–Shannon": float(kldiv.jensen_shannon(a, b).mean()),
        "entropy of the raters": entropy,
    }
    # Cross-entropy is entropy + KL.
    for row in rows:
        assert abs(row["cross-entropy"] - entropy - row["KL calibrated"]) < 1e-9
    show(f"{len(test.sentences)} test sentences, nats", rows)
    experiment.show_table("calibrated models with each other, nats", [between])
    experiment.show_table("choice, by the paired 95 % interval", [choice])
    shown = []
    for i in range(3):
        shares = {"raters": test.shares[i]}
        shares |= {name: np.exp(kldiv.log_softmax(z[i])) for name, z in (("A", a), ("B", b))}
        shown.append({"sentence": test.sentences[i], **{k: v.tolist() for k, v in shares.items()}})
        print(test.sentences[i])
        for name, row in shares.items():
            print(f"  {name:7}", *(f"{c} {x:.2f}" for c, x in zip(CLASSES, row, strict=True)))
    given.save(
        {"models": rows, "between": between, "choice": choice, "sentences": shown},
        draw(rows, {"calibration": calibration, "test": test}, logits, temperatures),
    )


if __name__ == "__main__":
    main(experiment.start("classify", __doc__))
