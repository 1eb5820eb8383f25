"""The commands and their options."""

from __future__ import annotations

from typing import Annotated, cast, get_args

import typer

import kldiv
from kldiv.cli import check as checking
from kldiv.cli import compare as comparing
from kldiv.cli import convert as converting
from kldiv.cli import demo as demonstrating
from kldiv.cli import history as histories
from kldiv.cli import info as informing
from kldiv.cli import logs as tabulating
from kldiv.cli import models as modelling
from kldiv.cli import options
from kldiv.cli import present as presenting
from kldiv.cli.errors import CHECK_FAILED, CommandError
from kldiv.evaluation.dumps.protocol import Kind
from kldiv.evaluation.models.reading import CONTEXT
from kldiv.evaluation.statistics.bootstrap import SAMPLES
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
    labels: options.LabelsFile = None,
    where: options.WhereFile = None,
    rows: options.Rows = None,
    chunks: options.Chunks = None,
    sequences: options.SequencesFile = None,
    ignore_index: options.IgnoreIndex = None,
    space: options.Space = None,
    temperature: options.Temperature = 1.0,
    head: options.HeadFile = None,
    candidate_head: options.CandidateHeads = None,
    vocab_size: options.VocabSize = None,
    vocab: options.VocabRule = "error",
    clusters: options.ClustersFile = None,
    strata: options.StrataFile = None,
    floor: options.FloorFile = None,
    bootstrap: options.BootstrapSamples = SAMPLES,
    sampled_from: options.SampledFrom = None,
    exact: options.ExactPositions = EXACT,
    positions: options.PositionsFile = None,
    table: options.TableFormat = None,
    json: options.JsonFile = None,
    html: options.HtmlFile = None,
    lang: options.PageLanguage = None,
    tokenizer: options.TokenizerFile = None,
    threads: options.Threads = None,
    work: options.WorkDirectory = None,
    dask: options.DaskAddress = None,
    block_positions: options.BlockPositions = None,
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
    output = presenting.Output(
        table=table,
        json=json,
        positions=positions,
        html=html,
        lang=lang,
        tokenizer=tokenizer,
        bootstrap=bootstrap,
        exact=exact,
        sampled_from=sampled_from,
    )
    output.check(inputs.names())
    if threads is not None:
        if dask is not None:
            raise CommandError("--threads is of this process; workers have those that Dask gives")
        kldiv.set_num_threads(threads)
    how = comparing.Options(
        work=work,
        dask=dask,
        block_positions=block_positions,
        rows=rows,
        chunks=chunks,
        ignore_index=ignore_index,
        space=space,
        temperature=temperature,
        classes=vocab_size,
        vocab=vocab,
    )
    result = comparing.compare(inputs, how)
    output.show(result)
    if candidates and "interrupted" in result.about:
        raise KeyboardInterrupt


@app.command()
def evaluate(
    reference: Annotated[
        str,
        typer.Argument(
            metavar="REFERENCE",
            help="A model: a directory or FILE.gguf, or a name on the hub of transformers.",
        ),
    ],
    candidates: Annotated[
        list[str], typer.Argument(metavar="CANDIDATE...", help="A model, or several.")
    ],
    text: options.Text,
    context: options.Context = CONTEXT,
    stride: options.Stride = None,
    chunks: options.Chunks = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    sequential: Annotated[
        bool,
        typer.Option(
            "--sequential", help="One model in memory at a time; keeps the reference's states."
        ),
    ] = False,
    temperature: options.Temperature = 1.0,
    vocab_size: options.VocabSize = None,
    vocab: options.VocabRule = "error",
    clusters: options.ClustersFile = None,
    strata: options.StrataFile = None,
    floor: options.FloorFile = None,
    bootstrap: options.BootstrapSamples = SAMPLES,
    sampled_from: options.SampledFrom = None,
    exact: options.ExactPositions = EXACT,
    positions: options.PositionsFile = None,
    table: options.TableFormat = None,
    json: options.JsonFile = None,
    html: options.HtmlFile = None,
    lang: options.PageLanguage = None,
    tokenizer: options.TokenizerFile = None,
    threads: options.Threads = None,
    work: options.WorkDirectory = None,
    block_positions: options.BlockPositions = None,
) -> None:
    """Run language models over a text, and say how far they are from a reference.

    All read the same windows of the text, and every next token is scored once; no logits are
    written to a disk. A document is a cluster where there are several. Needs the extra models.
    """
    if table == presenting.LLAMA_CPP:
        raise CommandError(
            f"--format {table} is of llama.cpp's base files: kldiv capture --kld makes one"
        )
    if block_positions is not None and work is None:
        raise CommandError("--block-positions is about --work")
    beside = [name for name in (clusters, strata, floor) if name is not None]
    output = presenting.Output(
        table=table,
        json=json,
        positions=positions,
        bootstrap=bootstrap,
        exact=exact,
        sampled_from=sampled_from,
        html=html,
        lang=lang,
        # That of the models, where a page asks for one.
        tokenizer=tokenizer or (html and reference),
    )
    output.check([reference, *candidates, text, *beside])
    result = modelling.evaluate(
        (reference, *candidates),
        modelling.Run(text, context, stride, chunks, device, dtype, threads),
        sequential=sequential,
        vocab=vocab,
        clusters=clusters,
        strata=strata,
        floor=floor,
        temperature=temperature,
        classes=vocab_size,
        work=work,
        block_positions=block_positions,
    )
    output.show(result)
    if "interrupted" in result.about:
        raise KeyboardInterrupt


@app.command()
def capture(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A directory or FILE.gguf, or a name on the hub of transformers.",
        ),
    ],
    text: options.Text,
    out: Annotated[str, typer.Option(metavar="DIR", help="The directory to write.")],
    hidden: Annotated[
        bool,
        typer.Option("--hidden", help="Hidden states and the output layer; so without a layout."),
    ] = False,
    logits: Annotated[bool, typer.Option("--logits", help="Logits of all classes.")] = False,
    kld: Annotated[bool, typer.Option("--kld", help="llama.cpp's base file.")] = False,
    top_k: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="The N most probable tokens, as vLLM answers."),
    ] = None,
    context: options.Context = CONTEXT,
    stride: options.Stride = None,
    chunks: options.Chunks = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what a capture wrote there.")
    ] = False,
    threads: options.Threads = None,
) -> None:
    """Run a language model over a text, and keep what it says as a dump for compare.

    Beside it lie the token ids, what each window is of, and a manifest: model, tokenizer, dtype,
    device, versions. The directory is there once it is whole. Needs the extra models.
    """
    modelling.capture(
        model,
        modelling.Run(text, context, stride, chunks, device, dtype, threads),
        out,
        modelling.layout_of(hidden=hidden, logits=logits, kld=kld, top_k=top_k),
        top_k,
        overwrite=overwrite,
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
    vocab_size: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="For top-k rows of a server: its vocabulary."),
    ] = None,
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
        classes=vocab_size,
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


@app.command(name="check")
def check_result(
    result: Annotated[
        str, typer.Argument(metavar="RESULT.json", help="What kldiv compare --json wrote.")
    ],
    largest: Annotated[
        list[str] | None,
        typer.Option("--max", metavar="NAME=NUMBER", help="What a number may be at most."),
    ] = None,
    smallest: Annotated[
        list[str] | None,
        typer.Option("--min", metavar="NAME=NUMBER", help="What a number must be at least."),
    ] = None,
    candidate: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this one; all without it.")
    ] = None,
) -> None:
    """Hold numbers of a result to bounds; exit code 1 if one does not.

    Names are those of the JSON with dots between: kl.mean, kl.p99, top1_agreement,
    perplexity.ratio, num_nan. kldiv compare --format csv lists them all.
    """
    if not checking.check(result, largest or [], smallest or [], candidate):
        raise typer.Exit(CHECK_FAILED)


@app.command()
def history(
    folder: Annotated[
        str, typer.Argument(metavar="DIR", help="Results of kldiv compare --json, at any depth.")
    ],
    html: Annotated[
        str | None, typer.Option(metavar="FILE", help="The page; DIR/history.html without it.")
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A file, a model, or FILE:MODEL; the oldest without it."),
    ] = None,
    lang: options.PageLanguage = None,
) -> None:
    """Make one page of many results: a row each, sortable, with the drift from a baseline."""
    histories.show(folder, html, baseline, lang)


def _kind(name: str | None) -> Kind | None:
    if name is not None and name not in get_args(Kind):
        raise CommandError(f"--kind is {name!r}; expected one of {', '.join(get_args(Kind))}")
    return cast("Kind | None", name)
