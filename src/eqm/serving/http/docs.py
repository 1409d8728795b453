"""`/docs`: the OpenAPI document as a page that needs no script and no other host."""

from __future__ import annotations

import json
import re
from html import escape
from typing import Any

PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/style.css">
<link rel="stylesheet" href="/docs/style.css">
</head>
<body>
<main>
<h1>{title}</h1>
{body}
</main>
</body>
</html>
"""
STYLE = """\
body > main { max-width: 64rem; margin: 0 auto; padding: 1rem; }
h2 { margin-top: 2.5rem; overflow-wrap: anywhere; }
pre { overflow-x: auto; padding: .75rem; border: 1px solid; border-radius: .4rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { text-align: left; vertical-align: top; padding: .35rem .9rem .35rem 0; }
td:last-child { min-width: 16rem; }
tr + tr > td { border-top: 1px solid color-mix(in srgb, currentColor 25%, transparent); }
"""


def page(document: dict[str, Any]) -> str:
    """The HTML page of an OpenAPI document."""
    schemas = document["components"]["schemas"]
    parts = [_paragraphs(document["info"]["description"])]
    parts.append('<p>For programs: <a href="/openapi.json">openapi.json</a>.</p>')
    contents: list[str] = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            name, anchor = (
                f"{method.upper()} {path}",
                f"{method}{re.sub(r'[^a-z0-9]+', '-', path).rstrip('-')}",
            )
            contents.append(
                f'<li><a href="#{anchor}"><code>{escape(name)}</code></a> {escape(operation["summary"])}</li>'
            )
            parts.append(f'<h2 id="{anchor}"><code>{escape(name)}</code></h2>')
            parts.append(f"<p>{escape(operation['summary'])}.</p>")
            parts.append(_paragraphs(operation.get("description", "")))
            parts += _body(path, operation, schemas)
            parts += _answer(operation)
    parts.insert(1, f"<ul>{''.join(contents)}</ul>")
    parts.append("<h2>Types</h2>")
    used = json.dumps(schemas)
    for name, schema in schemas.items():
        if not name.endswith("Ask") and (f"schemas/{name}" in used or name in _answers(document)):
            parts.append(f'<h3 id="{name}">{name}</h3>')
            parts.append(_paragraphs(schema.get("description", "").partition("(")[0]))
            parts.append(_table(schema, schemas))
    return PAGE.format(
        title=f"{escape(document['info']['title'])}: the interface", body="\n".join(parts)
    )


def _body(path: str, operation: dict[str, Any], schemas: dict[str, Any]) -> list[str]:
    parts = []
    for kind, media in operation.get("requestBody", {}).get("content", {}).items():
        for schema in media["schema"].get("allOf", [media["schema"]]):
            parts.append(_table(_resolved(schema, schemas), schemas))
        if "example" in media and kind == "application/json":
            example = json.dumps(media["example"])
            parts.append(
                f"<pre>curl localhost:8000{path} -d '{escape(example, quote=False)}'</pre>"
            )
    return parts


def _answer(operation: dict[str, Any]) -> list[str]:
    found = operation["responses"].get("200", {}).get("content", {})
    links = [
        f'<a href="#{_name(media["schema"])}">{_name(media["schema"])}</a>'
        for media in found.values()
        if "$ref" in media["schema"]
    ]
    return [f"<p>Answer: {' or '.join(links)}.</p>"] if links else []


def _answers(document: dict[str, Any]) -> set[str]:
    """The names of the types of answers."""
    return set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document["paths"])))


def _table(schema: dict[str, Any], schemas: dict[str, Any]) -> str:
    rows = []
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        default = "needed" if name in required else _plain(field.get("default"))
        about = _coded(field.get("description", ""))
        cells = (f"<code>{escape(name)}</code>", _words(field, schemas), default, about)
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "<tr><th>name</th><th>type</th><th>default</th><th>meaning</th></tr>"
    return f'<div class="wide"><table>{head}{"".join(rows)}</table></div>' if rows else ""


def _words(schema: dict[str, Any], schemas: dict[str, Any]) -> str:
    """A type in plain words."""
    if "$ref" in schema:
        return f'<a href="#{_name(schema)}">{_name(schema)}</a>'
    for union in ("anyOf", "allOf"):
        if union in schema:
            return " or ".join(dict.fromkeys(_words(each, schemas) for each in schema[union]))
    if "enum" in schema:
        return " or ".join(f"<code>{escape(json.dumps(each))}</code>" for each in schema["enum"])
    if "const" in schema:
        return f"<code>{escape(json.dumps(schema['const']))}</code>"
    if schema.get("type") == "array":
        items = schema.get("items") or {}
        return f"list of {_words(items, schemas)}" if items else "list"
    words = {
        "integer": "whole number",
        "number": "number",
        "string": "file" if schema.get("format") == "binary" else "text",
        "boolean": "true or false",
        "null": "null",
        "object": "object",
    }.get(schema.get("type", ""), "anything")
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    above = " above" if "exclusiveMinimum" in schema else " from"
    below = " below" if "exclusiveMaximum" in schema else " to"
    return (
        words
        + (f"{above} {low:,}" if low is not None else "")
        + (f"{below} {high:,}" if high is not None and high < 2**53 else "")
    )


def _resolved(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = schemas[_name(schema)] if "$ref" in schema else schema
    return found


def _name(schema: dict[str, Any]) -> str:
    return str(schema["$ref"]).rpartition("/")[2]


def _plain(default: Any) -> str:
    return "" if default in (None, {}, []) else f"<code>{escape(json.dumps(default))}</code>"


def _paragraphs(text: str) -> str:
    """Text with paragraphs and code in backquotes as HTML."""
    return "".join(f"<p>{part}</p>" for part in re.split(r"\n\s*\n", _coded(text.strip())) if part)


def _coded(text: str) -> str:
    """Text as HTML, with code in backquotes."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))
