"""What can go wrong, by whose fault. Every message says what to do next.

JargonRAGError
├── InputError        the question, file or option given cannot be used
├── GlossaryError     a glossary cannot be read
├── IndexFileError    an index is missing, damaged, or was made by another version or embedder
├── WeightsError      a model is missing, damaged or cannot be loaded
├── EngineError       a language model's server cannot be reached, refuses, or does not keep to the protocol
└── TooManyQuestions  one client asked more than the server lets it in a minute
"""

from __future__ import annotations


class JargonRAGError(Exception):
    """Base of every error that this package raises on purpose."""


class InputError(JargonRAGError):
    """A question, file or option given by the caller cannot be used."""


class GlossaryError(JargonRAGError):
    """A glossary cannot be read."""


class IndexFileError(JargonRAGError):
    """An index is missing, damaged, or was made by another version or embedder."""


class WeightsError(JargonRAGError):
    """Weights of a model are missing, damaged or cannot be loaded."""


class EngineError(JargonRAGError):
    """A language model's server cannot be reached, refuses, or does not keep to the protocol."""


class TooManyQuestions(JargonRAGError):  # noqa: N818 (it is no error of the program)
    """One client asked more than the server lets it in a minute; `seconds` says when it may ask again."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"That is more questions than one may ask here in a minute. Ask again in {seconds} s.")
        self.seconds = seconds
