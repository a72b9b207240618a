"""Settings of the documentation; build it with ``make docs``."""

import os
import re
import sys
from datetime import date
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import pictures
import torch
from sphinx_gallery.sorting import ExplicitOrder

from proportion_ssl import __version__

pictures.draw(Path(__file__).parent / "_pictures")
torch.set_num_threads(1)  # the gallery's data are too small to be worth a second thread

project = "proportion_ssl"
author = "the proportion_ssl developers"
copyright = f"{date.today().year}, {author}"
version = release = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "mathml",  # mathml.py beside this file
    "numpydoc",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build"]
default_role = "code"

autosummary_generate = True
autodoc_typehints = "none"  # types stand in the docstrings, with shapes and units
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

nitpicky = True
nitpick_ignore_regex = [  # names of other projects; the build needs no network to look them up
    (r"py:obj", r"signed_labels_|label_rounds_"),  # numpydoc links properties among the attributes
    (r"py:.*", r"(skorch|sklearn|torch|torchvision|numpy|pandas|matplotlib|joblib|h5py)\..*"),
]

#: Folders of examples, by what a user wants to do.
GALLERY = ("first_steps", "own_data", "understanding", "extending", "scaling")
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/plot_",
    "ignore_pattern": r"segment_slides\.py",
    "subsection_order": ExplicitOrder([f"../examples/{folder}" for folder in GALLERY]),
    "within_subsection_order": "FileNameSortKey",
    "thumbnail_size": (400, 280),
    "abort_on_example_error": True,
    "show_memory": False,
    "show_signature": False,
    "reset_modules": ("matplotlib", "seaborn"),
    "plot_gallery": "True",
}
suppress_warnings = ["config.cache"]


def _skip_member(app, what, name, member, skip, options):
    """Leave out what scikit-learn generates for metadata routing; its text refers to its own pages."""
    return True if re.fullmatch(r"set_\w+_request", name) else None


#: Words of the public names that are neither classes nor functions; autodoc would show those of their type.
CONSTANTS = {
    "proportion_ssl.PAPER_SETTINGS": (
        "Settings that the paper states: "
        "``NegativePseudoLabelClassifier(**PAPER_SETTINGS)``; see :doc:`/guide/defaults`."
    ),
    "proportion_ssl.evaluation.IASLC_2020": (
        "Grades of lung adenocarcinoma by the IASLC, 2020: a "
        ":class:`~proportion_ssl.evaluation.GradingScheme`."
    ),
    "proportion_ssl.metrics.mean_iou_scorer": (
        "Scorer of :func:`~proportion_ssl.mean_iou_score`, for ``scoring=`` of scikit-learn."
    ),
    "proportion_ssl.metrics.overall_pixel_scorer": (
        "Scorer of :func:`~proportion_ssl.overall_pixel_score`, for ``scoring=`` of scikit-learn."
    ),
    "proportion_ssl.metrics.per_class_scorer": (
        "Scorer of :func:`~proportion_ssl.per_class_score`, for ``scoring=`` of scikit-learn."
    ),
    "proportion_ssl.metrics.proportion_error_scorer": (
        "Scorer of minus :func:`~proportion_ssl.metrics.proportion_error`; it takes the bag of each "
        "instance as ``groups``, by metadata routing."
    ),
    "proportion_ssl.slides.MPP_AT_1X": (
        "Microns per pixel at a magnification of 1x, by convention; 10x are 1 micron per pixel."
    ),
}


def _constant(app, what, name, obj, options, lines):
    """Describe a constant; a new one without words ends the build."""
    if what == "data":
        lines[:] = [CONSTANTS[name], ""]


def setup(app):
    app.connect("autodoc-skip-member", _skip_member)
    app.connect("autodoc-process-docstring", _constant)


html_math_renderer = "mathml"
html_static_path = ["_static"]
html_theme = "pydata_sphinx_theme"
html_title = "proportion_ssl"
html_show_sourcelink = False
html_theme_options = {"show_prev_next": False, "secondary_sidebar_items": ["page-toc"]}
