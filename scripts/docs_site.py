"""Hook of mkdocs: the pages of the site that are made from the code or lie outside `docs/`.

One page a command, from the command's own help; one page a public module, from its docstrings (mkdocstrings); the
notebooks, with the output they were saved with. Links are written as they work in the repository and become links
of the site here, so that `mkdocs build --strict` refuses a broken one.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
COPIED = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
    "sae_lens_meme/evaluators/evaluation.schema.json": "evaluation.schema.json",
}
"""Files of the repository that the site shows, and where."""
MODULES = ("", ".describe", ".ocr", ".hooks", ".train", ".importers", ".evaluators", ".figures", ".read", ".export")
"""Public modules, below `sae_lens_meme`."""
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)(?=[)#\s])")


def on_config(config: Any) -> Any:
    config.extra["made"] = made = {**commands(), **python_pages(), **notebooks()}
    config.nav = [entry for entry in (filled(entry, list(made)) for entry in config.nav) if entry]
    return config


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File

    for uri, content in config.extra.pop("made").items():
        _put(files, File.generated(config, uri, content=content))
    for path, uri in COPIED.items():
        _put(files, File.generated(config, uri, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    return site_links(markdown, page.file.src_uri)


def _put(files: Any, file: Any) -> None:
    if (there := files.get_file_from_path(file.src_uri)) is not None:
        files.remove(there)
    files.append(file)


def filled(entry: Any, made: list[str]) -> Any:
    """A section of the nav in which `folder/*` has become the pages of that folder; None for one without any."""
    ((title, pages),) = entry.items()
    filled = [
        uri
        for page in pages
        for uri in ([m for m in made if m.startswith(page[:-1])] if page.endswith("/*") else [page])
    ]
    filled = [uri for uri in filled if uri.endswith(".md")]
    return {title: filled} if filled else None


def site_links(markdown: str, uri: str) -> str:
    """The page with its links to files of the repository made links of the site."""
    source = next((path for path, copy in COPIED.items() if copy == uri), f"docs/{uri}")

    def link(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), found[1]))
        target = COPIED.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        return posixpath.relpath(target, posixpath.dirname(uri) or ".") if target else found[1]

    return _LINK.sub(link, markdown)


def commands() -> dict[str, str]:
    """`commands/NAME.md` -> the help of the command, from the command line itself."""
    import typer
    from typer.main import get_command

    from sae_lens_meme.cli import build_app

    group: Any = get_command(build_app())
    context = typer.Context(group, info_name="sae-lens-meme")
    pages = {name: _command(command, context) for name, command in group.commands.items()}
    rows = [f"| [`{name}`]({name}.md) | {_line(group.commands[name].help)} |" for name in pages]
    index = ["# Commands", "", group.help, "", "| command | what it does |", "| --- | --- |", *rows, ""]
    index += _tables(group, context)
    return {"commands/index.md": "\n".join(index)} | {f"commands/{name}.md": page for name, page in pages.items()}


def _command(command: Any, parent: Any) -> str:
    context = type(parent)(command, info_name=command.name, parent=parent)
    usage = f"{context.command_path} {' '.join(command.collect_usage_pieces(context))}"
    return "\n".join(
        [f"# {command.name}", "", command.help, "", "```console", f"$ {usage}", "```", "", *_tables(command, context)]
    )


def _tables(command: Any, context: Any) -> list[str]:
    """Arguments and options with their help, each as a table."""
    lines = []
    for title, kind in (("Arguments", "argument"), ("Options", "option")):
        records = [p.get_help_record(context) for p in command.params if p.param_type_name == kind]
        rows = [f"| `{_cell(name)}` | {_cell(_text(help))} |" for name, help in filter(None, records)]
        lines += [f"## {title}", "", f"| {kind} | what it does |", "| --- | --- |", *rows, ""] if rows else []
    return lines


def _line(help: str) -> str:
    return _cell(" ".join(help.split("\n\n")[0].split()))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _text(help: str) -> str:
    """Help is plain text: nothing in it is markup."""
    return re.sub(r"([*_<\[\]`])", r"\\\1", help)


def python_pages() -> dict[str, str]:
    """`api/NAME.md` -> what mkdocstrings is to show: the public names of each public module."""
    pages = {}
    for suffix in MODULES:
        name = f"sae_lens_meme{suffix}"
        module = import_module(name)
        shown = [f"::: {place}" for place in dict.fromkeys(_places(module))]
        pages[f"api/{name}.md"] = "\n\n".join([f"# {name}", module.__doc__ or "", *shown, ""])
    return pages


def _places(module: Any) -> Iterator[str]:
    """Where the public names of a module are defined; an evaluator is one too."""
    for name in module.__all__:
        found = getattr(module, name)
        home = getattr(found, "__module__", None)
        yield f"{home}.{found.__qualname__}" if home and hasattr(found, "__qualname__") else f"{module.__name__}.{name}"
    if module.__name__ == "sae_lens_meme.evaluators":
        for name in module.names():
            found = module.find(name)
            yield f"{found.__module__}.{found.__qualname__}"


def notebooks() -> dict[str, str | bytes]:
    """`notebooks/NAME.md` and its pictures, from `docs/notebooks/*.ipynb`: nothing is run."""
    from nbconvert import MarkdownExporter

    pages: dict[str, str | bytes] = {}
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        body, resources = MarkdownExporter().from_filename(str(path), {"unique_key": path.stem})
        pages[f"notebooks/{path.stem}.md"] = body
        pages |= {f"notebooks/{name}": content for name, content in resources["outputs"].items()}
    return pages
