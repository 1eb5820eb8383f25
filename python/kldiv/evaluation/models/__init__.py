"""Language models straight from transformers: scored as they run, or captured to a dump.

A text (`texts`) is tokenized (`tokenizer`) and cut into windows (`windows`); models are found
(`checkpoint`), loaded (`loading`) and run (`language_model`), and stand as dumps (`dump`) before
`kldiv.evaluate`. What is imported here needs NumPy and Polars only; torch and transformers are
imported when a model is looked up.
"""

from kldiv.evaluation.models.capture import Captured as Captured
from kldiv.evaluation.models.capture import capture as capture
from kldiv.evaluation.models.evaluating import evaluate_models as evaluate_models
from kldiv.evaluation.models.language_model import LanguageModel as LanguageModel
