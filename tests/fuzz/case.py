"""A case: one call of one front end, with everything that goes into it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import numpy as np

from . import contents

Array = np.ndarray[Any, Any]

VARIANTS = 4
"""Calls in a row with the same numbers, whose values and gradients are computed once."""


DEFAULTS: dict[str, Any] = {}
"""Of all options, by name; `options` fills it."""


@dataclass
class Case:
    """Numbers and options; what is at its default is left out of `options`."""

    subject: Any
    rows: dict[str, Array] = field(default_factory=dict)
    """``[rows, classes]`` in float64, as their dtypes store them."""
    options: dict[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        """An option."""
        value = self.__dict__["options"].get(name) if name in DEFAULTS else None
        if value is not None:
            return value
        try:
            return DEFAULTS[name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and classes of the first array."""
        count, classes = next(iter(self.rows.values())).shape
        return count, classes

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """What the rows are arranged in."""
        return (self.shape[0],) if self.batch is None else self.batch

    def dtype_of(self, name: str) -> str:
        """The dtype of an array of rows."""
        return (self.dtypes or {}).get(name, "float64")

    def layout_of(self, name: str) -> str:
        """The layout of an array."""
        return (self.layouts or {}).get(name, "plain")

    def padding_of(self, name: str | None) -> int:
        """How many numbers that are no classes come after those of a row."""
        return (self.padding or {}).get(name, 0)

    @property
    def is_wide(self) -> bool:
        """Whether results are float64."""
        dtypes = self.options.get("dtypes")
        return dtypes is None or "float64" in dtypes.values()

    def with_options(self, **options: Any) -> Case:
        """The same with other options; None is the default."""
        merged = {**self.options, **options}
        return replace(self, options={k: v for k, v in merged.items() if v is not None})


@dataclass(frozen=True)
class Option:
    """One option, in one line of the table."""

    name: str
    draw: Callable[[Random, Case], Any]
    """A value; None for the default."""
    default: Any = None
    simpler: Callable[[Any], Iterable[Any]] = lambda _: ()
    """Values to try in place of one, when a find is made small."""
    keyword: bool = True
    """Whether it is passed by its name, and not a matter of how arrays are made."""
    of_numbers: bool = False
    """Whether the value of a row depends on it."""


def make(seed: int, index: int) -> Case:
    """The case of a seed and a number."""
    from .frontends import fit

    numbers = _numbers(seed, index // VARIANTS)
    case = replace(numbers, rows=dict(numbers.rows), options=dict(numbers.options))
    _draw_options(Random(f"{seed} {index}"), case, of_numbers=False)
    return fit(case)


@functools.lru_cache(2)
def _numbers(seed: int, group: int) -> Case:
    """What the cases of a group have in common."""
    from .subjects import SUBJECTS

    random = Random(f"{seed} {group}")
    case = Case(random.choice(SUBJECTS))
    case.subject.draw(random, case)
    _draw_options(random, case, of_numbers=True)
    return case


def _draw_options(random: Random, case: Case, *, of_numbers: bool) -> None:
    from .options import OPTIONS

    for name in case.subject.options:
        option = OPTIONS[name]
        if option.of_numbers is of_numbers and name not in case.options:
            value = option.draw(random, case)
            if value is not None:
                case.options[name] = value


def cases(
    seed: int, start: int = 0, step: int = 1, names: tuple[str, ...] = ()
) -> Iterator[tuple[int, Case]]:
    """Cases without end, in groups of `VARIANTS`; every `step`-th group from `start`.

    With names, those of the subjects that have one: each by the number that it always has.
    """
    from .subjects import SUBJECTS

    for group in itertools.count(start, step):
        # The first that is drawn of a group.
        if names and Random(f"{seed} {group}").choice(SUBJECTS).name not in names:
            continue
        for index in range(group * VARIANTS, (group + 1) * VARIANTS):
            yield index, make(seed, index)


def draw_dtypes(random: Random, case: Case, names: tuple[str, ...]) -> list[str]:
    """Fill the dtypes of a case."""
    wide = random.random() < 0.4
    dtypes = []
    for _ in names:
        pool = ("float64",) if wide else ("float32", "float32", "float16", "bfloat16")
        dtypes.append(random.choice(tuple(contents.DTYPES) if random.random() < 0.2 else pool))
    if random.random() < 0.5:
        dtypes = dtypes[:1] * len(names)
    case.options["dtypes"] = dict(zip(names, dtypes, strict=True))
    return dtypes


def draw_rows(random: Random, case: Case, names: tuple[str, ...], spaces: tuple[str, ...]) -> None:
    """Fill `case.rows`, and its dtypes."""
    dtypes = draw_dtypes(random, case, names)
    largest = min(contents.LARGEST[dtype] for dtype in dtypes)
    classes = contents.classes(random)
    shape = (contents.count(random, classes), classes)
    z = [contents.logits(random, shape, largest)]
    for dtype in dtypes[1:]:
        base = contents.stored(z[0], dtypes[0]) if dtype else z[0]
        z.append(contents.partner(random, base, largest))
    contents.mask(random, *z)
    for name, dtype, space, rows in zip(names, dtypes, spaces, z, strict=True):
        case.rows[name] = contents.in_space(random, rows, space, dtype)
        contents.spoil(random, case.rows[name], nan_only=name == "targets")
