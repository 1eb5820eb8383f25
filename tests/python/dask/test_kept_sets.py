"""Kept sets on dask arrays: the rules, block by block; what blocks do not have is refused."""

import dask.array as da
import numpy as np
import pytest

import kldiv
import kldiv.dask as kd


def test_rules_are_applied_in_every_block():
    z = np.random.default_rng(2).normal(0, 2, (6, 40))
    lazy = da.from_array(z, chunks=(2, 10))
    labels = z.argmax(-1)
    for rule in ({"top_k": 5}, {"top_p": 0.8}, {"min_p": 0.1, "top_p": 0.9}):
        assert (kd.entropy(lazy, **rule).compute() == kldiv.entropy(z, **rule)).all()
        found = kd.gather_log_probs(lazy, labels, **rule).compute()
        assert (found == kldiv.gather_log_probs(z, labels, **rule)).all()
    for option in ({"support": [[0]] * 6}, {"top_k": 2, "return_mass": True}):
        with pytest.raises(TypeError, match=r"is not for dask arrays: dask\.array\.map_blocks"):
            kd.entropy(lazy, **option)
