"""Report what is wrong with a glossary, line by line, without stopping at the first fault."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from jargon_rag.glossary import Document, Section, link_target, read_documents
from jargon_rag.markdown import Link
from jargon_rag.terms import name_key, slugify, split_heading


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault: where it is, which rule it breaks, and what to do, in words."""

    path: str
    line: int
    rule: str
    term: str  # heading concerned, verbatim; "" when none is
    message: str


def lint_glossary(path: Path) -> tuple[int, list[Finding]]:
    """Return the number of entries and the findings, in reading order.

    Raises GlossaryError when a file cannot be read at all.
    """
    documents = read_documents(path)
    findings = [*_duplicates(documents)]
    for document in documents:
        findings += _table_of_contents(document)
        findings += [finding for section in document.terms for finding in _section(section, document)]
        findings += _see_also(document, documents, path)
        findings += [
            Finding(
                document.path,
                section.open_details[0],
                "unclosed-details",
                section.term,
                "<details> is never closed; add </details>.",
            )
            for section in document.sections
            if section.open_details
        ]
        findings += [
            Finding(document.path, snippet.line, "orphan-code", "", _orphan_message(snippet.text))
            for snippet in document.orphans
        ]
        findings += [
            Finding(
                document.path,
                line,
                "unclosed-code",
                "",
                "A code fence is opened here and never closed; add ``` after the code.",
            )
            for line in document.open_fences
        ]
    if not any(document.terms for document in documents):
        findings.append(
            Finding(
                documents[0].path,
                1,
                "no-entries",
                "",
                "No entry found; start each with a heading such as '## Overfitting'.",
            )
        )
    order = {document.path: number for number, document in enumerate(documents)}
    return sum(len(document.terms) for document in documents), sorted(
        findings, key=lambda f: (order[f.path], f.line, f.rule)
    )


def _table_of_contents(document: Document) -> Iterator[Finding]:
    links = [link for link in document.toc if link.href.startswith("#")]
    if not links:
        return
    anchors = {section.slug for section in document.sections}
    listed = {link.href[1:] for link in links}
    for link in links:
        if link.href[1:] not in anchors:
            yield Finding(
                document.path, link.line, "dead-anchor", link.text, f"{link.href} leads to no heading of this file."
            )
    for section in document.terms:
        if section.slug not in listed:
            message = f"Missing from the table of contents; add '* [{section.term}](#{section.slug})'."
            yield Finding(document.path, section.line, "missing-from-toc", section.term, message)


def _section(section: Section, document: Document) -> Iterator[Finding]:
    def finding(rule: str, message: str, line: int = section.line) -> Finding:
        return Finding(document.path, line, rule, section.term, message)

    if not section.definition:
        yield finding("no-definition", "No text between the heading and the dialogue; say what the term means.")
    if not section.turns:
        yield finding("no-dialogue", 'No dialogue; add lines such as Morty: "Why?" and Rick: "Because."')
    for turn, following in zip(section.turns, section.turns[1:], strict=False):
        if turn.speaker == following.speaker:
            yield finding(
                "same-speaker",
                f"{turn.speaker} speaks twice in a row; a turn is missing or misspelled.",
                following.line,
            )
    if section.turns and section.turns[-1].speaker == "Morty":
        yield finding(
            "no-answer", "The dialogue ends with Morty's question; let Rick answer it.", section.turns[-1].line
        )


def _duplicates(documents: list[Document]) -> Iterator[Finding]:
    terms: dict[str, tuple[Document, Section]] = {}
    slugs: dict[str, tuple[Document, Section]] = {}
    for document in documents:
        for section in document.terms:
            for seen, key, rule in (
                (terms, name_key(section.term), "duplicate-term"),
                (slugs, slugify(section.term), "duplicate-slug"),
            ):
                if key in seen:
                    first_document, first = seen[key]
                    where = f"{first_document.path} line {first.line}"
                    message = (
                        f"The same {rule.removeprefix('duplicate-')} as '{first.term}' in {where}; merge or rename one."
                    )
                    yield Finding(document.path, section.line, rule, section.term, message)
                    break
                seen[key] = (document, section)


def _see_also(document: Document, documents: list[Document], root: Path) -> Iterator[Finding]:
    by_file = {other.path: {section.slug for section in other.sections} for other in documents}
    everywhere = set().union(*by_file.values())
    names = {slugify(part) for other in documents for section in other.terms for part in split_heading(section.term)}
    for section in document.terms:
        for link in section.see_also:
            if link.href.startswith(("http:", "https:")):
                continue
            known = by_file.get(_linked_file(document, link)) if link.href else everywhere | names
            if known is None:
                known = _anchors_on_disk(root.resolve().parent / _linked_file(document, link))
            if link_target(link) not in known:
                message = f"See also '{link.text}' ({link.href or link_target(link)}) is no entry of this glossary."
                yield Finding(document.path, link.line, "unknown-see-also", section.term, message)


def _linked_file(document: Document, link: Link) -> str:
    name = link.href.partition("#")[0]
    return posixpath.normpath(PurePosixPath(document.path).parent / name) if name else document.path


def _anchors_on_disk(file: Path) -> set[str]:
    """Return the anchors of a file that was not asked for, so that one file of a folder can be checked alone."""
    try:
        text = file.read_text("utf-8", errors="replace") if file.is_file() else ""
    except (OSError, ValueError):  # no file name at all
        return set()
    return {slugify(heading) for heading in re.findall(r"^## (.+)$", text, re.MULTILINE)}


def _orphan_message(code: str) -> str:
    first = code.split("\n", 1)[0].strip()[:60]
    return f"Code that belongs to no term (it begins with '{first}'); let its first line be a comment with the term's heading."
