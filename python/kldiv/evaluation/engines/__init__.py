"""Where the sequences of an evaluation are scored: this process, or workers of Dask.

A run is cut into *blocks* of whole sequences (`job`). A block is scored by the functions that score
everything (`kldiv.evaluation.positions`) to a table of positions, which depends on nothing but its
rows; the tables are joined in the order of the blocks. So any partition, engine, interruption and
number of threads gives the same bits. A directory (`work`) keeps the blocks that are finished.
"""
