"""Short names: the parts of paths that tell them apart."""

from __future__ import annotations

from collections.abc import Iterable


def short_names(names: Iterable[str]) -> dict[str, str]:
    """The ends of paths, without what all end with, and as long as makes them differ.

    Examples
    --------
    >>> short_names(["dumps/reference.npy", "dumps/int4.npy"])
    {'dumps/reference.npy': 'reference.npy', 'dumps/int4.npy': 'int4.npy'}
    >>> short_names(["out/int8/hidden", "out/int4/hidden/"])
    {'out/int8/hidden': 'int8', 'out/int4/hidden/': 'int4'}
    """
    parts = {name: [part for part in name.split("/") if part] for name in names}
    while len(parts) > 1 and all(len(split) > 1 for split in parts.values()):
        if len({split[-1] for split in parts.values()}) > 1:
            break
        parts = {name: split[:-1] for name, split in parts.items()}
    longest = max(map(len, parts.values()), default=0)
    for length in range(1, longest + 1):
        found = {name: "/".join(split[-length:]) for name, split in parts.items()}
        if len(set(found.values())) == len(found) and all(found.values()):
            return found
    return {name: name for name in parts}
