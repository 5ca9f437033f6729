from .corpus import build_corpus as build_corpus, load_corpus as load_corpus
from .embed import as_embeddings as as_embeddings, embed_arrays as embed_arrays, embed_corpus as embed_corpus
from .embeddings import Embeddings as Embeddings
from .errors import MemeError as MemeError
from .evaluators.concept_alignment import concept_alignment as concept_alignment
from .evaluators.measure import measure as measure
from .hooks import HookedMemeCLIP as HookedMemeCLIP
from .importers import import_sae as import_sae
from .provenance import record_training_rows as record_training_rows
from .read import MemeReader as MemeReader, read_meme as read_meme

__version__: str
