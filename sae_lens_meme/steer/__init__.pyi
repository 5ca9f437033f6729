from .latents import latent_set as latent_set
from .options import SteerOptions as SteerOptions
from .run import SteeredAnswers as SteeredAnswers, steer_pictures as steer_pictures
from .step import steer as steer
