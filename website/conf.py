"""How Sphinx builds the site: pages in MyST, docstrings in numpydoc, the theme Furo."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, NumpyDocstring
from sphinx.util import logging

from nearfar.version import VERSION

sys.path.insert(0, str(Path(__file__).parent))

from docstrings import with_bars, with_formulas

project = "nearfar"
author = "the authors of nearfar"
version = release = VERSION
html_title = "nearfar"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns: list[str] = []
default_role = "py:obj"
highlight_language = "text"

myst_heading_anchors = 4
nb_execution_mode = "cache"
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_output_stderr = "remove"
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "none"
python_use_unqualified_type_names = True
maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_show_copyright = False
html_copy_source = False
pygments_style = "tango"
pygments_dark_style = "monokai"


NUMPYDOC = Config(
    napoleon_google_docstring=False, napoleon_use_rtype=False, napoleon_use_param=False
)


def _as_rst(app: Sphinx, kind: str, name: str, of: Any, how: Any, lines: list[str]) -> None:
    """Turn a docstring into reStructuredText; those of attributes have no sections."""
    made = with_formulas(lines)
    if kind not in {"attribute", "data"}:
        made = NumpyDocstring(made, NUMPYDOC, app, kind, name, of, how).lines()
    lines[:] = with_bars(made)


def _unresolved(_app: Sphinx, _env: Any, node: nodes.Element, _text: nodes.Element) -> None:
    """Warn of a name in a page that the reference does not have; docstrings may name anything."""
    if not node["refdoc"].startswith("reference/") and node.get("refdomain") == "py":
        logging.getLogger(__name__).warning(
            "the reference has no %r", node["reftarget"], location=node
        )


def setup(app: Sphinx) -> None:
    """Register what docstrings pass through, and the check of names in pages."""
    app.connect("autodoc-process-docstring", _as_rst)
    app.connect("missing-reference", _unresolved)
