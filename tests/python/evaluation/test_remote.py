"""Dumps that are not on a disk, by names that fsspec opens."""

import contextlib
import http.server
import re
import threading
import uuid
from typing import ClassVar

import numpy as np
import pytest
from safetensors.numpy import save_file

import kldiv
from kldiv.evaluation import evaluate, open_dump
from kldiv.evaluation.dumps.convert import convert
from kldiv.evaluation.dumps.protocol import DumpError
from kldiv.evaluation.engines.identity import _path

fsspec = pytest.importorskip("fsspec")

SEQUENCES, POSITIONS, CLASSES = 3, 7, 500
FORMS = ("p.npy", "p.npz", "p.safetensors", "p.parquet", "p/", "p.zarr")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("remote")
    rng = np.random.default_rng(0)
    np.save(folder / "q.npy", rng.normal(0, 2, (SEQUENCES, POSITIONS, CLASSES)).astype(np.float32))
    np.save(folder / "p.npy", rng.normal(0, 2, (SEQUENCES, POSITIONS, CLASSES)).astype(np.float32))
    for form in FORMS[1:]:
        end = "/" if form.endswith("/") else ""
        convert(open_dump(folder / "p.npy"), str(folder / form) + end)
    save_file({"only": np.load(folder / "p.npy")[0]}, folder / "one.safetensors")
    return folder


@pytest.fixture(scope="module")
def memory(folder):
    """The folder in fsspec's memory."""
    name = f"memory://{uuid.uuid4().hex}"
    system = fsspec.filesystem("memory")
    system.put(str(folder), name.removeprefix("memory:/"), recursive=True)
    yield name
    system.rm(name.removeprefix("memory:/"), recursive=True)


class _Ranges(http.server.SimpleHTTPRequestHandler):
    """Files, whole or in part, as stores of objects give them."""

    served: ClassVar[list] = []

    def log_message(self, *_):
        pass

    def do_GET(self):
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        path = self.translate_path(self.path)
        if wanted is None or path.endswith("/"):
            super().do_GET()
            return
        with open(path, "rb") as file:
            data = file.read()
        start, stop = int(wanted[1]), min(int(wanted[2]) + 1, len(data))
        self.served.append(stop - start)
        self.send_response(206)
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(data[start:stop])

    def end_headers(self):
        self.send_header("Accept-Ranges", "bytes")
        super().end_headers()


@pytest.fixture(scope="module")
def web(folder):
    """The folder on a web server."""
    pytest.importorskip("aiohttp")

    def handler(*arguments):
        return _Ranges(*arguments, directory=str(folder))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def expected(folder):
    return evaluate(str(folder / "p.npy"), str(folder / "q.npy")).positions.drop("name")


@pytest.mark.parametrize("form", FORMS)
def test_formats_in_another_file_system(memory, expected, form):
    found = evaluate(f"{memory}/{form.rstrip('/')}", f"{memory}/q.npy")
    assert found.positions.drop("name", "candidate").equals(expected.drop("candidate"))
    assert found.about["reference"]["file"] == f"{memory}/{form.rstrip('/')}"


@pytest.mark.parametrize("form", ["p.npy", "p.safetensors", "p.parquet", "p/"])
def test_formats_on_the_web(web, expected, form):
    found = evaluate(f"{web}/{form.rstrip('/')}", f"{web}/q.npy")
    assert found.positions.drop("name", "candidate").equals(expected.drop("candidate"))


def test_names_on_this_disk(folder, expected):
    found = evaluate(f"file://{folder}/p.npy", f"local://{folder}/q.npy")
    assert found.positions.drop("name", "candidate").equals(expected.drop("candidate"))
    one = open_dump(f"file://{folder}/one.safetensors:only")
    assert one.name == f"{folder}/one.safetensors:only"


def test_only_what_is_asked_for_is_fetched(web, folder):
    """Rows in the middle of a file are not behind what comes before them."""
    _Ranges.served.clear()
    dump = open_dump(f"{web}/p.npy").between(1, 2)
    [sequence] = dump.sequences()
    rows = np.concatenate([block.copy() for block in sequence.read(5)])
    assert np.array_equal(rows, np.load(folder / "p.npy")[1])


def test_what_is_not_there(memory, web, folder):
    for name, message in (
        (f"{memory}/none.npy", "no such file"),
        (f"{web}/none.npy", "no such file"),
        ("nothing://x/y.npy", "rotocol not known"),
        (f"{memory}/q.npy:key", "no such file|has no names"),
        (f"file://{folder}/none.npy", "no such file"),
    ):
        with pytest.raises(DumpError, match=message) as caught:
            open_dump(name)
        assert "\n" not in str(caught.value)


def test_work_knows_what_changed_elsewhere(memory, folder, tmp_path):
    names = f"{memory}/p.npy", f"{memory}/q.npy"
    first = evaluate(*names, work=tmp_path / "work")
    assert evaluate(*names, work=tmp_path / "work").positions.equals(first.positions)
    path = open_dump(f"{memory}/p.npy").paths[0]
    before = _path(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    fsspec.filesystem("memory").pipe_file(path.path, bytes(data))
    assert _path(path) != before


@pytest.mark.parametrize("name", ["k.safetensors", "k.parquet"])
def test_top_k_rows_that_are_not_on_a_disk(folder, memory, name, tmp_path):
    logits = np.load(folder / "p.npy")
    ids = np.argsort(-logits, axis=-1, kind="stable")[..., :6]
    values = np.take_along_axis(logits, ids, -1)
    kept = kldiv.TopK(ids, logits=values, normalizer=kldiv.logsumexp(logits), classes=CLASSES)
    kept.save(tmp_path / name)
    fsspec.filesystem("memory").put(str(tmp_path / name), f"{memory[8:]}/{name}")
    here = evaluate(tmp_path / name, folder / "q.npy")
    there = evaluate(f"{memory}/{name}", f"{memory}/q.npy")
    assert there.positions.drop("candidate").equals(here.positions.drop("candidate"))
