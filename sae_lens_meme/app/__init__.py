"""Memes in the browser: what `read` says about one, and what its latents do to the classifiers.

Nothing else imports this package but the command line, and that its command alone: gradio is an extra.
"""
