"""What tests of base files of llama.cpp share."""

import pytest
from llama_cpp_files import logits_of, pack, tokens_of


@pytest.fixture
def base(tmp_path):
    """A file of `_logits_` on disk, with what it holds."""
    tokens = tokens_of(11)
    data, log_probs = pack("_logits_", logits_of(11), tokens)
    path = tmp_path / "base.kld"
    path.write_bytes(data)
    return path, data, log_probs, tokens
