"""The commands and their options."""

from __future__ import annotations

from typing import Annotated

import typer

import kldiv
from kldiv.cli import compare as comparing
from kldiv.cli import demo as demonstrating
from kldiv.cli import info as informing
from kldiv.cli.errors import CommandError

app = typer.Typer(name="kldiv", add_completion=False, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def kldiv_command(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """KL divergence and its relatives, straight from files of logits."""
    if version:
        print(f"kldiv {kldiv.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def compare(
    reference: Annotated[
        str, typer.Argument(metavar="REFERENCE", help="Logits of p, \\[..., vocabulary].")
    ],
    candidate: Annotated[
        str, typer.Argument(metavar="CANDIDATE", help="Logits of q, of the same shape.")
    ],
    labels: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The true classes, one for every row."),
    ] = None,
    json: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write the numbers; - for stdout, without the table."),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="The rows to compare: booleans or 0 and 1, one for every row."
        ),
    ] = None,
    ignore_index: Annotated[
        int, typer.Option(metavar="N", help="The label of rows that have none.")
    ] = -100,
    space: Annotated[
        str,
        typer.Option(
            metavar="SPACE",
            help="logits, log_probs or probs, which are divided by their sum; A,B for two.",
        ),
    ] = "logits",
    temperature: Annotated[
        float,
        typer.Option(metavar="T", help="p = softmax(logits / T), and q too; 1e-30 to 1e30."),
    ] = 1.0,
    rows: Annotated[
        str | None,
        typer.Option(metavar="A:B", help="Only these rows, as in a Python slice: 10:20, -5:"),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="Threads; all CPUs without it.")
    ] = None,
) -> None:
    """Compare the logits of two models, row by row.

    Files are .npy or .safetensors (FILE.safetensors:NAME names a tensor), of
    float64, float32, float16 or bfloat16, and may be larger than memory.
    """
    if json is not None and json != "-":
        inputs = [name for name in (reference, candidate, labels, where) if name is not None]
        comparing.check_json(json, inputs)
    if threads is not None:
        _set_threads(threads)
    options = comparing.Options(ignore_index, space, temperature, rows)
    result = comparing.compare_files(reference, candidate, labels, where, options)
    if json != "-":
        comparing.show(result)
    if json is not None:
        comparing.write_json(json, result)


@app.command()
def demo() -> None:
    """Compare real logits that come with the package, and explain the numbers."""
    demonstrating.show()


@app.command()
def info() -> None:
    """Show version, instruction set, threads and memory bandwidth."""
    informing.show()


def _set_threads(count: int) -> None:
    try:
        kldiv.set_num_threads(count)
    except ValueError as error:
        raise CommandError(f"--threads: {error}") from None
    except OverflowError:
        raise CommandError(f"--threads: {count} is not a number of threads") from None
