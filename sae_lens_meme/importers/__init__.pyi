from .abstopk import abstopk_loader as abstopk_loader
from .dictionary_learning import dictionary_learning_loader as dictionary_learning_loader
from .intervlm import intervlm_loader as intervlm_loader
from .options import FORMATS as FORMATS, ImportOptions as ImportOptions
from .patchsae import patchsae_loader as patchsae_loader
from .saelens_checkpoint import saelens_checkpoint_loader as saelens_checkpoint_loader
from .saelens_v import Calibration as Calibration, calibrate as calibrate, saelens_v_loader as saelens_v_loader
from .saev import saev_loader as saev_loader
from .sparsify import sparsify_loader as sparsify_loader
from .step import import_sae as import_sae
from .table import converter_of as converter_of
from .vit_gpt2 import vit_gpt2_loader as vit_gpt2_loader
from .vit_prisma import vit_prisma_loader as vit_prisma_loader
