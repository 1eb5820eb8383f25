"""The commands and their options."""

from __future__ import annotations

from typing import Annotated, cast, get_args

import typer

import kldiv
from kldiv.cli import compare as comparing
from kldiv.cli import convert as converting
from kldiv.cli import demo as demonstrating
from kldiv.cli import info as informing
from kldiv.cli import logs as tabulating
from kldiv.cli import present as presenting
from kldiv.cli.errors import CHECK_FAILED, CommandError
from kldiv.evaluation.dumps.protocol import Kind
from kldiv.evaluation.statistics.percentiles import EXACT

app = typer.Typer(name="kldiv", add_completion=False, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def kldiv_command(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """How far language models are from each other, from what they left on disk."""
    if version:
        print(f"kldiv {kldiv.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def compare(
    reference: Annotated[
        str,
        typer.Argument(
            metavar="REFERENCE", help="Outputs of p; or a table of positions, FILE.parquet."
        ),
    ],
    candidates: Annotated[
        list[str] | None,
        typer.Argument(metavar="CANDIDATE...", help="Outputs of q on the same text, or several."),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The true next tokens, one for every position."),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="The positions to compare: booleans or 0 and 1, one for every position.",
        ),
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(metavar="A:B", help="Only these positions, as in a Python slice: 10:20, -5:"),
    ] = None,
    chunks: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Only the first N sequences.")
    ] = None,
    sequences: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Lengths of the sequences, where files or keys are not they."
        ),
    ] = None,
    ignore_index: Annotated[
        int | None,
        typer.Option(metavar="N", help="The label of positions that have none; -100 without it."),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(
            metavar="SPACE",
            help="logits, log_probs or probs, which are divided by their sum; A,B for two. "
            "Without it what the files say.",
        ),
    ] = None,
    temperature: Annotated[
        float,
        typer.Option(metavar="T", help="p = softmax(logits / T), and q too; 1e-30 to 1e30."),
    ] = 1.0,
    head: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The output layer of hidden states, \\[classes, size]."),
    ] = None,
    candidate_head: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="The candidate's own; once for each candidate."),
    ] = None,
    vocab_size: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Real classes; later ones are padding."),
    ] = None,
    vocab: Annotated[
        str,
        typer.Option(
            metavar="RULE",
            help="Classes that one side lacks: error, or only those of both, with their "
            "probabilities divided by their sum (renormalize) or as they are (truncate).",
        ),
    ] = "error",
    clusters: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="What each sequence belongs to, as its document: one error each."
        ),
    ] = None,
    strata: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A label of each sequence to tell apart, as its domain."),
    ] = None,
    floor: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="KL of two runs of the reference: positions, or numbers."
        ),
    ] = None,
    bootstrap: Annotated[
        int, typer.Option(metavar="N", min=0, help="Samples of a bootstrap over clusters.")
    ] = 2000,
    sampled_from: Annotated[
        str | None,
        typer.Option(
            metavar="p|q", help="The model that the tokens were sampled from: k1 and k3 of them."
        ),
    ] = None,
    exact: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="Positions up to which percentiles are exact."),
    ] = EXACT,
    positions: Annotated[
        str | None,
        typer.Option(
            "--positions",
            "--dump-positions",
            metavar="FILE.parquet",
            help="Keep the table of positions.",
        ),
    ] = None,
    table: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help=f"The table: {', '.join(presenting.FORMATS)}; plain without it.",
        ),
    ] = None,
    json: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write the numbers; - for stdout, without the table."),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=256, help="Threads; all CPUs without it."),
    ] = None,
) -> None:
    """How far models are from a reference, position by position.

    Dumps are files or directories of logits, log-probabilities, hidden states (with --head) or
    top-k log-probabilities: .npy, .npz, .safetensors, Zarr, Parquet, llama.cpp's .kld, JSON of
    vLLM, SGLang, OpenAI and Tinker; - is stdin. A file or key is a sequence.
    """
    inputs = comparing.Inputs(
        reference=reference,
        candidates=tuple(candidates or ()),
        labels=labels,
        where=where,
        sequences=sequences,
        head=head,
        candidate_heads=tuple(candidate_head or ()),
        clusters=clusters,
        strata=strata,
        floor=floor,
    )
    if table is not None:
        presenting.check_format(table)
        if json == "-":
            raise CommandError(
                f"--json - prints the numbers instead of the table; leave out --format {table}, "
                "or name a file"
            )
    if sampled_from not in (None, "p", "q"):
        raise CommandError(f"--sampled-from is {sampled_from!r}; expected p or q")
    if bootstrap == 1:
        raise CommandError("--bootstrap is 0, or at least 2 samples")
    if positions is not None and not positions.endswith(".parquet"):
        raise CommandError(f"--positions is {positions!r}; expected a name that ends in .parquet")
    if positions is not None and positions == json:
        raise CommandError(f"--positions and --json both name {positions}")
    for output in (positions, None if json == "-" else json):
        if output is not None:
            comparing.check_output(output, inputs.names())
    if threads is not None:
        kldiv.set_num_threads(threads)
    options = comparing.Options(
        rows=rows,
        chunks=chunks,
        ignore_index=ignore_index,
        space=space,
        temperature=temperature,
        classes=vocab_size,
        vocab=vocab,
    )
    result = comparing.compare(inputs, options)
    if positions is not None:
        result.write_positions(positions)
    presenting.present(
        result,
        table=table or "plain",
        json=json,
        statistics={"bootstrap": bootstrap, "exact": exact, "sampled_from": sampled_from},
    )


@app.command()
def demo() -> None:
    """Compare real logits that come with the package, and explain the numbers."""
    demonstrating.show()


@app.command()
def info(
    file: Annotated[
        str | None, typer.Argument(metavar="FILE", help="A dump; the machine without it.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(metavar="KIND", help="What its numbers are, against its names.")
    ] = None,
    sequences: Annotated[
        str | None, typer.Option(metavar="FILE", help="Lengths of its sequences.")
    ] = None,
    expect_ppl: Annotated[
        float | None,
        typer.Option(
            metavar="PPL",
            help="What llama.cpp printed for its base file; exit code 1 if it does not fit.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Show what a dump is: format, sequences, positions, vocabulary, dtype, rows.

    Of llama.cpp's base files also perplexity, what is clipped, and the rounding floor. Without
    a file: version, instruction set, threads and memory bandwidth.
    """
    fits = informing.show(
        file, kind=_kind(kind), sequences=sequences, expect_ppl=expect_ppl, as_json=json
    )
    if not fits:
        raise typer.Exit(CHECK_FAILED)


@app.command()
def convert(
    source: Annotated[str, typer.Argument(metavar="IN", help="A dump; - is stdin.")],
    target: Annotated[
        str,
        typer.Argument(
            metavar="OUT",
            help=".npy, .npz, .safetensors, .parquet, .zarr, .kld, or a directory with / behind.",
        ),
    ],
    kind: Annotated[
        str | None, typer.Option(metavar="KIND", help="What its numbers are, against its names.")
    ] = None,
    sequences: Annotated[
        str | None, typer.Option(metavar="FILE", help="Lengths of the sequences.")
    ] = None,
    form: Annotated[
        str | None,
        typer.Option("--format", metavar="FORMAT", help="One of these ends, or directory."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    tokens: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="For .kld: token ids, \\[sequences, context]."),
    ] = None,
    magic: Annotated[
        str, typer.Option(metavar="MAGIC", help="For .kld: _logits_ or _logits2.")
    ] = "_logits_",
    clip: Annotated[
        float,
        typer.Option(metavar="NATS", help="For _logits_: 16 as llama.cpp, 24 as ik_llama.cpp."),
    ] = 16.0,
) -> None:
    """Write a dump in another format, in the dtype it has.

    It takes its name once it is whole; nothing that is there is replaced without --overwrite.
    """
    converting.run(
        source,
        target,
        kind=_kind(kind),
        sequences=sequences,
        format=form,
        overwrite=overwrite,
        base_file=converting.BaseFile(tokens, magic, clip),
    )


@app.command(name="table")
def table_of_logs(
    logs: Annotated[list[str], typer.Argument(metavar="LOG...", help="What llama.cpp printed.")],
    form: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="plain, markdown, csv or json.")
    ] = "plain",
    every: Annotated[bool, typer.Option("--all", help="All lines of the logs' tables.")] = False,
) -> None:
    """One table of printed logs of llama.cpp's KL divergence, a row a log."""
    tabulating.show(logs, form, every=every)


def _kind(name: str | None) -> Kind | None:
    if name is not None and name not in get_args(Kind):
        raise CommandError(f"--kind is {name!r}; expected one of {', '.join(get_args(Kind))}")
    return cast("Kind | None", name)
