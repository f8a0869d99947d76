"""Answers, entries and the reasons for them as HTML for the page, and answers as Markdown to take away.

Whatever a question or a glossary holds comes out as inert text.
"""

from __future__ import annotations

import difflib
import html
import re
from collections.abc import Sequence

from jargon_rag.types import Answer, CodeBlock, Entry, Message, Retrieval, Sentence

_MARKDOWN_SIGNS = re.compile(r"([\\`*_{}\[\]()#+\-.!|~$:@/])")
STEPS = (("retrieve_ms", "find"), ("prefill_ms", "read"), ("decode_ms", "write"), ("check_ms", "check"))


def escape_markdown(text: str) -> str:
    """Return text that a Markdown renderer shows as it is: no markup, no HTML, no links made of bare addresses, no formulas."""
    return _MARKDOWN_SIGNS.sub(r"\\\1", html.escape(text, quote=False))


def shown(text: str, *, newline: str = " ") -> str:
    """Return text as HTML that shows it and does nothing else; Gradio's `{{x}}` and `${x}` are not evaluated."""
    return html.escape(text).translate({ord("{"): "&#123;", ord("}"): "&#125;", ord("$"): "&#36;", ord("\n"): newline})


def message(sentences: Sequence[Sentence], *, key: str, answer: Answer | None = None) -> str:
    """Return an answer as a chat message: the dialogue, its code, and what each line rests on.

    `key` tells this message's anchors from those of others; without `answer` it is not finished yet.
    """
    if answer is None:
        return dialogue(sentences, key=key)
    parts = [dialogue(sentences, key=key), *(fenced(block) for block in answer.code)]
    below = sources(answer, key=key) + checks(answer)
    return "\n\n".join([*parts, f'<div class="below">{below}</div>'] if below else parts)


def dialogue(sentences: Sequence[Sentence], *, key: str) -> str:
    """Return sentences as HTML: a paragraph for each run of one speaker, markers as links to the sources."""
    paragraphs: list[tuple[str | None, list[str]]] = []
    for sentence in sentences:
        chips = "".join(
            f'<a class="chip" href="#{key}-{n}" title="Show source {n}">{n}</a>' for n in sentence.citations
        )
        if not paragraphs or paragraphs[-1][0] != sentence.speaker:
            paragraphs.append((sentence.speaker, []))
        text = shown(sentence.text)
        beside = sentence.speaker == "Rick" and sentence.origin == "fixed" and not chips
        paragraphs[-1][1].append(f'<span class="aside">{text}</span>' if beside else f"{text}{chips}")
    lines = []
    for speaker, said in paragraphs:
        name = shown(speaker or "")
        who = f'<span class="who">{name}<span class="colon">: </span></span>' if speaker else ""
        lines.append(f'<p class="line {name.lower() or "plain"}">{who}<span class="said">{" ".join(said)}</span></p>')
    return f'<div class="dialogue">{"".join(lines)}</div>'


def fenced(block: CodeBlock) -> str:
    """Return a snippet as fenced Markdown, whatever fences it holds itself."""
    fence = "`" * (3 + max((len(run) for run in re.findall(r"`+", block.text)), default=0))
    return f"{fence}{re.sub(r'[^A-Za-z0-9+-]', '', block.language)}\n{block.text}\n{fence}"


def sources(answer: Answer, *, key: str) -> str:
    """Return the cited entries, folded, each whole and with the words that the answer rests on marked."""
    cards = []
    for marker in sorted({citation.marker for citation in answer.citations}):
        cited = [citation for citation in answer.citations if citation.marker == marker]
        quotes = [citation.quote for citation in cited if "\n" not in citation.quote]
        lines = ", ".join(dict.fromkeys(citation.source for citation in cited))
        cards.append(
            f'<details class="source" id="{key}-{marker}"><summary><span class="number">{marker}</span>'
            f' {shown(cited[0].entry.term)}</summary>{entry_text(cited[0].entry, quotes)}<p class="where">{shown(lines)}</p></details>'
        )
    return "".join(cards)


def entry_text(entry: Entry, quotes: Sequence[str] = ()) -> str:
    """Return what an entry says as HTML, with quoted spans marked; code is left to a code block."""
    parts = [f"<p>{marked(passage.text, quotes)}</p>" for passage in entry.definition]
    for turn in entry.turns:
        who = shown(turn.speaker)
        parts.append(f'<p class="turn"><b>{who}:</b> {marked(turn.text, quotes)}</p>')
    if entry.gotchas:
        items = "".join(f"<li>{marked(item.text, quotes)}</li>" for item in entry.gotchas)
        parts.append(f"<p><b>Gotchas</b></p><ul>{items}</ul>")
    return f'<div class="entry" tabindex="0">{"".join(parts)}</div>'


def whole_entry(entry: Entry, terms: dict[str, str]) -> str:
    """Return an entry to read, with its code; `terms` maps slugs to the headings that see-also names."""
    code = "".join(f"<pre><code>{shown(snippet.text, newline='&#10;')}</code></pre>" for snippet in entry.snippets)
    also = ", ".join(shown(terms[slug]) for slug in entry.see_also if slug in terms)
    names = f"<p class='hint'>Also: {shown(', '.join(entry.aliases))}</p>" if entry.aliases else ""
    where = f"<p class='where'>{shown(f'{entry.path}#L{entry.line}-L{entry.end_line}')}</p>"
    see = f"<p><b>See also:</b> {also}</p>" if also else ""
    return (
        f"<article class='reading'><h2>{shown(entry.term)}</h2>{names}{entry_text(entry)}{code}{see}{where}</article>"
    )


def marked(text: str, quotes: Sequence[str]) -> str:
    """Return text as HTML in which the quotes that occur in it are marked."""
    inside = [False] * len(text)
    for quote in quotes:
        start = text.find(quote)
        if quote and start >= 0:
            inside[start : start + len(quote)] = [True] * len(quote)
    pieces, start = [], 0
    for end in range(1, len(text) + 1):
        if end == len(text) or inside[end] != inside[start]:
            piece = shown(text[start:end])
            pieces.append(f"<mark>{piece}</mark>" if inside[start] else piece)
            start = end
    return "".join(pieces)


def checks(answer: Answer) -> str:
    """Return, folded, what each claim of an answer rests on and who worded it."""
    claims = [sentence for sentence in answer.sentences if sentence.citations]
    if not claims:
        return ""
    rows = []
    for claim in claims:
        aligned, changed = alignment(claim.text, claim.quote)
        if claim.origin == "entry":
            verdict = "quoted: the glossary's own sentence, because the model's did not hold or was not needed"
        else:
            verdict = "written by the model; " + ("trimmed or voiced, nothing else" if changed else "word for word")
        rows.append(f'<li>{aligned} <span class="verdict">[{claim.citations[0]}] {verdict}</span></li>')
    count = f"{len(claims)} claim{'s' if len(claims) > 1 else ''}, each checked"
    return f'<details class="checks"><summary>{count}</summary><ol>{"".join(rows)}</ol></details>'


def alignment(claim: str, quote: str) -> tuple[str, bool]:
    """Return a claim laid over its quote, words put in and left out marked, and whether there are any."""
    said, rests_on = claim.split(), quote.split()
    pieces, changed = [], False
    quoted, claimed = ([word.strip(".,;:!?()").lower() for word in words] for words in (rests_on, said))
    for kind, i, j, k, m in difflib.SequenceMatcher(a=quoted, b=claimed, autojunk=False).get_opcodes():
        if kind == "equal":
            pieces.append(shown(" ".join(said[k:m])))
            continue
        changed = True
        pieces += [f"<del>{shown(' '.join(rests_on[i:j]))}</del>"] * (j > i)
        pieces += [f"<ins>{shown(' '.join(said[k:m]))}</ins>"] * (m > k)
    return " ".join(pieces), changed


def why(retrieval: Retrieval | None, answer: Answer | None, prompt: Sequence[Message]) -> str:
    """Return why an answer is as it is: the verdict, what was found by which signal, where the time went, the prompt."""
    if retrieval is None:
        return "<p class='hint'>Ask something, and here you see what was found, what the model was shown and where the time went.</p>"
    asked = ""
    if retrieval.standalone_question != retrieval.question:
        asked = f"<p class='hint'>Understood as: <b>{shown(retrieval.standalone_question)}</b></p>"
    verdict = f"<p class='hint'>{'In' if retrieval.in_scope else 'Out of'} scope: {shown(retrieval.reason)}.</p>"
    results = retrieval.results
    names = [name for name in (results[0].signals if results else ()) if any(r.signals[name] for r in results)]
    head = "".join(f"<th scope='col'>{shown(name)}</th>" for name in ("", "score", *names))
    rows = []
    best = max((result.score for result in retrieval.results), default=1.0) or 1.0
    for result in retrieval.results:
        cells = "".join(f"<td>{result.signals[name]:.2f}</td>" for name in names)
        width = max(0.0, min(1.0, result.score / best))
        rows.append(
            f"<tr><th scope='row'>{shown(result.entry.term)}<i class='bar' style='width:{width:.0%}'></i></th>"
            f"<td>{result.score:.2f}</td>{cells}</tr>"
        )
    table = f"<div class='scroll' tabindex='0' role='region' aria-label='Entries found'><table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    return asked + verdict + table + (timing(answer) if answer else "") + prompt_text(prompt)


def timing(answer: Answer) -> str:
    """Return where an answer's time went, as a bar and in words."""
    spent = {label: getattr(answer.timings, field) for field, label in STEPS}
    total = max(answer.timings.total_ms, 1.0)
    bar = "".join(
        f"<i class='{label}' style='width:{100 * ms / total:.1f}%'></i>" for label, ms in spent.items() if ms > 0
    )
    words = ", ".join(f"{label} {ms:.0f} ms" for label, ms in spent.items() if ms > 0)
    return f"<div class='times' aria-hidden='true'>{bar}</div><p class='hint'>{total / 1000:.2f} s: {words}</p>"


def prompt_text(prompt: Sequence[Message]) -> str:
    """Return, folded, what the language model was shown."""
    if not prompt:
        return ""
    text = "\n\n".join(f"{part['role']}: {part['content']}" for part in prompt)
    lines = "<br>".join(shown(line) for line in text.split("\n"))
    return f"<details class='prompt'><summary>What the model was shown</summary><p>{lines}</p></details>"


def footnoted(answer: Answer) -> str:
    """Return an answer as Markdown with footnotes, to paste elsewhere."""
    notes: dict[tuple[str, str], int] = {}
    lines: list[str] = []
    speaker: str | None = ""
    for sentence in answer.sentences:
        found = (
            [citation for citation in answer.citations if citation.quote == sentence.quote] if sentence.quote else []
        )
        for citation in found:
            notes.setdefault((citation.quote, citation.source), len(notes) + 1)
        markers = "".join(dict.fromkeys(f"[^{notes[citation.quote, citation.source]}]" for citation in found))
        said = f"{escape_markdown(sentence.text)}{markers}"
        if sentence.speaker == speaker:
            lines[-1] += f" {said}"
        else:
            lines.append(f"**{sentence.speaker}:** {said}" if sentence.speaker else said)
        speaker = sentence.speaker
    terms = {citation.quote: citation.entry.term for citation in answer.citations}
    lines += [fenced(block) for block in answer.code]
    lines += [
        f"[^{number}]: {escape_markdown(terms[quote])}: “{escape_markdown(quote)}” ({escape_markdown(source)})"
        for (quote, source), number in notes.items()
    ]
    return "\n\n".join([f"> {escape_markdown(answer.question)}", *lines])
