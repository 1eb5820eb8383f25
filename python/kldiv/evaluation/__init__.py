"""How far a model is from its reference: dumps of both, a table of positions, and statistics.

Dumps (`kldiv.evaluation.dumps`) are read by sequences and blocks, scored to one row a position
(`kldiv.evaluation.positions`), and every statistic (`kldiv.evaluation.statistics`) is a function
of that table.
"""

from kldiv.evaluation.dumps.formats import open_dump as open_dump
from kldiv.evaluation.engines.errors import EngineError as EngineError
from kldiv.evaluation.evaluate_dumps import EvaluationInterrupted as EvaluationInterrupted
from kldiv.evaluation.evaluate_dumps import ImprobableTextWarning as ImprobableTextWarning
from kldiv.evaluation.evaluate_dumps import evaluate as evaluate
from kldiv.evaluation.evaluation import Evaluation as Evaluation
from kldiv.evaluation.evaluation import read_positions as read_positions
from kldiv.evaluation.models.evaluating import evaluate_models as evaluate_models
