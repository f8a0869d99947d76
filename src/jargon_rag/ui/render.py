"""Answers as Markdown and HTML for the page. Whatever a question or a glossary holds comes out as inert text."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from jargon_rag.types import Answer, CodeBlock, Retrieval, Sentence

_MARKDOWN_SIGNS = re.compile(r"([\\`*_{}\[\]()#+\-.!|~$:@/])")


def escape_markdown(text: str) -> str:
    """Return text that a Markdown renderer shows as it is: no markup, no HTML, no links made of bare addresses, no formulas."""
    return _MARKDOWN_SIGNS.sub(r"\\\1", html.escape(text, quote=False))


def dialogue_markdown(sentences: Sequence[Sentence], code: Sequence[CodeBlock] = ()) -> str:
    """Return sentences as Markdown: a paragraph for each run of one speaker, markers as links to the sources."""
    paragraphs: list[str] = []
    speaker: str | None = ""
    for sentence in sentences:
        markers = "".join(f"[\\[{n}\\]](#source-{n})" for n in sentence.citations)
        shown = f"{escape_markdown(sentence.text)} {markers}".rstrip()
        if sentence.speaker == speaker:
            paragraphs[-1] += f" {shown}"
        else:
            paragraphs.append(f"**{sentence.speaker}:** {shown}" if sentence.speaker else shown)
        speaker = sentence.speaker
    for block in code:
        fence = "`" * (3 + max((len(run) for run in re.findall(r"`+", block.text)), default=0))
        language = re.sub(r"[^\w+-]", "", block.language)
        paragraphs.append(f"{fence}{language}\n{block.text}\n{fence}")
    return "\n\n".join(paragraphs)


def sources_html(retrieval: Retrieval | None, answer: Answer | None) -> str:
    """Return the numbered sources with the words that the answer rests on, or what was found while it is being written."""
    if retrieval is None:
        return "<p class='hint'>Sources appear here with each answer.</p>"
    if answer is None:
        found = ", ".join(html.escape(result.entry.term) for result in retrieval.results[:3])
        return f"<p class='hint'>Found: {_inert(found)}</p>"
    if answer.refused:
        nearest = "".join(f"<li>{shown(term)}</li>" for term in answer.suggestions)
        return f"<p class='hint'>Nothing in the glossary answers this ({shown(retrieval.reason)}). Nearest terms:</p><ul>{nearest}</ul>"
    items = []
    for marker in sorted({citation.marker for citation in answer.citations}):
        cited = [citation for citation in answer.citations if citation.marker == marker]
        quotes = "".join(
            f"<blockquote><mark>{shown(quote)}</mark><cite>{shown(source)}</cite></blockquote>"
            for quote, source in dict.fromkeys(
                (citation.quote, citation.source) for citation in cited if "\n" not in citation.quote
            )
        )
        entry = cited[0].entry
        definition = " ".join(passage.text for passage in entry.definition)
        items.append(
            f"<li id='source-{marker}' tabindex='-1'><strong>[{marker}] {shown(entry.term)}</strong>{quotes}"
            f"<details><summary>Definition</summary><p>{shown(definition)}</p></details></li>"
        )
    from_model = sum(sentence.origin == "model" for sentence in answer.sentences)
    quoted = sum(sentence.origin == "entry" and sentence.supported is True for sentence in answer.sentences)
    seconds = answer.timings.total_ms / 1000
    note = f"{from_model} sentence(s) by the model, checked; {quoted} quoted from the glossary; {seconds:.1f} s"
    more = ", ".join(shown(term) for term in answer.suggestions)
    return f"<ol class='sources'>{''.join(items)}</ol><p class='hint'>{note}</p>" + (
        f"<p class='hint'>See also: {more}</p>" if more else ""
    )


def shown(text: str) -> str:
    """Return text as HTML that shows it and does nothing else."""
    return _inert(html.escape(text))


def _inert(escaped: str) -> str:
    """Keep Gradio's HTML template syntax (`{{x}}`, `${x}`) from being evaluated."""
    return escaped.replace("{", "&#123;").replace("}", "&#125;").replace("$", "&#36;")
