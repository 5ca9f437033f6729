"""The server: reachable from this computer alone unless another host is given, and it sends no request anywhere."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

from sae_lens_meme.app.memes import Memes
from sae_lens_meme.app.options import LOOPBACK, AppOptions
from sae_lens_meme.errors import ConfigError
from sae_lens_meme.read import MemeReader

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; frame-src 'self'; object-src 'none'; "
    "base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
)
"""gradio writes scripts into its page and compiles templates there; no address but this server's can be asked."""
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
PATHS = re.compile(
    r"/(config|theme\.css|favicon\.ico|(assets|static)/.*|gradio_api/"
    r"(app_id|cancel|heartbeat/[^/]*|queue/(join|data)|reset|startup-events|upload|upload_progress))?"
)
"""What the page asks for. gradio offers more, such as fetching an address (`file=https://...`): that is not served."""
INSTALL = "the app needs gradio: pip install 'sae-lens-meme[app]'"


@contextmanager
def served(reader: MemeReader, memes: Memes | None, options: AppOptions) -> Iterator[str]:
    """The running application, by its address; it is closed at the end, and its uploads are deleted.

    Raises:
        ConfigError: gradio is not installed, or the port is taken.
    """
    _require_address(options)
    with TemporaryDirectory(prefix="sae-lens-meme-app-") as uploads:
        _declare_environment(uploads)
        page = _page(reader, memes)
        try:
            _, address, _ = page.launch(**_settings(options))
        except (OSError, ValueError) as error:  # also where a proxy stands before this computer's own address
            raise _cannot_listen(options, error) from None
        try:
            yield address
        finally:
            page.close(verbose=False)


def _require_address(options: AppOptions) -> None:
    """gradio tries an address that is not this computer's on a hundred ports, five seconds each."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        socket.create_server((options.host, options.port or 0), family=family).close()
    except (OSError, UnicodeError) as error:
        raise _cannot_listen(options, error) from None


def _cannot_listen(options: AppOptions, error: Exception) -> ConfigError:
    where = f"{options.host}, port {options.port or '7860 to 7959'}"
    return ConfigError(f"app: cannot listen on {where} ({error}); give another --port or --host")


def _declare_environment(uploads: str) -> None:
    """What gradio reads from the environment is set here and nowhere else."""
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": uploads, "HF_HUB_DISABLE_TELEMETRY": "1"}


def _page(reader: MemeReader, memes: Memes | None) -> Any:
    try:
        from sae_lens_meme.app.interface import Interface
    except ImportError as error:
        raise ConfigError(f"{INSTALL} ({error})") from None
    return Interface(reader, memes).blocks()


def _settings(options: AppOptions) -> dict[str, Any]:
    from starlette.middleware import Middleware  # pyright: ignore[reportMissingImports]  gradio's
    from starlette.middleware.trustedhost import TrustedHostMiddleware  # pyright: ignore[reportMissingImports]

    from sae_lens_meme.app.interface import MEGABYTES
    from sae_lens_meme.app.page import STYLE

    # A page of another site whose name points here ("DNS rebinding") could otherwise read captions.
    hosts = [*LOOPBACK] if options.host in LOOPBACK else ["*"]
    guards = [Middleware(TrustedHostMiddleware, allowed_hosts=hosts), Middleware(Guard)]
    return {
        "server_name": options.host,
        "server_port": options.port,
        "share": False,
        "max_file_size": f"{MEGABYTES}mb",
        "allowed_paths": [],
        "enable_monitoring": False,
        "mcp_server": False,
        "run_history": False,
        "ssr_mode": False,
        "pwa": False,
        "footer_links": [],
        "css": STYLE,
        "prevent_thread_lock": True,
        "quiet": True,
        "app_kwargs": {"middleware": guards},
    }


class Guard:
    """Serves `PATHS` and nothing else, and sends the policy with every answer."""

    def __init__(self, app: Any):
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *HEADERS]
            await send(message)

        if scope["type"] == "http" and not PATHS.fullmatch(scope["path"]):
            await sent({"type": "http.response.start", "status": 404})
            await sent({"type": "http.response.body", "body": b"not served"})
        else:
            await self._app(scope, receive, sent)
