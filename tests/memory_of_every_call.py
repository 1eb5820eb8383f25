"""Every function on rows that end where their memory does: run under valgrind, or with a sanitizer.

``valgrind python memory_of_every_call.py`` reports a read or a write beside a row, and a result
that depends on memory that nobody wrote. `KLDIV_ISA` chooses the instruction set.
"""

import ml_dtypes
import numpy as np

import kldiv
from every_call import everything

# Around a vector of the widest lanes, a run and a block; above a thousand bytes, below which NumPy
# keeps freed memory for itself.
WIDTHS = (257, 271, 1024, 4097)
DTYPES = (np.float64, np.float32, np.float16, ml_dtypes.bfloat16)


def calls(dtype, classes):
    """The functions on one batch, and on slices of one."""
    rng = np.random.default_rng(classes)
    p, q = (rng.normal(0, 3, (3, classes)).astype(dtype) for _ in range(2))
    labels = np.array([0, classes - 1, 5])
    everything(p, q, labels)
    everything(p[::-1, 1:], q[::-1, :-1], labels - 1 + (labels == 0))
    kept = kldiv.top_k(p, 9)
    for rule in ("renormalize", "tail", "truncate", "uniform_tail"):
        kldiv.value_and_grad(kldiv.kl, kept, q, rule=rule)
    kldiv.pairwise(kldiv.jensen_shannon, p, q)
    out = q.copy()
    kldiv.value_and_grad(kldiv.kl, p, out, out=out)
    kldiv.value_and_grad(kldiv.chi_squared, p, q, where=[True, False, True], reduction="mean")


if __name__ == "__main__":
    kldiv.set_num_threads(2)
    for width in WIDTHS:
        for number in DTYPES:
            calls(number, width)
    print(f"every function on {kldiv.isa()}, rows of {', '.join(map(str, WIDTHS))} classes")
