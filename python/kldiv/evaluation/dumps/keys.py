"""What keys and names of files say: the kind of numbers, the order, and which belong together."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from kldiv.evaluation.dumps.names import listed
from kldiv.evaluation.dumps.protocol import DumpError, Kind

# Beginnings of names, in small letters; the longer ones first where one begins like another.
_BEGINNINGS: tuple[tuple[str, Kind], ...] = (
    ("log_probs", "log_probs"),
    ("logprobs", "log_probs"),
    ("logits", "logits"),
    ("hidden", "hidden_states"),
    ("probs", "probs"),
)

KEY_OF: dict[Kind, str] = {
    "logits": "logits",
    "log_probs": "log_probs",
    "probs": "probs",
    "hidden_states": "hidden_states",
}
"""The key that a kind is written under."""


@dataclass(frozen=True)
class Set:
    """Names that differ in one number."""

    pattern: str
    """The name, with # for the number."""
    names: tuple[str, ...]
    """In the order of their numbers."""
    numbers: tuple[int, ...]

    @property
    def kind(self) -> Kind | None:
        """What the numbers in it are, where the name says it."""
        return kind_of(self.pattern)


def labels_key(name: str) -> str:
    """Where labels are kept beside an array: ``labels_3`` beside ``logits_3``."""
    number = name[len(name.rstrip("0123456789")) :]
    return f"labels_{number}" if number else "labels"


def kind_of(name: str) -> Kind | None:
    """What a key or the stem of a file says its numbers are; None where it does not."""
    name = name.lower()
    for beginning, kind in _BEGINNINGS:
        if name.startswith(beginning):
            return kind
    return None


def kind_of_folder(name: str) -> Kind | None:
    """What the name of a directory says, any word of it: ``reference-hidden``."""
    name = name.lower().replace("-", "_").replace(".", "_")
    for beginning, kind in _BEGINNINGS:
        if re.search(rf"(?:^|_){beginning}", name):
            return kind
    return None


def natural(name: str) -> tuple[tuple[str, int, str], ...]:
    """What to sort names by so that 2 is before 10."""
    return tuple(
        (text, int(digits or -1), digits) for text, digits in re.findall(r"(\D*)(\d*)", name)
    )


def numbered_sets(names: Iterable[str], where: str) -> list[Set]:
    """The sets that names with a number in them are of, in the order of their patterns.

    Raises
    ------
    DumpError
        For a number that is there twice, as 1 and 001.
    """
    by_text: dict[str, list[str]] = defaultdict(list)
    for name in names:
        if re.search(r"\d", name):
            by_text[re.sub(r"\d+", "#", name)].append(name)
    return [
        found for group in by_text.values() for found in _sets_of_one_text(sorted(group), where)
    ]


def _sets_of_one_text(names: list[str], where: str) -> list[Set]:
    """Sets of names that are equal but for their numbers.

    The last number that differs counts; those before it are part of the pattern, so that the
    files of two layers or draft heads are two sets.
    """
    parts = {name: re.split(r"(\d+)", name) for name in names}
    length = len(next(iter(parts.values())))
    differing = [
        place
        for place in range(1, length, 2)
        if len({int(part[place]) for part in parts.values()}) > 1
    ]
    place = differing[-1] if differing else length - 2
    by_pattern: dict[str, dict[int, str]] = defaultdict(dict)
    for name, part in parts.items():
        rest = [str(int(piece)) if index % 2 else piece for index, piece in enumerate(part)]
        rest[place] = "#"
        numbered = by_pattern["".join(rest)]
        number = int(part[place])
        if number in numbered:
            raise DumpError(f"{where} holds number {number} twice: {numbered[number]} and {name}")
        numbered[number] = name
    return [
        Set(pattern, tuple(name for _, name in sorted(numbered.items())), tuple(sorted(numbered)))
        for pattern, numbered in sorted(by_pattern.items())
    ]


def counted(sets: list[Set]) -> str:
    """Sets, as messages name them."""
    return listed([f"{found.pattern} ({len(found.names):,})" for found in sets])


def the_set(sets: list[Set], where: str, noun: str, kind: Kind | None = None) -> Set:
    """The only one of some sets, or of those of a kind.

    Raises
    ------
    DumpError
        For several.
    """
    if kind is not None and len(sets) > 1:
        sets = [found for found in sets if found.kind == kind] or sets
    if len(sets) == 1:
        return sets[0]
    raise DumpError(
        f"{where} holds {len(sets)} sets of {noun}: {counted(sets)}; expected those of one "
        "model, each sequence once"
    )


def choose(
    fitting: list[str], everything: str, where: str, noun: str, kind: Kind | None = None
) -> list[str]:
    """Which of the arrays of a file are its sequences, in their order.

    The only one, or that named after its kind, or those of the one set of numbered names.

    Parameters
    ----------
    fitting
        Names of arrays that can be rows of floating numbers.
    everything
        What the file holds, for messages.
    where, noun
        How messages call the file, and its arrays.
    kind
        What is looked for, where that has been told.

    Raises
    ------
    DumpError
        For a file with none, or with several that do not belong together.
    """
    if not fitting:
        raise DumpError(f"{where} has no {noun} of floating numbers; its {noun}s: {everything}")
    if len(fitting) == 1:
        return fitting
    named = [name for name in fitting if name.lower() in {*KEY_OF.values(), "logprobs", "hidden"}]
    sets = numbered_sets(fitting, where)
    known = [found for found in sets if found.kind is not None]
    if kind is not None:
        named = [name for name in named if kind_of(name) == kind]
        known = [found for found in known if found.kind == kind]
    if len(named) == 1 and not known:
        return named
    if not named and len(known or sets) == 1:
        return list((known or sets)[0].names)
    problem = "and none named 'logits'"
    if named or known:
        meant = ", ".join(sorted([*named, *(found.pattern for found in known)]))
        problem = f"of which several can be meant: {meant}"
    raise DumpError(
        f"{where} has several {noun}s of floating numbers {problem}; choose one as "
        f"{where.rpartition('/')[2]}:NAME; its {noun}s: {everything}"
    )


def members(name: str, names: Iterable[str]) -> list[str]:
    """What ``FILE:NAME`` means: the array of the name, or the set of numbered ones before it.

    ``logits`` is ``logits_0``, ``logits_1``, … where there is no ``logits``. Empty for a name that
    is not there.
    """
    names = list(names)
    if name in names:
        return [name]
    sets = numbered_sets((other for other in names if other.startswith(name)), name)
    sets = [found for found in sets if re.fullmatch(r"[_.-]?#", found.pattern[len(name) :])]
    return list(sets[0].names) if len(sets) == 1 else []
