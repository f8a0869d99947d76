"""Markdown → blocks with their source lines, and inline Markdown → the text that a reader sees.

CommonMark by markdown-it-py. Raw HTML is read as a browser shows it: tags are blanked, lines are kept.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token

_MARKDOWN = MarkdownIt("commonmark")
_BREAK = re.compile(r"(?<![ \t])[ \t]*<br[ \t]*/?>[ \t]*$", re.IGNORECASE | re.MULTILINE)
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_HIDDEN = re.compile(r"<(summary|script|style)\b(?:(?!<\1\b).)*?</\1\s*>", re.DOTALL | re.IGNORECASE)
_DETAILS = re.compile(r"<(/?)details\b", re.IGNORECASE)
_TAG = re.compile(r"</?[a-z][^<>]*>", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True)
class Block:
    """A block of a file: what it is, and its lines."""

    kind: Literal["heading", "paragraph", "item", "code", "details"]
    lines: list[str]
    line: int
    end_line: int
    info: str = ""  # heading: its level; code: the language; details: "open" or "close"
    closed: bool = True  # code: whether a closing fence was found


@dataclass(frozen=True, slots=True)
class Link:
    """A link of a table of contents or a see-also line."""

    text: str
    href: str
    line: int


def read_blocks(text: str) -> Iterator[Block]:
    """Yield the blocks of a file in order; a `<br>` at the end of a line is no part of it, not even of code."""
    return _blocks(_BREAK.sub("", text), 1)


def plain_text(markdown: str) -> str:
    """Return inline Markdown as a reader sees it: no markup, no HTML, no control characters."""
    inline = _MARKDOWN.parseInline(markdown)[0]
    pieces = []
    for token in inline.children or []:
        if token.type in ("text", "code_inline", "text_special"):
            pieces.append(token.content)
        elif token.type in ("softbreak", "hardbreak") or token.content.lower().startswith("<br"):
            pieces.append(" ")
    return " ".join(unicodedata.normalize("NFC", _CONTROL.sub("", "".join(pieces))).split())


def read_links(block: Block) -> list[Link]:
    """Return the links in a block, in order."""
    links: list[Link] = []
    for number, line in enumerate(block.lines):
        children = _MARKDOWN.parseInline(line)[0].children or []
        for position, token in enumerate(children):
            if token.type == "link_open":
                inside = itertools.takewhile(lambda child: child.type != "link_close", children[position + 1 :])
                text = "".join(child.content for child in inside)
                links.append(
                    Link(_CONTROL.sub("", text), unquote(str(token.attrGet("href") or "")), block.line + number)
                )
    return links


def _blocks(text: str, first_line: int) -> Iterator[Block]:
    """Yield the blocks of a text in order, lists and quotes flattened; `first_line` is the line of its first."""
    tokens = _MARKDOWN.parse(text)
    depth = 0
    for position, token in enumerate(tokens):
        start, end = (first_line + token.map[0], first_line + token.map[1] - 1) if token.map else (0, 0)
        if token.type in ("bullet_list_open", "ordered_list_open"):
            depth += 1
        elif token.type in ("bullet_list_close", "ordered_list_close"):
            depth -= 1
        elif token.type == "heading_open":
            yield Block("heading", [tokens[position + 1].content], start, end, info=token.tag[1:])
        elif token.type == "paragraph_open":
            lines = tokens[position + 1].content.split("\n")
            yield Block("item" if depth else "paragraph", lines, start, end)
        elif token.type in ("fence", "code_block"):
            yield _code_block(token, start, end)
        elif token.type == "html_block":
            yield from _html_blocks(token.content, start)


def _code_block(token: Token, start: int, end: int) -> Block:
    language = token.info.split()[0].lower() if token.info.split() else ""
    code = _CONTROL.sub("", token.content).strip("\n")
    span = (token.map[1] - token.map[0]) if token.map else 0
    closed = token.type != "fence" or span > token.content.count("\n") + 1
    return Block("code", code.split("\n"), start, end, info=language, closed=closed)


def _html_blocks(html: str, line: int) -> Iterator[Block]:
    """Yield what a reader sees in raw HTML: blank the tags, keep the lines, and read the rest as Markdown."""
    html = _COMMENT.sub(_blank, html)
    shown = _TAG.sub(_blank, _HIDDEN.sub(_blank, html))
    while (blanked := _TAG.sub(_blank, shown)) != shown:  # a tag in a tag
        shown = blanked
    tags = [
        Block("details", [], at, at, info="close" if tag[1] else "open")
        for tag in _DETAILS.finditer(html)
        for at in [line + html.count("\n", 0, tag.start())]
    ]
    yield from (tag for tag in tags if tag.info == "open")
    if shown == html:  # a stray '<': no markup to blank, so parsing again would not end
        yield Block("paragraph", shown.split("\n"), line, line + shown.count("\n"))
    elif shown.strip():
        yield from _blocks(shown, line)
    yield from (tag for tag in tags if tag.info == "close")


def _blank(match: re.Match[str]) -> str:
    return "\n" * match[0].count("\n")
