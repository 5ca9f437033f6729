"""The page: pick or upload a meme, read it, and change the strength of its latents."""

from __future__ import annotations

from typing import Any

import gradio as gr  # pyright: ignore[reportMissingImports]

from sae_lens_meme.app.memes import MOST_FOUND, Memes
from sae_lens_meme.app.page import NOTHING_ACTIVE, framed, steered_html, trouble
from sae_lens_meme.app.steering import STRONGEST, SteeredMeme, Steering
from sae_lens_meme.errors import MemeError
from sae_lens_meme.evaluators.base import same_threads
from sae_lens_meme.images import FORMATS, open_image, small_webp
from sae_lens_meme.read import MemeReader
from sae_lens_meme.report.blocks import number, visible
from sae_lens_meme.report.reading import reading_html

MEGABYTES = 10
"""Of an upload, at most."""
MOST_CHARACTERS = 2000
"""Of a caption."""
KEPT = 3600
"""How many seconds an upload and its reading are kept."""
PICK = f"Meme (held-out memes first, at most {MOST_FOUND}: find others by words)"
NOTICE = (
    "Pictures are blurred and captions hidden until you ask for them: memes can hurt. "
    "What you upload stays on the computer that runs this, until it ends or an hour has passed."
)
_HIDDEN: dict[str, Any] = {"api_visibility": "private"}


def uploaded_only(file: gr.File) -> gr.File:
    """Take nothing but uploaded bytes: gradio would fetch an address that a request names in place of a file.

    Not a subclass: gradio writes a stub beside the module of each.
    """
    keep = file.async_move_resource_to_block_cache

    async def keep_uploads(url_or_file_path: Any) -> str | None:
        if "://" in str(url_or_file_path):
            raise gr.Error("got a URL in place of a picture; upload the file", print_exception=False)
        return await keep(url_or_file_path)

    file.async_move_resource_to_block_cache = keep_uploads
    return file


class Interface:
    """Handlers of the page; each returns what it changes.

    Args:
        memes: those that can be picked, None without a corpus.
    """

    def __init__(self, reader: MemeReader, memes: Memes | None):
        self._reader, self._memes, self._steering = reader, memes, Steering(reader)

    def blocks(self) -> gr.Blocks:
        with gr.Blocks(analytics_enabled=False, title="sae-lens-meme", delete_cache=(KEPT, KEPT)) as page:
            gr.HTML(f"<h1>What the model sees in a meme</h1><p>{NOTICE}</p>")
            meme = gr.State(None, time_to_live=KEPT)
            asked = []
            if self._memes is not None:
                with gr.Tab("A meme from the corpus"):
                    asked.append(self._corpus(self._memes))
            with gr.Tab("Your own picture"):
                asked.append(self._upload())
            message, reading = gr.HTML(elem_id="message"), gr.HTML(elem_id="reading")
            gr.HTML("<h2>Make one latent weaker or stronger</h2>")
            with gr.Row():
                latent = gr.Dropdown([], label="Active latent", elem_id="latent", interactive=True)
                label = "Times its strength on this meme"
                strength = gr.Slider(0, STRONGEST, 1.0, step=0.1, label=label, elem_id="strength")
            steered = gr.HTML(elem_id="steered")
            for event, handler, inputs in asked:
                outputs = [message, reading, meme, latent, strength, steered]
                event(handler, inputs, outputs, concurrency_id="model", concurrency_limit=1, **_HIDDEN)
            for event in (latent.input, strength.input):
                quick: Any = {"show_progress": "hidden", "trigger_mode": "always_last"}
                event(self.steer, [meme, latent, strength], steered, **quick, **_HIDDEN)
        page.queue(api_open=False, default_concurrency_limit=1)
        return page

    def _corpus(self, memes: Memes) -> tuple[Any, Any, list[Any]]:
        words = gr.Textbox(
            label="Find memes by words of their id or caption", elem_id="find", max_length=MOST_CHARACTERS
        )
        chosen = gr.Dropdown(memes.find(""), label=PICK, value=None, elem_id="meme", interactive=True)

        def find(text: str) -> Any:
            found = memes.find(text)
            return gr.Dropdown(choices=found, value=None, label=PICK if found else "No meme has these words")

        words.submit(find, words, chosen, **_HIDDEN)
        return chosen.input, self.pick, [chosen]

    def _upload(self) -> tuple[Any, Any, list[Any]]:
        formats = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        label = f"Picture: {formats}, at most {MEGABYTES} MB"
        file = uploaded_only(gr.File(label=label, type="binary", elem_id="upload"))
        caption = gr.Textbox(label="Its caption", elem_id="caption", max_length=MOST_CHARACTERS)
        ocr = gr.Checkbox(True, label="Without a caption, read it from the picture", elem_id="ocr")
        return gr.Button("Read it", variant="primary", elem_id="read").click, self.upload, [file, caption, ocr]

    def pick(self, row: int | None) -> tuple[Any, ...]:
        """A meme of the corpus."""
        if row is None or self._memes is None:
            return self._nothing("Pick a meme.")
        return self._shown(*self._memes.pick(row))

    def upload(self, picture: bytes | None, caption: str, ocr: bool) -> tuple[Any, ...]:
        """An uploaded picture."""
        if picture is None:
            return self._nothing("Upload a picture first.")
        return self._shown(picture, caption.strip() or (None if ocr else ""))

    @same_threads()
    def steer(self, meme: SteeredMeme | None, latent: int | None, multiplier: float) -> str:
        """What the classifiers say then."""
        if meme is None or latent is None:
            return ""
        return steered_html(meme, latent, multiplier, self._steering.no_head)

    @same_threads()
    def _shown(self, picture: bytes, caption: str | None) -> tuple[Any, ...]:
        try:
            image = open_image(picture, name="the picture")
            look = self._reader.look(picture, caption)
        except MemeError as error:
            return self._nothing(str(error))
        meme = self._steering.of(look)
        page = framed(reading_html(look.reading.to_dict(), *small_webp(image)))
        if not meme.strengths:
            return trouble(NOTHING_ACTIVE), page, None, gr.Dropdown(choices=[], value=None), 1.0, ""
        choices = [(self._called(latent, value), latent) for latent, value in meme.strengths]
        first = choices[0][1]
        return "", page, meme, gr.Dropdown(choices=choices, value=first), 1.0, self.steer(meme, first, 1.0)

    def _called(self, latent: int, activation: float) -> str:
        name = self._reader.measured.name(latent)
        called = f" {name.name}{'' if name.holds else ' (no evidence)'}" if name.name else ""
        return visible(f"{latent}{called}, activation {number(activation)}")

    def _nothing(self, message: str) -> tuple[Any, ...]:
        return trouble(message), "", None, gr.Dropdown(choices=[], value=None), 1.0, ""
