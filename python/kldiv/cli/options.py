"""The options of commands that compare: how they are typed, and what help says of them."""

from __future__ import annotations

from typing import Annotated

import typer

from kldiv.cli import present as presenting

LabelsFile = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="The true next tokens, one for every position."),
]
WhereFile = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="The positions to compare: booleans or 0 and 1, one for every position.",
    ),
]
Rows = Annotated[
    str | None,
    typer.Option(metavar="A:B", help="Only these positions, as in a Python slice: 10:20, -5:"),
]
Chunks = Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first N sequences.")]
SequencesFile = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="Lengths of the sequences, where files or keys are not they."
    ),
]
IgnoreIndex = Annotated[
    int | None,
    typer.Option(metavar="N", help="The label of positions that have none; -100 without it."),
]
Space = Annotated[
    str | None,
    typer.Option(
        metavar="SPACE",
        help="logits, log_probs or probs, which are divided by their sum; A,B for two. "
        "Without it what the files say.",
    ),
]
Temperature = Annotated[
    float,
    typer.Option(metavar="T", help="p = softmax(logits / T), and q too; 1e-30 to 1e30."),
]
HeadFile = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="The output layer of hidden states, \\[classes, size]."),
]
CandidateHeads = Annotated[
    list[str] | None,
    typer.Option(metavar="FILE", help="The candidate's own; once for each candidate."),
]
VocabSize = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Real classes; later ones are padding."),
]
VocabRule = Annotated[
    str,
    typer.Option(
        metavar="RULE",
        help="Classes that one side lacks: error, or only those of both, with their "
        "probabilities divided by their sum (renormalize) or as they are (truncate).",
    ),
]
ClustersFile = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="What each sequence belongs to, as its document: one error each."
    ),
]
StrataFile = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="A label of each sequence to tell apart, as its domain."),
]
FloorFile = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="KL of two runs of the reference: positions, or numbers."),
]
BootstrapSamples = Annotated[
    int, typer.Option(metavar="N", min=0, help="Samples of a bootstrap over clusters.")
]
SampledFrom = Annotated[
    str | None,
    typer.Option(
        metavar="p|q", help="The model that the tokens were sampled from: k1 and k3 of them."
    ),
]
ExactPositions = Annotated[
    int,
    typer.Option(metavar="N", min=1, help="Positions up to which percentiles are exact."),
]
PositionsFile = Annotated[
    str | None,
    typer.Option(
        "--positions",
        "--dump-positions",
        metavar="FILE.parquet",
        help="Keep the table of positions.",
    ),
]
TableFormat = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help=f"The table: {', '.join(presenting.FORMATS)}; plain without it.",
    ),
]
JsonFile = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Write the numbers; - for stdout, without the table."),
]
HtmlFile = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Write one page with charts and the worst positions."),
]
PageLanguage = Annotated[
    str | None,
    typer.Option(metavar="en|zh", help="The language of the page's words; en without it."),
]
TokenizerFile = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="What gives the page's tokens their text: tokenizer.json, GGUF, or a directory.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, max=256, help="Threads; all CPUs without it."),
]
Text = Annotated[
    str,
    typer.Option(
        metavar="FILE|DIR",
        help="Plain text, JSONL or Parquet (FILE:FIELD), or a directory of them.",
    ),
]
Context = Annotated[int, typer.Option(metavar="N", min=2, help="Tokens of a window.")]
Stride = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Tokens from one window to the next; a window's own length without it.",
    ),
]
Device = Annotated[
    str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:1 and so on, or mps.")
]
Dtype = Annotated[
    str,
    typer.Option(
        metavar="DTYPE",
        help="float32, bfloat16, float16 or float64; auto is what the model is stored in, "
        "float32 of GGUF.",
    ),
]
WorkDirectory = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        help="Keep what is scored; the same command goes on from there after it was killed.",
    ),
]
DaskAddress = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Score on workers of Dask: tcp://HOST:8786 of a scheduler, or local:N processes.",
    ),
]
BlockPositions = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="With --work and --dask: positions of a block, about."),
]
