"""How far a model is from its reference: dumps of both, a table of positions, and statistics.

Dumps (`kldiv.evaluation.dumps`) are read by sequences and blocks, scored to one row a position
(`kldiv.evaluation.positions`), and every statistic (`kldiv.evaluation.statistics`) is a function
of that table.
"""
