"""The instrumented models, imported as `sae_lens_meme.hooks`."""

if __name__ == "hooks":
    raise ImportError("this folder is the package sae_lens_meme.hooks; write `from sae_lens_meme.hooks import ...`")
