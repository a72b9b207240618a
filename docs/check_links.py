"""Check that every link inside the built pages leads somewhere: file, and anchor in it.

python docs/check_links.py docs/_build/html
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """Links and anchors of a page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.anchors = [], {"", "top"}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value)
            elif name in ("href", "src") and value:
                self.links.append(value)


def broken_links(root):
    """(page, link) of every link to a file or an anchor that does not exist."""
    files = [path for path in Path(root).rglob("*.html") if "_static" not in path.parts]
    pages = {path.resolve(): Page(path.read_text("utf-8")) for path in files}
    found = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link.startswith("//"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists() or (
                target in pages and unquote(parts.fragment) not in pages[target].anchors
            ):
                found.append((path, link))
    return len(pages), found


if __name__ == "__main__":
    n_pages, found = broken_links(sys.argv[1])
    for path, link in found:
        sys.stderr.write(f"{path}: broken link {link}\n")
    sys.stderr.write(f"{n_pages} pages, {len(found)} broken links\n")
    sys.exit(bool(found) or n_pages == 0)
