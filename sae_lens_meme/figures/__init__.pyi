from .inputs import Inputs as Inputs
from .registry import NAMES as NAMES, find as find
from .write import write_figures as write_figures
