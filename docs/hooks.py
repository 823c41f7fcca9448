"""What the pages need beyond Markdown: references out of names, formulas without scripts."""

import html
import re
import textwrap

from griffe import Extension
from latex2mathml.converter import convert
from mkdocs.structure.files import File


def on_files(files, config):
    """Writes each page `api/NAME.md` that the navigation names and nobody wrote."""
    for path in re.findall(r"'(api/[\w/]+\.md)'", str(config.nav)):
        if files.get_file_from_path(path) is None:
            name = path.removeprefix("api/").removesuffix(".md").replace("/", ".")
            text = f"# {name}\n\n::: seqlatent.{name}\n"
            files.append(File.generated(config, path, content=text))
    return files


def on_page_content(text, **_):
    """Turns every formula into MathML, which browsers draw by themselves."""
    inline = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
    block = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)
    text = inline.sub(lambda found: mathml(found[1], "inline"), text)
    return block.sub(lambda found: mathml(found[1], "block"), text)


def mathml(formula: str, display: str) -> str:
    """Converts one formula, with the environments that the converter knows under another name."""
    formula = html.unescape(formula).strip().replace("{aligned}", "{align*}")
    return convert(formula, display=display)


class Notation(Extension):
    """Reads docstrings in the notation of Sphinx, in which they are also good to read as text."""

    def on_object(self, *, obj, **_):
        """Rewrites the docstring of one object before it is parsed."""
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(text: str) -> str:
    """Rewrites formulas, roles, double backticks, and the heading of an example.

    Args:
        text: A docstring whose indentation was removed.
    """
    text = re.sub(r"^( *)\.\. math::(.*(?:\n(?: *|\1 +.*))*)", block_formula, text, flags=re.M)
    text = re.sub(r":math:`([^`]+)`", r"$\1$", text)
    text = re.sub(r":[a-z:]+:`~?([^`]+)`", r"`\1`", text)
    text = re.sub(r"``([^`]+)``", r"`\1`", text)
    return re.sub(r"^( *)Example:", r"\1Examples:", text, flags=re.M)


def block_formula(found: re.Match) -> str:
    """Puts a formula between double dollars, indented as before, between empty lines."""
    indent, body = found[1], textwrap.dedent(found[2]).strip()
    return textwrap.indent(f"\n$$\n{body}\n$$\n\n", indent)
