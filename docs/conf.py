"""The documentation: ``sphinx-build -W --keep-going -b html docs build/site``.

The site needs no network: fonts are the reader's, formulas are MathML, the search index is a script beside
the pages, and pages open from a folder as well as from a server.
"""

from __future__ import annotations

import sys
from pathlib import Path

import rattention

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "rattention"
copyright = "the authors of rattention"
version = release = rattention.__version__
extensions = [
    "commands",
    "formulas",
    "modules",
    "myst_parser",
    "optional",
    "repository",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["extensions", "requirements.txt"]

myst_enable_extensions = ["attrs_inline", "deflist", "dollarmath"]
myst_heading_anchors = 4
myst_dmath_double_inline = True

# Docstrings: `name` refers to what has that name, in the same module first.
default_role = "py:obj"
autodoc_member_order = "groupwise"
autodoc_typehints = "signature"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_param = False
napoleon_custom_sections = ["Returns", "Yields"]  # prose, not lists of types
python_maximum_signature_line_length = 80
add_module_names = False
toc_object_entries_show_parents = "hide"

smartquotes = False

html_theme = "furo"
html_title = "rattention"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_copyright = html_show_sphinx = html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
