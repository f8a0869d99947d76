"""Letters in common: typing errors, endings and hyphens change only a few of a word's runs of four letters."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from jargon_rag.terms import letter_grams


class Letters:
    """Which runs of four letters each entry has, and how rare they are."""

    def __init__(self, texts: Sequence[str], owner: np.ndarray, n_entries: int) -> None:
        """Look at texts and at the number of the entry that owns each, below `n_entries`."""
        found: dict[str, set[int]] = {}
        for text, entry in zip(texts, owner, strict=True):
            for gram in letter_grams(text):
                found.setdefault(gram, set()).add(int(entry))
        self._entries = {gram: np.array(sorted(numbers)) for gram, numbers in found.items()}
        self._count = n_entries

    def share(self, question: str) -> np.ndarray:
        """Return, for each entry, the share of the question's runs that it has, weighed by their rarity."""
        grams = letter_grams(question)
        share = np.zeros(self._count)
        for gram in grams & self._entries.keys():
            share[self._entries[gram]] += self._rarity(gram)
        return share / max(1e-9, sum(self._rarity(gram) for gram in grams))

    def share_in(self, question: str, text: str) -> float:
        """Return the share of the question's runs that a text has, weighed by their rarity."""
        grams = letter_grams(question)
        found = sum(self._rarity(gram) for gram in grams & letter_grams(text))
        return found / max(1e-9, sum(self._rarity(gram) for gram in grams))

    def known(self, question: str) -> float:
        """Return the share of the question's runs that any entry has."""
        grams = letter_grams(question)
        total = sum(self._rarity(gram) for gram in grams)
        return sum(self._rarity(gram) for gram in grams & self._entries.keys()) / max(1e-9, total)

    def has(self, word: str) -> bool:
        """Tell whether every run of a word is somewhere in the glossary."""
        return letter_grams(word) <= self._entries.keys()

    def _rarity(self, gram: str) -> float:
        """Return the inverse document frequency, over entries."""
        return math.log((self._count + 1) / (len(self._entries.get(gram, ())) + 0.5))
