"""The names a term goes by: anchors, the parts of a heading, and keys that ignore spelling differences."""

from __future__ import annotations

import re
import unicodedata

_HYPHENS = "-\u2010\u2011\u2012\u2013\u2014\u2212"
_WORD = re.compile(rf"[^\W_]+(?:'[^\W_]+)*|[{_HYPHENS}]")
_PART = re.compile(r"\s+/\s+|,\s+|\s+vs\.?\s+", re.IGNORECASE)


def slugify(heading: str) -> str:
    """Return GitHub's anchor of a heading: `A/B Test / Canary` → `ab-test--canary`."""
    kept = "".join(c for c in heading.strip().lower() if c.isalnum() or c in "-_ " or unicodedata.category(c) == "Mn")
    return kept.replace(" ", "-")


def split_heading(heading: str) -> list[str]:
    """Return the names that a heading holds, the heading first.

    `Linear / Logistic Regression` → itself, `Linear`, `Logistic Regression`, `Linear Regression`: a word that is
    written once may be meant for every part. `Name (ACRONYM)` gives both. A slash without spaces joins one name.
    """
    names = [heading]
    bare = re.sub(r"\s*\([^()]*\)", "", heading).strip()
    names += [bare, *(inside.strip() for inside in re.findall(r"\(([^()]*)\)", heading))]
    parts = [part.strip() for part in _PART.split(bare) if part.strip()]
    if len(parts) > 1:
        names += parts
        first, last = parts[0].split(), parts[-1].split()
        names += [f"{part} {last[-1]}" for part in parts[:-1] if len(part.split()) == 1 and len(last) > 1]
        names += [f"{first[0]} {part}" for part in parts[1:] if len(part.split()) == 1 and len(first) > 1]
    return list(dict.fromkeys(name for name in names if name))


def words(text: str) -> list[str]:
    """Return the lower-cased words of a text; hyphens separate, apostrophes do not."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    return [word for word in _WORD.findall(folded) if word not in _HYPHENS]


def name_key(name: str) -> str:
    """Return a key under which spellings of one name meet: `Batch-Norms`, `batchnorm` → `batchnorm`."""
    parts = words(name)
    return "".join([*parts[:-1], singular(parts[-1])]) if parts else ""


def singular(word: str) -> str:
    """Return an English noun without a plural ending, by rule; only for comparing words with each other."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


STOP_WORDS = frozenset(
    "a about am an and any are as at be been but by can could did do does for from get got had has have how i if in into is it its just "
    "like me mean means my of on or our should so some tell that the their them then there these they this those to us use used using "
    "was we were what whats when where which who why will with would you your explain show give please".split()
)


def content_words(text: str) -> list[str]:
    """Return the words of a text that are not stop words, each without a plural ending."""
    return [singular(word) for word in words(text) if word not in STOP_WORDS]


def letter_grams(text: str) -> set[str]:
    """Return the runs of four letters in the content words of a text, spaces included.

    'over-fiting' and 'overfitting' share most of theirs: a typing error, an ending or a hyphen changes only a few.
    """
    joined = f" {' '.join(word for word in words(text) if word not in STOP_WORDS)} "
    return {joined[i : i + 4] for i in range(len(joined) - 3)}
