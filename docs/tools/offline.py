"""Checks that a built site loads nothing from another host: `python docs/tools/offline.py site`.

Links that a reader may click do not count. What loads by itself does: scripts, stylesheets, images, frames, fonts,
@import and url() in CSS, and every address in a script, unless it stands in UNREACHED.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

# Addresses in the theme's script, and what a page must contain for the script to ask for them.
UNREACHED = {
    "https://unpkg.com/mermaid": 'class="mermaid"',
    "https://unpkg.com/resize-observer-polyfill": None,  # only browsers from before 2020
    "https://api.github.com/": 'data-md-component="source"',
    "https://${e}/api/v4/projects/": 'data-md-component="source"',  # GitLab
    "https://bit.ly/2s3ChXG": None,  # in the text of a warning
}
# Names of formats and licences, in comments or as XML namespaces: never asked for.
NAMES = ("http://www.w3.org/",)

LOADS = {"src", "srcset", "poster", "data", "background"}  # attributes that load, in any tag
LINKS = {
    "stylesheet",
    "icon",
    "preload",
    "preconnect",
    "dns-prefetch",
    "prefetch",
    "modulepreload",
    "manifest",
}
EXTERNAL = re.compile(r"^\s*(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)
IN_STYLE = re.compile(r"""(?:url\(\s*|@import\s+)["']?([^"')\s]+)""", re.IGNORECASE)
IN_SCRIPT = re.compile(r"""(?:https?|wss?)://[^\s"'`<>\\]+|["'`]//[\w$][^\s"'`]*\.[a-z][^\s"'`]*""")


class _Page(HTMLParser):
    """Collects what a page loads."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.inside = [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = {name: value or "" for name, value in attributes}
        if tag == "link" and LINKS & set(values.get("rel", "").lower().split()):
            self.loads.append(values.get("href", ""))
        for name in LOADS & set(values):
            parts = values[name].split(",") if name == "srcset" else [values[name]]
            self.loads.extend(part.strip() for part in parts)
        self.loads.extend(IN_STYLE.findall(values.get("style", "")))
        if tag in ("image", "use"):
            self.loads.extend(values.get(name, "") for name in ("href", "xlink:href"))
        if tag == "meta" and values.get("http-equiv", "").lower() == "refresh":
            self.loads.append(values.get("content", "").partition("=")[2])
        self.inside = tag if tag in ("script", "style") else None

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, text):
        if self.inside == "style":
            self.loads.extend(IN_STYLE.findall(text))
        elif self.inside == "script":
            self.loads.extend(addresses(text))


def addresses(script):
    """The addresses of other hosts in a script, but for those in comments."""
    script = re.sub(r"/\*.*?\*/|(?m:(?:^|\s)//\s.*$)", "", script, flags=re.DOTALL)
    found = (match.strip("\"'`") for match in IN_SCRIPT.findall(script))
    return [address for address in found if not address.startswith(NAMES)]


def requests(site):
    """Pairs of a file of the site and what it would load from another host."""
    texts = {
        path: path.read_text(encoding="utf-8")
        for path in sorted(site.rglob("*"))
        if path.is_file() and path.suffix in (".html", ".css", ".js", ".mjs", ".svg")
    }
    pages = [text for path, text in texts.items() if path.suffix == ".html"]
    for path, text in texts.items():
        if path.suffix == ".css":
            found = [address for address in IN_STYLE.findall(text) if EXTERNAL.match(address)]
        elif path.suffix in (".js", ".mjs"):
            found = [address for address in addresses(text) if _reached(address, pages)]
        else:
            found = [address for address in _Page(text).loads if EXTERNAL.match(address)]
        yield from ((path.relative_to(site), address) for address in found)


def _reached(address, pages):
    for start, needed in UNREACHED.items():
        if address.startswith(start):
            return needed is not None and any(needed in page for page in pages)
    return True


def main():
    site = Path(sys.argv[1])
    if not (site / "index.html").exists():
        sys.exit(f"{site} holds no site: run make docs")
    found = list(requests(site))
    for path, address in found:
        print(f"{path} loads {address}", file=sys.stderr)
    if found:
        sys.exit(f"the site asks other hosts for {len(found)} things: remove them")


if __name__ == "__main__":
    main()
