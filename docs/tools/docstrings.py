"""Docstrings of the package as Markdown, with their examples in fences."""

import re

import griffe


class Docstrings(griffe.Extension):
    def on_instance(self, *, obj, **_):
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(text):
    """The docstring with a fence around each paragraph that is a doctest."""
    paragraphs = re.split(r"\n{2,}", text)
    return "\n\n".join(
        f"```pycon\n{p}\n```" if p.lstrip().startswith(">>>") else p for p in paragraphs
    )
