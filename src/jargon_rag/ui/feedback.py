"""Thumbs, and a word to go with them, kept in a file of the host's; only where the host names one."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import gradio as gr

from jargon_rag.errors import InputError

MAX_WORD_CHARS = 500
NOTE = "A thumb is kept on this server with its question and answer, and the word you add; nothing about you."
_writing = threading.Lock()


def check_feedback_file(file: Path) -> None:
    """Raise InputError when a file cannot be appended to, before anything is loaded."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.open("a", encoding="utf-8").close()
    except OSError as error:
        raise InputError(f"Cannot write feedback to {file}: {error.strerror}. Choose another --feedback.") from error


def add_feedback(chatbot: gr.Chatbot, file: Path) -> None:
    """Put the note and the box for a word on the page, and thumbs on its answers."""
    gr.HTML(f"<p class='hint'>{NOTE}</p>")
    word = gr.Textbox(label="A word on your thumb", visible=False, max_length=MAX_WORD_CHARS, submit_btn="Send")
    rated = gr.State()

    def rate(history: list[dict[str, Any]], data: gr.LikeData) -> tuple[gr.Textbox, dict[str, Any]]:
        place = data.index[0] if isinstance(data.index, list | tuple) else data.index
        row = {"question": plain(history[place - 1]), "answer": plain(history[place]), "liked": bool(data.liked)}
        keep(file, row)
        return gr.Textbox(visible=True, value=""), row

    def add_word(text: str, row: dict[str, Any]) -> gr.Textbox:
        keep(file, {**row, "word": text[:MAX_WORD_CHARS]})
        return gr.Textbox(visible=False)

    chatbot.like(rate, chatbot, [word, rated], api_visibility="private", queue=False)
    word.submit(add_word, [word, rated], word, api_visibility="private", queue=False)


def keep(file: Path, row: dict[str, Any]) -> None:
    """Append one line of JSON; a line is written whole."""
    line = json.dumps({"time": round(time.time()), **row}, ensure_ascii=False) + "\n"
    with _writing, file.open("a", encoding="utf-8") as stream:
        stream.write(line)


def plain(part: dict[str, Any]) -> str:
    """Return the text of a chat message, as it was sent to the page."""
    content = part["content"]
    return content if isinstance(content, str) else " ".join(str(piece.get("text", "")) for piece in content)
