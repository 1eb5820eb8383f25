"""What is read, and how: every way into the package that a file has."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import kldiv
import kldiv.teachers
from kldiv.evaluation.dumps import formats, llama_cpp, llama_cpp_doctor, streams
from kldiv.evaluation.dumps.convert import convert
from kldiv.evaluation.dumps.describe import describe, lines
from kldiv.evaluation.dumps.protocol import Dump, Sequence
from kldiv.evaluation.dumps.row_files import read_labels, read_mask
from kldiv.evaluation.dumps.sequences import cut, read_lengths
from kldiv.evaluation.engines.job import Block
from kldiv.evaluation.engines.work import WorkDirectory
from kldiv.evaluation.head_files import stored_head
from kldiv.evaluation.models.texts import read_documents
from kldiv.evaluation.positions import Start
from kldiv.evaluation.report.tokens import tokens_of
from kldiv.evaluation.results import read_results
from kldiv.evaluation.side_files import read_floor, read_sequence_labels
from kldiv.evaluation.tables.logs import read_logs

from . import corpus
from .corpus import IDENTITY, WIDTH, Tree


@dataclass(frozen=True)
class Subject:
    """A format, and everything that reads it."""

    name: str
    make: Callable[[], Iterator[Tree]]
    read: tuple[Callable[[Path], object], ...]
    """Each is given what people would name: the only file or folder."""

    @cached_property
    def trees(self) -> list[Tree]:
        """The whole files."""
        return list(self.make())


def _all_rows(dump: Dump) -> None:
    for sequence in dump.sequences():
        for block in sequence.read(2):
            assert len(block)


def dump(path: Path) -> None:
    """Look at a dump, and read all of it, twice if that can be."""
    found = formats.open_dump(path)
    assert lines(describe(found))
    _all_rows(found)
    if isinstance(found, llama_cpp.LlamaCppDump):
        assert llama_cpp_doctor.examine(found).lines()
    rows = [sequence for sequence in found.sequences() if sequence.positions]
    for sequence in rows[::-1][:3]:
        next(iter(sequence.read(1)), None)


def of_a_kind(path: Path) -> None:
    """A dump whose kind is told, and one of its keys."""
    keyed = path.suffix in (".npz", ".safetensors", ".parquet", ".zarr")
    _all_rows(formats.open_dump(f"{path}:logits" if keyed else path, kind="log_probs"))


def converted(path: Path) -> None:
    """A dump written in another format."""
    to = ".parquet" if path.suffix == ".safetensors" else ".safetensors"
    convert(formats.open_dump(path), path.with_name(f"converted{to}"), classes=60)


def evaluated(path: Path) -> None:
    """A dump compared with rows of memory, or with itself."""
    other: object = formats.open_dump(path)
    if isinstance(other, formats.DenseDump) and other.width == WIDTH:
        other = corpus.arrays(4)
    evaluation = kldiv.evaluate(path, other)
    evaluation.summary().as_dict()


def from_a_pipe(path: Path) -> None:
    """The same bytes, of which each comes once."""
    stream = streams.Stream(path.name, io.FileIO(path))
    for module in (streams, llama_cpp):
        if module.probe_stream(stream.peek(16)):
            _all_rows(module.open_stream(stream, path.name))
            return


def top_k(path: Path) -> None:
    """`kldiv.TopK.load`."""
    found = kldiv.TopK.load(path)
    if found.is_normalized:
        assert found.coverage().shape == found.batch_shape
    if found.classes < 1000 and found.rows < 1000:
        found.to_dense(fill=0.0)


def head(path: Path) -> None:
    """An output layer."""
    stored = stored_head(str(path))
    for block in stored.blocks(range(stored.shape[0]), 4):
        assert len(block)


def labels(path: Path) -> None:
    """Labels of rows."""
    read_labels(str(path), None)
    read_labels(str(path), (6,))


def mask(path: Path) -> None:
    """A mask of rows."""
    read_mask(str(path), None)


def cut_into_sequences(path: Path) -> None:
    """Lengths of sequences, and rows cut by them."""
    _all_rows(
        cut(
            kldiv.evaluation.arguments.of_memory(corpus.arrays(), "rows", "logits"),
            read_lengths(path),
        )
    )


def positions(path: Path) -> None:
    """A table of positions, and its statistics."""
    evaluation = kldiv.evaluation.read_positions(path)
    evaluation.summary().as_dict()


def work(path: Path) -> None:
    """A run that goes on."""
    directory = WorkDirectory(path, IDENTITY)
    try:
        sequence = Sequence("a.npy", 1, lambda step: iter(()))
        directory.find(Block(0, Start(), [[sequence]], len(corpus.block_table())))
    finally:
        directory.close()


def texts(path: Path) -> None:
    """The documents of a file."""
    for document in read_documents(str(path)):
        assert isinstance(document.text, str)


def tokenizer(path: Path) -> None:
    """The tokens of a tokenizer."""
    tokens = tokens_of(path)
    assert tokens is not None
    for number in range(min(tokens.size, 5)):
        tokens.token(number)
    tokens.text([0, 1, 2])


def server_texts(path: Path) -> None:
    """Responses of servers as top-k rows."""
    for found in kldiv.teachers.from_server_json(path, classes=60):
        assert found.classes == 60


def distillkit(path: Path) -> None:
    """DistillKit's samples, with the configuration beside them."""
    config = next(iter(path.parent.glob("config.*")))
    for normalized in (True, False):
        for found in kldiv.teachers.from_distillkit(path, config, normalized=normalized):
            assert isinstance(found, kldiv.TopK)


def sequence_labels(path: Path) -> None:
    """What each sequence belongs to."""
    read_sequence_labels(str(path))


def floor(path: Path) -> None:
    """KL of two runs of one model."""
    read_floor(str(path))


def log(path: Path) -> None:
    """The table that llama.cpp printed."""
    read_logs([path])


def results(path: Path) -> None:
    """A result in JSON, and its numbers."""
    for result in read_results(path):
        for name in result.numbers():
            result.known(name)


SUBJECTS = (
    Subject("npy", corpus.npy, (dump, of_a_kind, from_a_pipe, evaluated, converted)),
    Subject("npz", corpus.npz, (dump, of_a_kind, evaluated, converted)),
    Subject("safetensors", corpus.safetensors, (dump, of_a_kind, evaluated, converted)),
    Subject("sharded", corpus.sharded, (dump, evaluated, head)),
    Subject("directory", corpus.directories, (dump,)),
    Subject("llama.cpp", corpus.llama_cpp, (dump, from_a_pipe, evaluated)),
    Subject("server JSON", corpus.servers, (dump, server_texts, converted, evaluated)),
    Subject("parquet", corpus.parquet, (dump, of_a_kind, evaluated)),
    Subject("zarr", corpus.zarrs, (dump, of_a_kind)),
    Subject("top-k", corpus.top_k_files, (dump, top_k, converted, evaluated)),
    Subject("head", corpus.heads, (head,)),
    Subject("labels", corpus.row_files, (labels, mask)),
    Subject("lengths", corpus.lengths, (cut_into_sequences,)),
    Subject("sequence labels", corpus.sequence_labels, (sequence_labels,)),
    Subject("floor", corpus.floors, (floor,)),
    Subject("result", corpus.results, (results,)),
    Subject("positions", corpus.positions, (positions,)),
    Subject("work", corpus.work, (work,)),
    Subject("log", corpus.logs, (log,)),
    Subject("texts", corpus.texts, (texts,)),
    Subject("tokenizer", corpus.tokenizers, (tokenizer,)),
    Subject("distillkit", corpus.distillkit, (distillkit,)),
)


def named(tree: Tree, folder: Path) -> Path:
    """What people would name of a tree: a dump's folder, its index, or the only file."""
    first = next(iter(tree))
    if "samples.parquet" in tree:
        return folder / "samples.parquet"
    if any(name.endswith(".index.json") for name in tree):
        return folder / "model.safetensors.index.json"
    if first.startswith(("dump.zarr/", "work/")):
        return folder / first.partition("/")[0]
    return folder / first if len(tree) == 1 else folder
