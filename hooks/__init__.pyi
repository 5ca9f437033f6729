from .base import Hook as Hook, HookedModel as HookedModel
from .checkpoint import read_memeclip_checkpoint as read_memeclip_checkpoint, save_memeclip_heads as save_memeclip_heads
from .fit import train_memeclip_head as train_memeclip_head
from .memeclip import MemeCLIPHeads as MemeCLIPHeads, fuse as fuse
from .model import HookedMemeCLIP as HookedMemeCLIP
from .positions import (
    PositionRows as PositionRows,
    PositionSource as PositionSource,
    position_tokens as position_tokens,
)
from .registry import find as find, register as register, registered as registered, unregister as unregister
from .sources import EmbeddingSource as EmbeddingSource, MemeSource as MemeSource
from .towers import Towers as Towers, load_local_towers as load_local_towers, load_towers as load_towers
from .vlm import HookedVLM as HookedVLM
