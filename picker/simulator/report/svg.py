"""A drawing as SVG that can stand beside others in one HTML page: no names that clash, no style that leaks, a title."""

import re
from io import StringIO

from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.text import Text

NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def inline(figure: Figure, name: str, title: str) -> Markup:
    """The same bytes for the same drawing, and text as it stands, no formulas.

    `name` must be unique in the page and a valid id; `title` is read out by screen readers.
    """
    out = StringIO()
    for words in figure.findobj(Text):
        words.set_parse_math(False)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "text.parse_math": False}):
        figure.savefig(out, format="svg", metadata=NO_METADATA)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    used = set(re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", text)
    text = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{name}-", text)
    label = f'<svg role="img" aria-labelledby="{name}-title"'
    text = text.replace("<svg", label, 1)
    opening = text.index(">") + 1
    return Markup(f'{text[:opening]}<title id="{name}-title">{escape(title)}</title>{text[opening:]}')
