from .options import PatchFilterOptions as PatchFilterOptions, QuestionSetOptions as QuestionSetOptions
from .patches import patch_filter as patch_filter
from .questions import question_set as question_set
