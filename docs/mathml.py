"""Equations as MathML, which browsers draw by themselves: the pages need no script and no network."""

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.errors import ExtensionError


def mathml(latex, display):
    """Markup of an equation; what the converter does not know ends the build."""
    markup = convert(latex, display=display)
    if "\\" in markup:
        raise ExtensionError(
            f"The equation {latex!r} holds a command that MathML has no words for."
        )
    return markup


def visit_inline(self, node):
    self.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def visit_block(self, node):
    self.body.append(self.starttag(node, "div", CLASS="equation"))
    self.body.append(mathml(node.astext(), "block") + "</div>\n")
    raise nodes.SkipNode


def setup(app):
    app.add_css_file("pages.css")
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
