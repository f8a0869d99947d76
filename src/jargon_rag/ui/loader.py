"""Load the bot in a thread, so that the page is up at once."""

from __future__ import annotations

import threading
from collections.abc import Callable

import gradio as gr

from jargon_rag.errors import JargonRAGError
from jargon_rag.rag import JargonRAG
from jargon_rag.ui.render import escape_markdown


class Loader:
    """Loads the bot in a thread; says how far it is, and hands it out when it is there."""

    def __init__(self, load: Callable[[Callable[[str], None]], JargonRAG]) -> None:
        """Start loading; `load` is given a function that takes progress notes."""
        self._load = load
        self._done = threading.Event()
        self._rag: JargonRAG | None = None
        self._error: str | None = None
        self.note = "Loading the models…"
        threading.Thread(target=self._run, name="loader", daemon=True).start()

    def _run(self) -> None:
        try:
            self._rag = self._load(self._tell)
            self._rag.ask("What is overfitting?")  # the first pass allocates; let it not be a reader's
            self.note = f"Ready: {len(self._rag.entries)} terms."
        except JargonRAGError as error:
            self._error = self.note = str(error)
        except Exception as error:  # shown on the page: a silent thread would leave it loading for ever
            self._error = self.note = f"Could not start: {type(error).__name__}: {error}"
        finally:
            self._done.set()

    def _tell(self, note: str) -> None:
        self.note = note

    @property
    def done(self) -> bool:
        """Tell whether loading ended, well or badly."""
        return self._done.is_set()

    @property
    def failed(self) -> bool:
        """Tell whether it ended badly; `note` says why."""
        return self._error is not None

    def get(self) -> JargonRAG:
        """Wait for the bot and return it; raises gr.Error with the reason if it could not be loaded."""
        self._done.wait()
        if self._rag is None:
            raise gr.Error(escape_markdown(self._error or "The models could not be loaded."))
        return self._rag
