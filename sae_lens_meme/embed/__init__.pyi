from .from_arrays import embed_arrays as embed_arrays
from .from_corpus import embed_corpus as embed_corpus
from .in_memory import as_embeddings as as_embeddings
from .options import ArrayOptions as ArrayOptions, EmbedOptions as EmbedOptions
from .in_memory import save_embeddings as save_embeddings
from .tokens import token_rows as token_rows
