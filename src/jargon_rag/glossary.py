"""Read a Markdown glossary into entries.

A glossary is one file or a folder of `.md` files. Each `## Term` is an entry: prose, Rick & Morty dialogue (inside
`<details>` or not), code. A section such as `## Code Examples` is no term: its blocks go to the terms that their
first comment names. Labels (`**Also known as:**`, `**Gotchas**`, `**See also:**`) are understood, not required.

Markdown is parsed by markdown-it-py (CommonMark); every piece keeps its source lines.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jargon_rag.errors import GlossaryError
from jargon_rag.markdown import Block, Link, plain_text, read_blocks, read_links
from jargon_rag.terms import name_key, slugify, split_heading, words
from jargon_rag.types import Entry, Passage, Question, Snippet, Turn

MAX_FILE_BYTES = 20_000_000
QUESTIONS_FOLDER = "questions"

_SPEAKER = re.compile(r"^(?:\*\*|__)?((?ai:rick|morty))(?:\*\*|__)?\s*:\s*(?:\*\*|__)?\s*(.*)$")
_LABEL = re.compile(
    r"^(?:\*\*|__)((?ai:also known as|aka|aliases|gotchas?|pitfalls|code|example|see also|related))"
    r"\s*(?::\s*(?:\*\*|__)?|(?:\*\*|__)\s*:?)\s*(.*)$"
)
_NOT_TERMS = {
    "table of contents", "contents", "references", "license", "licence", "contributing", "acknowledgements",
    "acknowledgments", "credits", "introduction", "about", "code examples", "code snippets", "examples", "see also",
}  # fmt: skip
_LABELS: dict[str, Literal["aliases", "gotchas", "code", "see_also"]] = {
    "also known as": "aliases", "aka": "aliases", "aliases": "aliases",
    "gotcha": "gotchas", "gotchas": "gotchas", "pitfalls": "gotchas",
    "code": "code", "example": "code", "see also": "see_also", "related": "see_also",
}  # fmt: skip


@dataclass(slots=True)
class Section:
    """A heading and what follows it, while it is being read."""

    term: str
    line: int
    slug: str = ""
    definition: list[Passage] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    gotchas: list[Passage] = field(default_factory=list)
    snippets: list[Snippet] = field(default_factory=list)
    aliases: list[str] = field(default_factory=list)
    see_also: list[Link] = field(default_factory=list)
    end_line: int = 0
    open_details: list[int] = field(default_factory=list)  # lines of <details> that nothing closed

    @property
    def is_term(self) -> bool:
        """Tell a term from a section such as the table of contents."""
        return self.term.strip().lower() not in _NOT_TERMS


@dataclass(slots=True)
class Document:
    """One parsed file: what `read_glossary` makes entries of, and what `lint` looks at."""

    path: str  # as cited
    title: str = ""
    sections: list[Section] = field(default_factory=list)
    toc: list[Link] = field(default_factory=list)
    orphans: list[Snippet] = field(default_factory=list)  # code that belongs to no term
    open_fences: list[int] = field(default_factory=list)

    @property
    def terms(self) -> list[Section]:
        """Return the sections that are entries."""
        return [section for section in self.sections if section.is_term]


def read_glossary(path: Path) -> list[Entry]:
    """Return the entries of a glossary, in reading order.

    Raises GlossaryError when a file cannot be read, or when there is no entry in it.
    """
    entries = [_to_entry(section, document) for document in read_documents(path) for section in document.terms]
    if not entries:
        raise GlossaryError(
            f"No entries in {path}: a glossary needs headings such as '## Overfitting' with text below."
        )
    return entries


def read_documents(path: Path) -> list[Document]:
    """Parse every file of a glossary; slugs are unique across files, code sections are handed out to the terms."""
    documents = [_parse(_read_text(file), _cited_path(file, path)) for file in glossary_files(path)]
    seen: Counter[str] = Counter()
    for document in documents:
        for section in document.sections:
            base = section.slug = slugify(section.term) or "term"
            while section.slug in seen:
                seen[base] += 1
                section.slug = f"{base}-{seen[base]}"
            seen[section.slug] = 0
    terms = [section for document in documents for section in document.terms]
    for document in documents:
        for section in document.sections:
            if section.is_term:
                continue
            for snippet in section.snippets:
                owners = _owners(snippet, terms)
                for owner in owners:
                    owner.snippets.append(snippet)
                if not owners:
                    document.orphans.append(snippet)
    return documents


def glossary_files(path: Path) -> list[Path]:
    """Return the Markdown files of a glossary, sorted; hidden files and folders are left out."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise GlossaryError(f"No such file or folder: {path}. Give a Markdown file, or a folder of .md files.")
    files = sorted(
        file for file in path.rglob("*.md")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )  # fmt: skip
    if not files:
        raise GlossaryError(f"No .md files in {path}. Put '## Term' entries in a file such as {path / 'terms.md'}.")
    return files


def read_questions(path: Path, entries: list[Entry]) -> list[Question]:
    """Return the questions marked `index` in the `questions` folder of a glossary; none if there is no such folder."""
    slugs = {entry.term: entry.slug for entry in entries}
    questions = []
    for where, term, text, passage in _index_questions(path):
        if term not in slugs:
            raise GlossaryError(f"{where} asks about {term!r}, which is no heading of {path}.")
        questions.append(Question(slug=slugs[term], text=text, passage=passage))
    return questions


def corpus_hash(path: Path) -> str:
    """Return a SHA-256 over everything that goes into an index of this glossary."""
    digest = hashlib.sha256()
    for file in glossary_files(path):
        digest.update(_cited_path(file, path).encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    for _, *question in _index_questions(path):
        digest.update(json.dumps(question).encode())
    return digest.hexdigest()


def _index_questions(path: Path) -> Iterator[tuple[str, str, str, str]]:
    """Yield (file:line, term, question, passage) of the questions that are indexed; those of other splits never are."""
    for file in sorted((path / QUESTIONS_FOLDER).glob("*.jsonl")) if path.is_dir() else []:
        for number, line in enumerate(_read_text(file).split("\n"), start=1):
            if not line.strip():
                continue
            where = f"{file}:{number}"
            try:
                row = json.loads(line)
                found = (where, str(row["term"]), str(row["question"]), str(row["passage"]))
                is_indexed = row["split"] == "index"
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                raise GlossaryError(
                    f"{where} is not a question ({error}). A line is a JSON object with term, question, kind, passage and split."
                ) from error
            if is_indexed:
                yield found


# 1. files


def _read_text(file: Path) -> str:
    try:
        size = file.stat().st_size
        data = file.read_bytes() if size <= MAX_FILE_BYTES else b""
    except OSError as error:
        raise GlossaryError(f"Cannot read {file}: {error.strerror}. Check the path and its permissions.") from error
    if size > MAX_FILE_BYTES:
        raise GlossaryError(f"{file} has {size:,} bytes, more than {MAX_FILE_BYTES:,}. Split it into several files.")
    if b"\0" in data:
        raise GlossaryError(f"{file} is a binary file, not Markdown (it holds a NUL byte).")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise GlossaryError(f"{file} is not UTF-8 (byte {error.start}). Save it as UTF-8.") from error


def _cited_path(file: Path, root: Path) -> str:
    cited = file.name if root.is_file() else f"{root.resolve().name}/{file.relative_to(root).as_posix()}"
    return os.fsencode(cited).decode("utf-8", "replace")  # a locale that is not UTF-8 leaves half characters in names


# 2. blocks → sections


def _parse(text: str, path: str) -> Document:
    document = Document(path=path)
    blocks = list(read_blocks(text))
    levels = Counter(block.info for block in blocks if block.kind == "heading")
    term_level = "2" if levels["2"] or not levels else levels.most_common(1)[0][0]
    section: Section | None = None
    label = ""
    for block in blocks:
        if block.kind == "heading":
            heading = plain_text(block.lines[0])
            if block.info <= term_level:
                section, label = None, ""
            if block.info == term_level and heading:
                section = Section(term=heading, line=block.line)
                document.sections.append(section)
            elif block.info == "1" and not document.title:
                document.title = heading
            elif section is not None:
                label = _LABELS.get(heading.lower().rstrip(":"), "")
        elif section is None:
            document.toc += read_links(block)
        else:
            if not section.is_term:
                document.toc += read_links(block)
            label = _add(section, block, label, document)
    after = text.rstrip("\n").count("\n") + 2
    for section in reversed(document.sections):
        section.end_line, after = after - 1, section.line
    return document


def _add(section: Section, block: Block, label: str, document: Document) -> str:
    """Put a block where it belongs in its section; return the label that the next block stands under."""
    if block.kind == "details":
        if block.info == "open":
            section.open_details.append(block.line)
        elif section.open_details:
            section.open_details.pop()
        return ""
    if block.kind == "code":
        code = "\n".join(block.lines)
        if code.strip():  # an empty block says nothing
            section.snippets.append(Snippet(block.info, code, block.line, block.end_line))
        if not block.closed:
            document.open_fences.append(block.line)
        return label
    found = _LABEL.match(block.lines[0].strip())
    lines, first = block.lines, block.line
    if found:
        label = _LABELS[found[1].lower()]
        lines = [found[2], *lines[1:]]
    elif block.kind == "paragraph" and label in ("aliases", "see_also") and getattr(section, label):
        label = ""  # those two are one paragraph, or a list
    text = plain_text("\n".join(lines))
    if label == "see_also":
        links = read_links(block)
        section.see_also += links or [Link(name.strip(), "", first) for name in text.split(",") if name.strip()]
    elif label == "aliases":
        section.aliases += [alias.strip(" .") for alias in re.split(r"[,;]", text) if alias.strip(" .")]
    elif label == "gotchas" and text:
        section.gotchas.append(Passage(text, first, block.end_line))
    elif not label or label == "code":
        _add_prose(section, lines, first)
        return label if found else ""
    return label


def _add_prose(section: Section, lines: list[str], first: int) -> None:
    """Add the turns of a dialogue, and everything else as definition. A line without a speaker continues its turn."""
    speaker = ""
    run: list[str] = []
    start = first

    def flush(end: int) -> None:
        text = plain_text("\n".join(run))
        if speaker and text:
            section.turns.append(Turn(speaker, _unquote(text), start, end))
        elif text:
            section.definition.append(Passage(text, start, end))

    for number, line in enumerate(lines, start=first):
        spoken = _SPEAKER.match(line.strip())
        if spoken:
            flush(number - 1)
            speaker, run, start = spoken[1].capitalize(), [spoken[2]], number
        else:
            run.append(line)
    flush(first + len(lines) - 1)


def _unquote(text: str) -> str:
    for opening, closing in ('""', "“”", "«»"):
        if len(text) > 1 and text[0] == opening and text[-1] == closing and not {opening, closing} & set(text[1:-1]):
            return text[1:-1].strip()
    return text


# 3. code sections → terms


def _owners(snippet: Snippet, terms: list[Section]) -> list[Section]:
    """Return the terms that a code block's first comment names, or whose every part the code itself mentions.

    `# Dropout / BatchNorm / LayerNorm` names two entries; `# Classification Metrics` names none, but the code calls
    accuracy, precision, recall and F1 by name.
    """
    comment = re.match(r"\s*(?:#|//|--|%)+\s*(.{0,300})", snippet.text)
    if not comment:
        return []
    inside = [part.strip() for group in re.findall(r"\(([^)]*)\)", comment[1]) for part in group.split("/")]
    heads = split_heading(re.sub(r"\([^)]*\)", "", comment[1]).strip())
    heads = heads[1:] if len(heads) > 1 else heads
    owners: list[Section] = []
    for name in heads:
        exact = [term for term in terms if name_key(name) in {name_key(part) for part in split_heading(term.term)}]
        owners += exact or [term for term in terms if _begins(name, term)] or _mentioned(snippet.text, terms)
    named_inside = {name.lower() for name in inside}
    owners += [term for term in terms if named_inside & {part.lower() for part in split_heading(term.term)}]
    return list({owner.slug: owner for owner in owners}.values())


def _begins(name: str, term: Section) -> bool:
    """Tell whether one name begins the other, word by word: `LLM Generation` and LLM, `Diffusion` and Diffusion Model."""
    spoken = words(name)
    return any(
        spoken[: len(part)] == part[: len(spoken)]
        for part in (words(known) for known in split_heading(term.term))
        if part
    )


def _mentioned(code: str, terms: list[Section]) -> list[Section]:
    called = set(re.findall(r"[a-z0-9]+", code.lower()))
    found = []
    for term in terms:
        parts = split_heading(term.term)[1:]
        if len(parts) > 1 and all(set(words(part)) <= called for part in parts):
            found.append(term)
    return found


def _to_entry(section: Section, document: Document) -> Entry:
    return Entry(
        term=section.term,
        slug=section.slug,
        area=document.title or Path(document.path).stem,
        path=document.path,
        line=section.line,
        end_line=section.end_line,
        definition=tuple(section.definition),
        turns=tuple(section.turns),
        gotchas=tuple(section.gotchas),
        snippets=tuple(section.snippets),
        aliases=tuple(dict.fromkeys(section.aliases)),
        see_also=tuple(dict.fromkeys(link_target(link) for link in section.see_also)),
    )


def link_target(link: Link) -> str:
    """Return the slug that a see-also link means: its anchor, or its text."""
    return link.href.partition("#")[2] or slugify(link.text)
