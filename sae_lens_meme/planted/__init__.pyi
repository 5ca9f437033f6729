from .answer_key import AnswerKey as AnswerKey, read_answer_key as read_answer_key
from .dictionary import true_dictionary as true_dictionary, true_matching_pursuit as true_matching_pursuit
from .options import PlantedOptions as PlantedOptions, VectorOptions as VectorOptions
from .vectors import (
    PlantedVectors as PlantedVectors,
    answer_key_of as answer_key_of,
    planted_vectors as planted_vectors,
    write_planted_vectors as write_planted_vectors,
)
from .worlds import DEMO_ENCODER as DEMO_ENCODER
from .write import PlantedPaths as PlantedPaths, planted_paths as planted_paths, write_planted as write_planted
