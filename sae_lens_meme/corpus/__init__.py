"""From folders of memes to one Hugging Face `DatasetDict` on disk, one row a meme."""

from sae_lens_meme.corpus.build import build_corpus, caption_of, load_corpus, load_rows
from sae_lens_meme.corpus.columns import column_map
from sae_lens_meme.corpus.folder import read_folder
from sae_lens_meme.corpus.hmc import read_hmc
from sae_lens_meme.corpus.memotion import read_memotion
from sae_lens_meme.corpus.merge import Merged, merge
from sae_lens_meme.corpus.pridemm import read_pridemm
from sae_lens_meme.corpus.rows import BadRow, BadRows, Row, parse_label, safe_path
from sae_lens_meme.corpus.schema import corpus_features
from sae_lens_meme.corpus.tables import Table, read_table

__all__ = [
    "BadRow",
    "BadRows",
    "Merged",
    "Row",
    "Table",
    "build_corpus",
    "caption_of",
    "column_map",
    "corpus_features",
    "load_corpus",
    "load_rows",
    "merge",
    "parse_label",
    "read_folder",
    "read_hmc",
    "read_memotion",
    "read_pridemm",
    "read_table",
    "safe_path",
]
