from .build import (
    all_rows as all_rows,
    build_corpus as build_corpus,
    caption_of as caption_of,
    load_corpus as load_corpus,
    load_rows as load_rows,
    stream_corpus as stream_corpus,
)
from .columns import ColumnMap as ColumnMap, column_map as column_map
from .export import export_table as export_table
from .folder import read_folder as read_folder
from .hmc import read_hmc as read_hmc
from .memotion import read_memotion as read_memotion
from .notes import corpus_notes as corpus_notes
from .pridemm import read_pridemm as read_pridemm
from .rows import Reader as Reader
from .readers import READERS as READERS
from .rows import Row as Row, parse_label as parse_label, safe_path as safe_path
from .skipped import BadRow as BadRow, BadRows as BadRows
from .tables import Table as Table, read_table as read_table
