from .options import AttributeOptions as AttributeOptions
from .step import attribute as attribute
