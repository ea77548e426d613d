"""How the site is built: `make docs`, warnings as errors. Pages are Markdown; the API reference is the docstrings."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging

import s3_checkpoint
import s3_checkpoint.langgraph  # before autodoc does it with TYPE_CHECKING on, which pydantic's models do not take

HERE = Path(__file__).parent
ROOT = HERE.parent
SOURCE = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Source"]

project = "s3_checkpoint"
author = "The s3-checkpoint authors"
version = release = s3_checkpoint.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = f"s3_checkpoint {release}"
html_theme_options = {"source_repository": SOURCE, "source_branch": "main", "source_directory": "docs/"}
copybutton_prompt_text = r"\$ "
copybutton_prompt_is_regexp = True

myst_enable_extensions = ["attrs_block", "colon_fence", "deflist"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "undoc-members": True, "show-inheritance": True}
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Requests", "Source"]
python_use_unqualified_type_names = True
suppress_warnings = ["ref.python"]  # `bytes` is a type and also a field of several values

LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!https?:|mailto:|#|<)([^)\s#]+)(#[^)\s]*)?\)")


def link_to_the_repository(app: Sphinx, name: str, source: list[str]) -> None:
    """Links that lead out of `docs/` (to a test, a file of `infra/`) become links to the repository.

    A page that only includes a file from the top of the repository becomes that file.
    """
    page = Path(app.env.doc2path(name))
    included = re.fullmatch(r"```{include} (\S+)\n```\n", source[0])
    origin = (page.parent / included[1]).resolve() if included else page
    text = origin.read_text() if included else source[0]

    def absolute(match: re.Match[str]) -> str:
        label, path, anchor = match[1], match[2], match[3] or ""
        target = (origin.parent / path).resolve()
        if not target.exists():
            logging.getLogger(__name__).warning("no such file: %s", path, location=name)
        if target.is_relative_to(HERE):
            return f"[{label}]({os.path.relpath(target, page.parent)}{anchor})"
        kind = "tree" if target.is_dir() else "blob"
        return f"[{label}]({SOURCE}/{kind}/main/{target.relative_to(ROOT).as_posix()}{anchor})"

    app.env.note_dependency(str(origin))
    source[0] = LINK.sub(absolute, text)


def as_restructured_text(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Docstrings mark code with single backticks and by indentation, as Markdown does."""
    text = re.sub(r"^(\S+ .*)([:.])\n\n(?= {4}\S)", r"\1\2\n\n::\n\n", "\n".join(lines), flags=re.MULTILINE)
    parts = re.split(r"(`[^`]+`)", text)
    parts[::2] = [re.sub(r"(?<!\\)([*|])", r"\\\1", part) for part in parts[::2]]
    for index in range(1, len(parts), 2):
        before = "\\ " if parts[index - 1][-1:].isalnum() else ""
        after = "\\ " if parts[index + 1][:1].isalnum() else ""
        code = " ".join(parts[index].strip("`").split())
        parts[index] = f"{before}``{code}``{after}"
    lines[:] = "".join(parts).split("\n")


def setup(app: Sphinx) -> None:
    """Registers both."""
    app.connect("source-read", link_to_the_repository)
    app.connect("autodoc-process-docstring", as_restructured_text, priority=100)
