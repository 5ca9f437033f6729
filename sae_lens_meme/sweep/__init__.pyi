from .options import SweepOptions as SweepOptions
from .step import Sweep as Sweep, sweep as sweep
