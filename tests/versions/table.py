"""The table of ``docs/versions.md``, made of what was run."""

from __future__ import annotations

from versions.matrix import CASES, ROOT, Case
from versions.results import Result, read

DOCUMENT = ROOT / "docs" / "versions.md"
HEADING = "## What was run\n"


def text() -> str:
    """The document with the table of what was kept; what stands above it is left as it is."""
    above, _, _ = DOCUMENT.read_text(encoding="utf-8").partition(HEADING)
    return f"{above}{HEADING}\n" + "\n".join(lines()) + "\n"


def lines() -> list[str]:
    """The table, and why tests were skipped."""
    found = read()
    made = [
        "| versions | tests | passed | failed | skipped |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    reasons: dict[str, int] = {}
    for case in CASES:
        if case.name not in found:
            made.append(f"| {case.name}: not run | | | | |")
            continue
        result = found[case.name]
        skipped = sum(result["skipped"].values())
        made.append(
            f"| {versions(case, result)} | {', '.join(f'`{path}`' for path in case.tests)} | "
            f"{result['passed']} | {result['failed']} | {skipped} |"
        )
        for reason, count in result["skipped"].items():
            reasons[reason] = reasons.get(reason, 0) + count
    pythons = sorted({result["python"] for result in found.values()})
    dates = [result["date"] for result in found.values()]
    days = sorted({min(dates), max(dates)})
    made += [
        "",
        f"Each on Python {', '.join(pythons)}, Linux, x86-64; {' to '.join(days)}.",
        "",
        "Why tests were skipped:",
        "",
        *(f"* {reason} ({count})" for reason, count in sorted(reasons.items())),
    ]
    return made


def versions(case: Case, result: Result) -> str:
    """The versions that a case is about, as they were installed."""
    return ", ".join(f"{name} {result['versions'][name]}" for name in case.shows)
