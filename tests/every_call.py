"""Every function's bits, for tests of what no result may depend on."""

import numpy as np

import kldiv
from samples import GENERAL


def everything(p, q, labels):
    """Every function's bits."""
    results = []
    for name, options in GENERAL.items():
        for reduction in ("none", "mean"):
            value, gradients = kldiv.value_and_grad(
                getattr(kldiv, name), p, q, wrt=("p", "q"), reduction=reduction, **options
            )
            results += [value, *gradients]
    for id_map in (None, ([0], [0])):
        value, gradients = kldiv.value_and_grad(
            kldiv.uld, p, q[..., 1:], wrt=("p", "q"), id_map=id_map
        )
        results += [value, *gradients]
    results += kldiv.value_and_grad(kldiv.cross_entropy, q, labels, label_smoothing=0.1)
    results += kldiv.value_and_grad(kldiv.cross_entropy, q, labels, reduction="mean")
    results += kldiv.value_and_grad(kldiv.entropy, p)
    results += kldiv.value_and_grad(kldiv.logsumexp, p)
    results += [kldiv.log_softmax(p), kldiv.gather_log_probs(p, labels)]
    kept = {"top_p": 0.9, "return_mass": True}
    (value, mass), gradient = kldiv.value_and_grad(kldiv.entropy, p, top_k=3, min_p=0.01, **kept)
    results += [value, mass, gradient, *kldiv.gather_log_probs(p, labels, **kept)]
    for classes in (kldiv.top_k(p, 3), kldiv.sample_k(p, 20, power=0.8, seed=1)):
        results += [classes.ids, classes.values]
    comparison = kldiv.compare(p, q, labels)
    results += [comparison.kl, comparison.entropy_q, comparison.nll_p, comparison.top1_p]
    return [np.asarray(result).tobytes() for result in results]
