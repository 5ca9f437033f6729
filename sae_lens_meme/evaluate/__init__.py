"""The `evaluate` step: every evaluator on one SAE, its controls beside it, results as JSON and Parquet."""

from sae_lens_meme.evaluate.content import EVALUATION, SCHEMA, numbers_table
from sae_lens_meme.evaluate.evaluation import evaluate, load_sae
from sae_lens_meme.evaluate.options import EVALUATORS

__all__ = ["EVALUATION", "EVALUATORS", "SCHEMA", "evaluate", "load_sae", "numbers_table"]
