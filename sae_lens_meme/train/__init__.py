"""The `train` step: SAELens trains; this package adds the recipe, the batches and the checkpoints that survive a crash.

Importing it registers the architecture `meme_topk` with SAELens.
"""

from sae_lens_meme.train.config import TrainConfig, load_train_config
from sae_lens_meme.train.data import TrainingData, open_data
from sae_lens_meme.train.runner import MemeMultiSAETrainingRunner, MemeSAETrainingRunner
from sae_lens_meme.train.sae import MemeTopKTrainingSAE, MemeTopKTrainingSAEConfig
from sae_lens_meme.train.step import train
from sae_lens_meme.train.stream import TokenSAETrainingRunner, train_on_positions

__all__ = [
    "MemeMultiSAETrainingRunner",
    "MemeSAETrainingRunner",
    "MemeTopKTrainingSAE",
    "MemeTopKTrainingSAEConfig",
    "TokenSAETrainingRunner",
    "TrainConfig",
    "TrainingData",
    "load_train_config",
    "open_data",
    "train",
    "train_on_positions",
]
