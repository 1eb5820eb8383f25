"""DistillKit's and open-instruct's Parquet of compressed log-probabilities."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kldiv import _arrays, _optional
from kldiv._arrays import Array
from kldiv._text import one_line
from kldiv._top_k import checks
from kldiv._top_k.container import TopK

LOG_PROBS, INDICES = "compressed_logprobs", "bytepacked_indices"
RAW_LOG_PROBS, RAW_IDS = "top_values", "token_ids"
_SAMPLES = 16  # decoded at a time


@dataclass(frozen=True)
class Bin:
    """Residuals that share a scale."""

    scale: np.dtype[Any]
    bits: int
    count: int


@dataclass(frozen=True)
class Compression:
    """DistillKit's ``DistributionQuantizationConfig``."""

    classes: int
    k: int
    exact: int
    exact_dtype: np.dtype[Any]
    terms: tuple[Any, ...]
    term_dtype: np.dtype[Any]
    bins: tuple[Bin, ...]
    deltas: bool
    unit_interval: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Compression:
        """Of what its YAML holds, with the defaults of DistillKit.

        Raises
        ------
        ValueError
            For a key that is missing or has no such value.
        """
        try:
            made = cls(
                classes=int(config["d"]),
                k=int(config["k"]),
                exact=int(config["exact_k"]),
                exact_dtype=_dtype(config.get("exact_dtype", "float32")),
                terms=tuple(config.get("polynomial_terms") or ()),
                term_dtype=_dtype(config.get("term_dtype", "float32")),
                bins=tuple(
                    Bin(_dtype(b["scale_dtype"]), int(b["element_bits"]), int(b["num_elements"]))
                    for b in config.get("residual_bins") or ()
                ),
                deltas=bool(config.get("delta_encoding", True)),
                unit_interval=bool(config.get("normalize_t", False)),
            )
        except KeyError as error:
            raise ValueError(f"config lacks {error}, of DistillKit's compression") from None
        except (TypeError, AttributeError, OverflowError):
            raise ValueError(
                f"config is {str(config)[:200]!r}; expected DistillKit's compression"
            ) from None
        sound = (
            2 <= made.classes < 1 << 62
            and 0 <= made.exact <= made.k <= made.classes
            and all(1 <= b.bits <= 32 and b.count >= 1 for b in made.bins)
            and sum(b.count for b in made.bins) <= made.k - made.exact
            and all(term in ("sqrt", "exp") or type(term) is int for term in made.terms)
        )
        if not sound:
            raise ValueError(
                f"config is {str(dict(config))[:200]}, which no distribution is compressed by"
            )
        return made

    @property
    def index_bits(self) -> int:
        """Of an id."""
        return (self.classes - 1).bit_length()

    @property
    def index_bytes(self) -> int:
        """Of the ids of a position."""
        return (self.k * self.index_bits + 7) // 8

    @property
    def value_bytes(self) -> int:
        """Of the log-probabilities of a position."""
        of_bins = sum(b.scale.itemsize + (b.bits * b.count + 7) // 8 for b in self.bins)
        of_terms = len(self.terms) * self.term_dtype.itemsize
        return self.exact * self.exact_dtype.itemsize + of_terms + of_bins

    def ids(self, packed: Array) -> Array:
        """The ids in rows of bytes: `index_bits` each, the highest first."""
        return _unpacked(packed, self.index_bits, self.k)

    def log_probs(self, packed: Array) -> Array:
        """The log-probabilities in rows of bytes, as ``decompress_monotonic_logprobs`` has them.

        Exact values, the coefficients of a sum of functions of the rank, and bins of quantised
        differences from it; all of that of the differences between ranks where those are coded.
        """
        rows, at = len(packed), 0

        def taken(count: int, dtype: np.dtype[Any]) -> Array:
            nonlocal at
            size = count * dtype.itemsize
            part = np.ascontiguousarray(packed[:, at : at + size])
            at += size
            return part.view(dtype).reshape(rows, count)

        exact = taken(self.exact, self.exact_dtype).astype(np.float64)
        rest = np.zeros((rows, self.k - self.exact))
        if self.terms:
            rest += self._fit(taken(len(self.terms), self.term_dtype))
        start = 0
        for one in self.bins:
            scale = taken(1, one.scale).astype(np.float32)
            size = (one.bits * one.count + 7) // 8
            quantised = _unpacked(packed[:, at : at + size], one.bits, one.count)
            at += size
            centred = quantised * 2 - 1 if one.bits == 1 else quantised - (1 << (one.bits - 1))
            rest[:, start : start + one.count] += centred.astype(np.float32) * scale
            start += one.count
        values = np.concatenate([exact, rest], axis=1)
        if self.deltas:
            values = np.cumsum(values.astype(np.float32), axis=1, dtype=np.float32)
        wide = self.exact_dtype.itemsize > 4 and not self.deltas
        return values if wide else values.astype(np.float32)

    def _fit(self, coefficients: Array) -> Array:
        """The sum of the terms at every rank, rounded as in the dtype of the terms."""
        count, dtype = self.k - self.exact, self.term_dtype
        wide: Any = np.float64 if dtype.itemsize == 8 else np.float32
        ranks = np.linspace(0, 1, count) if self.unit_interval else np.arange(count)
        points = ranks.astype(dtype).astype(wide)
        with np.errstate(over="ignore"):
            functions = [
                points**term if isinstance(term, int) else getattr(np, term)(points)
                for term in self.terms
            ]
        columns: Array = np.stack(functions).astype(dtype).astype(wide)
        products: Array = columns.T * coefficients.astype(wide)[:, None, :]
        found: Array = products.astype(dtype).astype(wide).sum(axis=-1).astype(dtype)
        return found.astype(np.float64)


def from_distillkit(
    path: str | os.PathLike[str],
    config: Mapping[str, Any] | str | os.PathLike[str],
    *,
    normalized: bool = True,
) -> Iterator[TopK]:
    """The samples of a Parquet file of DistillKit or open-instruct, one after the other.

    Columns ``compressed_logprobs`` and ``bytepacked_indices`` hold bytes, a list a position, which
    only the configuration of the compression explains: it travels separately, in open-instruct as
    ``compression_config.yaml`` in the same directory. ``token_ids`` and ``top_values`` hold the
    same as they are. Read in ``distillkit/compression`` (``config.py``, ``bitpack.py``,
    ``monotonic_logprobs.py``).

    Positions are those of the sample's tokens as it stores them: vLLM's ``prompt_logprobs``
    without the first token's.

    Parameters
    ----------
    path : str or path-like
        A ``.parquet``.
    config : mapping, or str or path-like
        ``d``, ``k``, ``exact_k``, ``exact_dtype``, ``polynomial_terms``, ``term_dtype``,
        ``residual_bins``, ``delta_encoding``, ``normalize_t`` as in DistillKit, or the ``.yaml``
        or ``.json`` that holds them. Of ``token_ids`` and ``top_values`` only ``d``, the number of
        classes, is looked at.
    normalized : bool
        Whether the numbers are log-probabilities over all classes. Quantised ones may add up to
        more than 1; without, they are logits of which the normaliser is not known.

    Yields
    ------
    TopK
        Of one sample, float32, of batch shape ``(positions,)``.

    Raises
    ------
    ValueError
        As `TopK`; for other columns, bytes that the configuration does not explain, and exact
        values that rise. The message names sample, row and id.
    ModuleNotFoundError
        Without pyarrow, or PyYAML for ``.yaml``.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> import pyarrow as pa, pyarrow.parquet as pq
    >>> import kldiv.teachers
    >>> packed = np.array([-0.5, -1.5], np.float32).view(np.uint8).tolist()
    >>> columns = {"compressed_logprobs": [[packed]], "bytepacked_indices": [[[0b111_010_00]]]}
    >>> file = tempfile.mkdtemp() + "/samples.parquet"
    >>> pq.write_table(pa.table(columns), file)
    >>> config = {"d": 8, "k": 2, "exact_k": 2, "delta_encoding": False}
    >>> next(kldiv.teachers.from_distillkit(file, config)).ids
    array([[7, 2]])
    """
    parquet = _optional.module("pyarrow.parquet")
    given = config if isinstance(config, Mapping) else _read(Path(config))
    with _reading(path), parquet.ParquetFile(os.fspath(path)) as file:
        names = file.schema_arrow.names
        raw = RAW_IDS in names and RAW_LOG_PROBS in names
        pair = (RAW_IDS, RAW_LOG_PROBS) if raw else (INDICES, LOG_PROBS)
        if not set(pair) <= set(names):
            legacy = "; packed_indices are of its older compression" if "coeffs" in names else ""
            raise ValueError(
                f"{path} has the columns {one_line(', '.join(names))}; expected {INDICES} and "
                f"{LOG_PROBS}, or {RAW_IDS} and {RAW_LOG_PROBS}{legacy}"
            )
        try:
            compression = None if raw else Compression.of(given)
            classes = _classes(given) if compression is None else compression.classes
        except ValueError as error:
            if isinstance(config, Mapping):
                raise
            raise ValueError(f"{os.fspath(config)}: {error}") from None
        number = 0
        for batch in file.iter_batches(_SAMPLES, columns=list(pair)):
            columns = [batch.column(batch.schema.names.index(name)) for name in pair]
            for ids, values in zip(*columns, strict=True):
                try:
                    yield _sample(ids, values, compression, classes, normalized)
                except ValueError as error:
                    raise ValueError(f"{path}, sample {number}: {error}") from None
                number += 1


@contextmanager
def _reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Name the file in what pyarrow says of a broken one."""
    try:
        yield
    except Exception as error:
        of_arrow = type(error).__module__.startswith("pyarrow")
        # Errors of the system have a number; names of columns are decoded without one of its own.
        of_arrow |= isinstance(error, UnicodeDecodeError)
        if of_arrow or (isinstance(error, OSError) and error.errno is None):
            what = "is no Parquet file that can be read"
            raise ValueError(f"{os.fspath(path)} {what}: {one_line(str(error))}") from None
        raise


def _classes(config: Mapping[str, Any]) -> int:
    classes = config.get("d")
    if type(classes) is not int or not 2 <= classes < 1 << 62:
        raise ValueError("config lacks 'd', the number of classes")
    return classes


def _sample(
    ids: Any, values: Any, compression: Compression | None, classes: int, normalized: bool
) -> TopK:
    kind = "log_probs" if normalized else "logits"
    if compression is None:
        found, logs = _rows(ids, RAW_IDS, None), _rows(values, RAW_LOG_PROBS, None)
        exact = found.shape[1]
    else:
        found = compression.ids(_bytes(ids, INDICES, compression.index_bytes))
        logs = compression.log_probs(_bytes(values, LOG_PROBS, compression.value_bytes))
        exact = compression.exact
    top_k = TopK(found, classes=classes, **{kind: logs})
    if compression is not None:
        begins = np.arange(len(found) + 1) * exact
        checks.check_falling(found[:, :exact], logs[:, :exact], begins, LOG_PROBS)
    return top_k


def _bytes(sample: Any, name: str, width: int) -> Array:
    """The lists of a sample as rows of bytes, of whatever integer dtype the file has."""
    found = _rows(sample, name, width)
    if found.dtype.kind not in "iu" or (found.size and not 0 <= found.min() <= found.max() <= 255):
        raise ValueError(f"{name} holds {found.dtype} of more than a byte; expected bytes")
    return found.astype(np.uint8)


def _rows(sample: Any, name: str, width: int | None) -> Array:
    """The lists of a sample as rows of one length."""
    if not sample.is_valid:
        raise ValueError(f"{name} is null")
    lists = sample.values
    lengths = np.asarray(lists.value_lengths().fill_null(-1))
    if width is None:
        width = int(lengths[0]) if len(lengths) else 0
    if (wrong := lengths != width).any():
        row = int(np.argmax(wrong))
        raise ValueError(f"row {row} of {name} has {lengths[row]} elements; expected {width}")
    found: Array = lists.flatten().to_numpy(zero_copy_only=False)
    return found.reshape(len(lengths), width)


def _unpacked(packed: Array, bits: int, count: int) -> Array:
    """Integers of so many bits, the highest first, in rows of bytes."""
    each = np.unpackbits(np.ascontiguousarray(packed), axis=1, count=bits * count)
    powers = 1 << np.arange(bits - 1, -1, -1, dtype=np.int64)
    return each.reshape(len(packed), count, bits) @ powers


def _dtype(name: Any) -> np.dtype[Any]:
    if name == "bfloat16":
        return _arrays.bfloat16()
    if name not in ("float16", "float32", "float64"):
        raise ValueError(f"config names the dtype {name!r}; expected one of DistillKit's")
    dtype: np.dtype[Any] = np.dtype(name)
    return dtype


def _read(path: Path) -> Mapping[str, Any]:
    yaml = None if path.suffix.lower() == ".json" else _optional.module("yaml")
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if yaml is None else yaml.safe_load(text)
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not text in UTF-8") from None
    except Exception as error:
        # YAML's own, and what makes numbers, dates and keys of its scalars, raise what they like.
        if isinstance(error, OSError | MemoryError):
            raise
        kind = "JSON" if yaml is None else "YAML"
        raise ValueError(f"{path} is no {kind} that can be read: {one_line(str(error))}") from None
    if not isinstance(found, Mapping):
        raise ValueError(f"{path} holds no configuration of a compression")
    return found
