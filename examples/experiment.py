"""What the experiments share: command line, seed, tables, and where their results go."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
import transformers
from matplotlib import font_manager
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import kldiv

OUTPUT = Path(__file__).resolve().parent / "output"
CHINESE_FONT = "WenQuanYi Micro Hei"


@dataclass(frozen=True)
class Experiment:
    """One run of a script: its name, its size, its seed, and the folder it writes to."""

    name: str
    quick: bool
    seed: int
    output: Path

    @property
    def models(self) -> Path:
        """The folder of models, trained ones and converted ones."""
        return self.output / "models"

    def save(self, results: dict[str, Any], picture: Figure) -> None:
        """Write NAME.json and NAME.png."""
        found = {
            "command": f"python examples/{self.name}.py" + (" --quick" if self.quick else ""),
            "seed": self.seed,
            "machine": machine(),
            "results": results,
        }
        text = json.dumps(found, ensure_ascii=False, indent=1) + "\n"
        (self.output / f"{self.name}.json").write_text(text, encoding="utf-8")
        picture.savefig(self.output / f"{self.name}.png", dpi=110, bbox_inches="tight")
        print(f"wrote {self.name}.json and {self.name}.png to {self.output}")


def start(name: str, description: str, *, seed: int = 0) -> Experiment:
    """Read the command line, and make what is random the same in every run."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a small version, within a minute")
    parser.add_argument("--seed", type=int, default=seed, help="default: %(default)s")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder (default: %(default)s)")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    mpl.use("Agg")
    quiet(given.seed)
    return Experiment(name, given.quick, given.seed, given.output)


def quiet(seed: int) -> None:
    """Set the seeds and the font, and leave progress bars to the experiment."""
    transformers.set_seed(seed)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    # Chinese characters come from the second font, where it is installed.
    installed = {font.name for font in font_manager.fontManager.ttflist}
    mpl.rcParams["font.family"] = ["DejaVu Sans", *({CHINESE_FONT} & installed)]


def machine() -> dict[str, Any]:
    """What a measured time depends on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "isa": kldiv.isa(),
        "threads": {"kldiv": kldiv.get_num_threads(), "torch": torch.get_num_threads()},
        "versions": {name: version(name) for name in ("kldiv", "torch", "transformers")},
    }


def show_table(title: str, rows: list[dict[str, Any]]) -> None:
    """Print rows, whose keys are the columns."""
    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        table.add_column(column, justify="left" if isinstance(rows[0][column], str) else "right")
    for row in rows:
        table.add_row(*(f"{x:.4g}" if isinstance(x, float) else str(x) for x in row.values()))
    Console(width=None if sys.stdout.isatty() else 120).print(table)
