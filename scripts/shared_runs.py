"""Find runs of eight words that a glossary shares with another text, so that nothing is copied unnoticed.

Headings, tables of contents, HTML tags, summaries and code are left out on both sides. Exit status 1 if there are any.

Usage: python scripts/shared_runs.py OTHER_FILE_OR_FOLDER [--corpus corpus] [--words 8]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from jargon_rag.glossary import read_documents
from jargon_rag.terms import words


def passages(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (place, text) of everything that a glossary says."""
    for document in read_documents(path):
        for section in document.sections:
            for piece in (*section.definition, *section.turns, *section.gotchas):
                yield f"{document.path}:{piece.line}", piece.text


def main() -> None:
    """Print the shared runs and where they stand."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path)
    parser.add_argument("--corpus", type=Path, default=Path("corpus"))
    parser.add_argument("--words", type=int, default=8)
    options = parser.parse_args()
    theirs: dict[tuple[str, ...], str] = {}
    for place, text in passages(options.other):
        spoken = words(text)
        theirs.update({tuple(spoken[i : i + options.words]): place for i in range(len(spoken) - options.words + 1)})
    shared = []
    for place, text in passages(options.corpus):
        spoken = words(text)
        for start in range(len(spoken) - options.words + 1):
            run = tuple(spoken[start : start + options.words])
            if run in theirs:
                shared.append(f"{place} and {theirs[run]}: {' '.join(run)}")
    print("\n".join(shared) or f"No run of {options.words} words is shared.")
    sys.exit(bool(shared))


if __name__ == "__main__":
    main()
