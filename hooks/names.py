"""Every hook point of the instrumented models, spelled once.

Activations are `(batch, positions, d)`; where nothing is said, one meme is one position. No name holds `hook_q`, `hook_k`, `hook_v` or
`hook_z`: SAELens' evaluations look for these substrings and reshape what matches.
"""

from __future__ import annotations

IMAGE_EMBED = "hook_image_embed"  # d_image: CLIP's projected image embedding
TEXT_EMBED = "hook_text_embed"  # d_text: projected (fusion clip) or un-projected (fusion memeclip) text
IMAGE_PROJ = "hook_image_proj"  # d_map: image_map output (memeclip only)
TEXT_PROJ = "hook_text_proj"  # d_map: text_map output (memeclip only)
IMAGE_ADAPTED = "hook_image_adapted"  # d_map: after the residual adapter (memeclip only)
TEXT_ADAPTED = "hook_text_adapted"  # d_map: after the residual adapter (memeclip only)
IMAGE_UNIT = "hook_image_unit"  # d: divided by its L2 norm
TEXT_UNIT = "hook_text_unit"  # d: divided by its L2 norm
FUSED = "hook_fused"  # d: image_unit * text_unit, elementwise
PRE_OUTPUT = "hook_pre_output"  # d_map: the head's hidden layer, after ReLU (memeclip only)
LOGITS = "hook_logits"  # n_classes: the head's output

IMAGE_RESID = "hook_image_resid"  # .{layer}: (batch, patches + 1, width) after the block
TEXT_RESID = "hook_text_resid"  # .{layer}: (batch, tokens, width) after the block

PROJECTED = "hook_projected"  # (pictures or tiles, patches, d_text): what the text model gets of a picture
DECODER_RESID = (
    "hook_decoder_resid"  # .{layer}: (batch, positions, d) after the block, cross-attention and MLP included
)
DECODER_CROSS = "hook_decoder_cross"  # .{layer}: what cross-attention adds in the block (captioners)

EMBEDDING_HOOKS = (IMAGE_EMBED, TEXT_EMBED, FUSED)  # the columns that `embed` writes

NO_MODEL = ("arrays", "embeddings", "planted vectors", "unknown")
"""What embeddings and SAEs give as their model's name where vectors were given."""

DEMO_ENCODER, CROWDED_ENCODER = "demo-encoder", "crowded-encoder"
PLANTED_ENCODERS = {DEMO_ENCODER: "encoder", CROWDED_ENCODER: "crowded_encoder"}
"""Models that know the planted memes of one world and nothing else, and their folders in `planted`."""
