"""A case: a file of one subject, changed, made of a seed and a number."""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass
from pathlib import Path

from . import limits
from .changes import change
from .corpus import Tree
from .limits import Find
from .subjects import SUBJECTS, Subject, named


@dataclass(frozen=True)
class Case:
    """Files, and who reads them."""

    subject: Subject
    tree: Tree
    path: Path
    """What is named, in a folder `.`."""
    changed: str
    reader: int

    @property
    def size(self) -> int:
        """Bytes of the changed file."""
        return len(self.tree[self.changed])

    def find(self, folder: Path) -> Find | None:
        """Write the files into an empty folder, read them, and say what is wrong."""
        for name, data in self.tree.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        read = self.subject.read[self.reader]
        # Rows of memory beside them have a name of their own.
        names = [Path(name).name for name in self.tree] + [
            self.path.name,
            folder.name,
            "candidate[",
        ]
        try:
            return limits.find(read, folder / self.path, names, sum(map(len, self.tree.values())))
        finally:
            shutil.rmtree(folder)
            folder.mkdir()


def make(seed: int, number: int, subjects: tuple[Subject, ...] = SUBJECTS) -> Case:
    """The case of a seed and a number."""
    rng = random.Random(f"{seed} {number}")
    subject = subjects[number % len(subjects)]
    tree = dict(rng.choice(subject.trees))
    path = named(tree, Path())
    changed = rng.choice(list(tree))
    other = rng.choice(list(rng.choice(subject.trees).values()))
    tree[changed] = change(tree[changed], changed, rng, other)
    return Case(subject, tree, path, changed, rng.randrange(len(subject.read)))
