"""Statistics of the table of positions: one file each, each a function of that table alone.

They read one candidate's rows in the order of sequences and positions, and sum them in that order:
the same bits for any block size, number of threads and partition of the work.
"""
