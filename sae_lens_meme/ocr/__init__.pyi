from .engines import ENGINES as ENGINES, Engine as Engine, Line as Line, Piece as Piece, read_text as read_text
from .options import OcrOptions as OcrOptions
from .step import Captions as Captions, read_captions as read_captions
from .words import Word as Word, words_of as words_of
