from .options import ReadOptions as ReadOptions
from .reader import MemeReader as MemeReader, read_meme as read_meme
from .reading import Reading as Reading
