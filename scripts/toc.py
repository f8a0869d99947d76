"""Write the tables of contents of a glossary's files, between `<!-- toc -->` and `<!-- /toc -->`.

Usage: python scripts/toc.py [--check] [corpus]
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from jargon_rag.glossary import glossary_files, read_documents

TOC = re.compile(r"<!-- toc -->\n.*?<!-- /toc -->\n\n?", re.DOTALL)


def with_toc(file: Path) -> str:
    """Return a file's text with its table of contents, before the first entry."""
    text = TOC.sub("", file.read_text("utf-8"))
    (document,) = read_documents(file)
    links = "".join(f"* [{section.term}](#{section.slug})\n" for section in document.terms)
    head, heading, rest = text.partition("\n## ")
    return f"{head.rstrip()}\n\n<!-- toc -->\n{links}<!-- /toc -->\n{heading}{rest}"


def main() -> None:
    """Write them, or with --check fail when one is stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", nargs="?", type=Path, default=Path("corpus"))
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    stale = [file for file in glossary_files(options.corpus) if with_toc(file) != file.read_text("utf-8")]
    if options.check and stale:
        sys.exit(f"Stale table of contents: {', '.join(map(str, stale))}. Run: make toc")
    for file in stale:
        file.write_text(with_toc(file), "utf-8")
        print(f"{file}: table of contents written")


if __name__ == "__main__":
    main()
