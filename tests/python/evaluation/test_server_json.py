"""Servers' JSON read as dumps of top-k rows."""

import gzip
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import server_json as maker

from kldiv.evaluation.bounds import bounds
from kldiv.evaluation.dumps import server_json
from kldiv.evaluation.dumps.protocol import DumpError
from kldiv.evaluation.dumps.server_json import TEXT_IDS, describe
from kldiv.evaluation.dumps.server_json.texts import id_of_token
from kldiv.evaluation.evaluate_dumps import evaluate

K, CLASSES = 4, 30


@pytest.fixture
def text(rng):
    """Logits of two texts of 7 and 3 tokens, where the own tokens seldom the most probable."""
    found = []
    for length in (7, 3):
        tokens = rng.integers(CLASSES, size=length)
        found.append((rng.normal(0, 3, (length - 1, CLASSES)), tokens))
    return found


def rows_of(path):
    """Names, and of every sequence labels and the one block."""
    dump = server_json.open(path)
    return [(x.name, x.labels, next(x.read(1000))) for x in dump.sequences()]


def known(block, row):
    """What a row lists, by id."""
    kept = block.ids[row] >= 0
    return dict(zip(block.ids[row][kept].tolist(), block.log_probs[row][kept], strict=True))


@pytest.mark.parametrize("extension", [".json", ".jsonl", ".json.gz", ".jsonl.gz"])
@pytest.mark.parametrize("server", maker.SERVERS)
def test_every_server_and_extension(tmp_path, text, server, extension):
    responses = [maker.SERVERS[server](logits, tokens, K) for logits, tokens in text]
    path = maker.write(tmp_path / f"a{extension}", responses)
    assert server_json.probe(path)
    dump = server_json.open(path)
    assert (dump.kind, dump.width, dump.format) == ("top_k", None, f"{server.split()[0]} JSON")
    by_text = "OpenAI" in server
    assert dump.details()["k"] == (K + 1 if server == "vLLM" else K)
    assert dump.details()["tokens"] == ("text" if by_text else "ids")
    for (logits, tokens), (_, labels, block) in zip(text, rows_of(path), strict=True):
        spell = (lambda i: id_of_token(maker.text_of(i))) if by_text else int
        assert labels.tolist() == [spell(i) for i in tokens[1:]]
        for row, (best, (own, log_prob, _)) in enumerate(maker.top(logits, tokens, K)):
            expected = {spell(i): x for i, x in [*best, (own, log_prob)]}
            assert known(block, row) == expected
            assert block.top1[row] == spell(best[0][0])
            # An own token among the most probable is not told from one that was added.
            others = [x for i, x in best if i != own]
            assert block.at_most[row] == others[-1]


def test_names_and_blocks(tmp_path, text):
    path = maker.write(tmp_path / "a.jsonl", [maker.sglang(*x, K) for x in text])
    sequences = list(server_json.open(path).sequences())
    assert [(x.name, x.positions, x.first) for x in sequences] == [
        (f"{path}:1", 6, 0), (f"{path}:2", 2, 0),
    ]  # fmt: skip
    whole = next(sequences[0].read(6))
    blocks = list(sequences[0].read(4))
    assert [len(x) for x in blocks] == [4, 2]
    for field in ("ids", "log_probs", "top1", "at_most"):
        parts = np.concatenate([getattr(x, field) for x in blocks])
        np.testing.assert_array_equal(parts, getattr(whole, field))
    listed = maker.write(tmp_path / "a.json", [maker.sglang(*x, K) for x in text])
    assert [x[0] for x in rows_of(listed)] == [f"{listed}[0]", f"{listed}[1]"]
    # Batch files wrap responses; in other lines are blank.
    body = {"custom_id": "q7", "response": {"status_code": 200, "body": maker.vllm(*text[0], K)}}
    path.write_text("\n" + json.dumps(body) + "\n\n")
    assert [x[0] for x in rows_of(path)] == [f"{path}:2 (q7)"]
    both = maker.openai_chat(*text[0], K)
    both["choices"] += maker.openai_chat(*text[1], K)["choices"]
    names = [x[0] for x in rows_of(maker.write(listed, both))]
    assert names == [f"{listed} choice 0", f"{listed} choice 1"]


def test_lists_by_themselves(tmp_path, text):
    logits, tokens = text[0]
    full = rows_of(maker.write(tmp_path / "a.json", [maker.vllm(logits, tokens, K)]))
    for name, positions in (
        ("vLLM", maker.vllm(logits, tokens, K)["choices"][0]["prompt_logprobs"]),
        ("SGLang", maker.sglang(logits, tokens, K)["meta_info"]["input_top_logprobs"]),
        ("Tinker", maker.tinker(logits, tokens, K)["topk_prompt_logprobs"]),
    ):
        path = tmp_path / "b.jsonl"
        path.write_text(json.dumps(positions) + "\n")
        assert server_json.open(path).format == f"{name} JSON"
        ((_, labels, block),) = rows_of(path)
        assert (labels == -100).all() == (name != "vLLM")
        np.testing.assert_array_equal(block.top1, full[0][2].top1)
        if name != "vLLM":
            # Any of them may be the text's own, which servers add.
            values = np.sort(block.log_probs, axis=1)
            np.testing.assert_array_equal(block.at_most, values[:, -K:][:, 1])


def test_where_vllm_puts_them(tmp_path, text):
    logits, tokens = text[0]
    positions = maker.vllm(logits, tokens, K)["choices"][0]["prompt_logprobs"]
    generated = {
        "prompt_token_ids": [1, 2, 3],
        "outputs": [{"token_ids": [int(x) for x in tokens[1:]], "logprobs": positions[1:]}],
    }
    choice = {"prompt_logprobs": positions}
    for response, first, scored in (
        ({"choices": [{}], "prompt_logprobs": positions}, 0, "prompt"),
        # n = 2: the prompt is the same, and scored once.
        ({"choices": [choice, choice]}, 0, "prompt"),
        (generated, 2, "completion"),
    ):
        path = maker.write(tmp_path / "a.json", response)
        dump = server_json.open(path)
        (sequence,) = dump.sequences()
        assert (sequence.first, dump.details()["scored"]) == (first, scored)
        assert sequence.labels.tolist() == tokens[1:].tolist()


def test_the_own_token_of_vllm(tmp_path, text):
    logits, tokens = text[0]
    given = maker.vllm(logits, tokens, K)
    positions = given["choices"][0]["prompt_logprobs"]
    # Keys put in order, as some programs do: a rank beyond K still tells.
    given["choices"][0]["prompt_logprobs"] = [
        x and dict(sorted(x.items(), key=lambda item: int(item[0]))) for x in positions
    ]
    ((_, labels, _),) = rows_of(maker.write(tmp_path / "a.json", given))
    ranks = [rank for _, (_, _, rank) in maker.top(logits, tokens, K)]
    assert sum(rank > K for rank in ranks) > 1
    expected = [token if rank > K else -100 for token, rank in zip(tokens[1:], ranks, strict=True)]
    assert labels.tolist() == expected
    # With return_token_ids there is nothing to find out.
    given["choices"][0]["prompt_token_ids"] = tokens.tolist()
    ((_, labels, _),) = rows_of(maker.write(tmp_path / "a.json", given))
    assert labels.tolist() == tokens[1:].tolist()


def test_ranks_say_whether_the_most_probable_token_is_listed(tmp_path):
    entry = {"logprob": -3.0, "rank": 9, "decoded_token": "x"}
    for rank, log_prob, top1 in ((9, -3.0, -1), (1, -3.0, 5), (9, -0.5, 5)):
        position = {"5": entry | {"rank": rank, "logprob": log_prob}}
        path = maker.write(tmp_path / "a.json", {"prompt_logprobs": [None, position]})
        ((_, _, block),) = rows_of(path)
        # More than half of the mass is the most probable, whatever its rank is said to be.
        assert block.top1.tolist() == [top1]
        assert block.at_most.tolist() == [0.0]


def test_a_later_beginning_and_places_without_a_token(tmp_path, text):
    logits, tokens = text[0]
    given = maker.sglang(logits, tokens, K)
    meta = given["meta_info"]
    # logprob_start_len = 2, and one position that the server left out.
    meta["input_token_logprobs"] = [[None, 1, None], *meta["input_token_logprobs"][3:]]
    meta["input_top_logprobs"] = [None, *meta["input_top_logprobs"][3:]]
    meta["input_top_logprobs"][2] = None
    meta["input_token_logprobs"][2][0] = None
    (sequence,) = server_json.open(maker.write(tmp_path / "a.json", given)).sequences()
    block = next(sequence.read(9))
    assert (sequence.first, sequence.positions) == (2, 4)
    assert sequence.labels.tolist() == tokens[3:].tolist()
    assert known(block, 1) == {}
    assert (block.top1[1], block.at_most[1]) == (-1, 0.0)
    found = bounds(block, block, sequence.labels)
    assert (found["kl_lower"][1], found["total_variation_upper"][1]) == (0.0, 1.0)
    assert np.isnan(found["nll_p"][1])


def test_what_is_twice_or_unlikely_is_left_out(tmp_path):
    listed = [[3, -0.5], [7, -1.5], [3, -0.5], [8, -99999.0], [9, -math.inf]]
    response = {"topk_prompt_logprobs": [None, listed]}
    ((_, _, block),) = rows_of(maker.write(tmp_path / "a.json", response))
    assert known(block, 0) == {3: -0.5, 7: -1.5, 9: -math.inf}


def test_texts_that_stand_for_several_tokens(tmp_path, text):
    # U+FFFD, and one text with two log-probabilities: neither says which token it is.
    def entry(token, log_prob, spelled=None):
        return {"token": token, "logprob": log_prob, "bytes": spelled}

    best = [entry("\ufffd", -0.6), entry("a", -1.5), entry("b", -1.9), entry("a", -3.0)]
    best.append(entry("c", -3.5))
    content = [entry("b", -1.9) | {"top_logprobs": best}]
    response = {"choices": [{"logprobs": {"content": content}}]}
    ((_, _, block),) = rows_of(maker.write(tmp_path / "a.json", response))
    assert known(block, 0) == {id_of_token("b"): -1.9, id_of_token("c"): -3.5}
    # What is left out may be the most probable, and is more probable than the least one listed.
    assert (block.top1[0], block.at_most[0]) == (-1, -0.6)


def test_ids_of_texts():
    smile = "😀".encode()
    assert id_of_token("token_id:12") == 12
    assert id_of_token("x", [32], 5) == 5
    assert id_of_token("x", list(smile)) == id_of_token("😀") > TEXT_IDS
    assert id_of_token(r"bytes:\xf0\x9f") == id_of_token("?", [0xF0, 0x9F]) != id_of_token("?")
    assert describe(id_of_token("é")) == "'é'"
    assert describe(12) == "12"
    # The same in every process: files made apart are comparable.
    assert id_of_token(" the") == 6665623881149954308
    for token, spelled in ((None, None), ("x", [256]), ("x", ["a"])):
        with pytest.raises(ValueError, match="token"):
            id_of_token(token, spelled)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("", "a.jsonl is empty"),
        ('{"a": 1', r"a.jsonl:1 is not JSON: .*where it ends"),
        ("{}", "a.jsonl:1 has no log-probabilities; its keys: none"),
        ('{"error": {"message": "no"}}', "a.jsonl:1 is an error of the server: .*no"),
        ('{"choices": [{"logprobs": null}]}', "no log-probabilities; its keys: choices"),
        ("7", "a.jsonl:1 is 7; expected a server's response"),
        ('{"prompt_logprobs": [null, {"a": {"logprob": -1}}]}', "has no log-probabilities"),
        ('{"prompt_logprobs": [null, {"1": {"rank": 1}}]}', "a part lacks 'logprob'"),
        ('{"prompt_logprobs": [null, {"1": {"logprob": "x"}}]}', "position 0: .* is 'x'"),
        ('{"prompt_logprobs": [null, {"1": {"logprob": NaN}}]}', "position 0: .*NaN"),
        ('{"prompt_logprobs": [null, {"1": {"logprob": 2.5}}]}', "position 0: 2.5 is no"),
        ('{"prompt_logprobs": [null, {"-1": {"logprob": -1}}]}', "position 0: .* id -1"),
        ('[null, [[1, -0.1], [2, -0.2]]]', "position 0: probabilities add up to 1.72"),
        ('[null, [[1, -2.0], [1, -3.0]]]', "position 0: token 1 has two log-probabilities, -2 and"),
        ('[null, [[1.5, -2.0], [1, -3.0]]]', "position 0: a token id is 1.5"),
        ('[null, [[1, -2.0], ["2", -3.0]]]', "position 0: a token id is '2'"),
        ('[null, [[9223372036854775808, -2.0]]]', "id is an integer of more than 64 bits"),
        ('[null, [[1, -2.0], [-3.0]]]', r"a position is .*expected \[id, logprob\]"),
        (
            '{"meta_info": {"input_top_logprobs": [null, [[-1, 2, null]]], '
            '"input_token_logprobs": [[-1, 2, null]]}}',
            "input_top_logprobs has 2 positions, input_token_logprobs 1",
        ),
        ('{"choices": [{"logprobs": {"content": [{"logprob": -1}]}}]}', "with a token"),
        ('{"choices": [{"logprobs": {"content": [{"token": "a"}]}}]}', "'a' has no logprob"),
    ],
)  # fmt: skip
def test_broken_responses(tmp_path, broken, message):
    path = tmp_path / "a.jsonl"
    path.write_text(broken)
    with pytest.raises(DumpError, match=message) as error:
        rows_of(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_broken_files(tmp_path, text):
    good = json.dumps(maker.vllm(*text[0], K))
    path = tmp_path / "a.jsonl"
    for second, message in (
        (good[:200], "a.jsonl:2 is not JSON"),
        (json.dumps(maker.sglang(*text[0], K)), "a.jsonl:2 is a response of SGLang, .*of vLLM"),
        ("\xff", "a.jsonl:2 is not JSON: its bytes are no UTF-8"),
        ("[" * 100_000, "a.jsonl:2 is not JSON: it is nested too deeply"),
    ):
        path.write_bytes(good.encode() + b"\n" + second.encode("latin-1") + b"\n")
        dump = server_json.open(path)
        with pytest.raises(DumpError, match=message):
            list(dump.sequences())
    data = gzip.compress("\n".join([good] * 50).encode(), 0)
    packed = tmp_path / "b.jsonl.gz"
    packed.write_bytes(data[: len(data) // 2])
    dump = server_json.open(packed)
    with pytest.raises(DumpError, match=r"b\.jsonl\.gz is cut off"):
        list(dump.sequences())
    packed.write_bytes(good.encode())
    assert not server_json.probe(tmp_path / "b.json")
    with pytest.raises(DumpError, match="no gzip file"):
        server_json.open(packed)
    whole = tmp_path / "c.json"
    whole.write_text(good + "\n" + good)
    with pytest.raises(DumpError, match=r"more follows at line 2; .* is a \.jsonl"):
        server_json.open(whole)
    whole.write_text("[]")
    with pytest.raises(DumpError, match=r"c\.json has no response"):
        server_json.open(whole)


def test_what_looks_like_a_dump(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text('{"metadata": {}, "weight_map": {}}')
    (tmp_path / "a.npy").write_text("[1]")
    assert not server_json.probe(tmp_path / "model.safetensors.index.json")
    assert not server_json.probe(tmp_path / "a.npy")
    assert not server_json.probe(tmp_path)


def test_sequences_beside_each_other(tmp_path, text):
    one = maker.write(tmp_path / "a.jsonl", [maker.vllm(*x, K) for x in text])
    two = maker.write(tmp_path / "b.jsonl", [maker.sglang(*x, 2) for x in text])
    found = evaluate(one, two).positions
    assert found["sequence"].to_list() == [0] * 6 + [1] * 2
    assert found["token"].to_list() == [*text[0][1][1:], *text[1][1][1:]]
    assert not found["kl_lower"].to_numpy().any()

    def other(responses):
        return maker.write(tmp_path / "c.jsonl", responses)

    def refused(reference, candidate, reason):
        with pytest.raises(DumpError, match=reason):
            evaluate(reference, candidate)

    (logits, tokens), (short, few) = text
    refused(one, other([maker.vllm(logits, tokens, K)]), r"c\.jsonl ends after 1 sequences")
    three = other([maker.vllm(*x, K) for x in [*text, text[0]]])
    refused(three, one, r"a\.jsonl ends after 2 sequences")
    refused(one, other([maker.vllm(short, few, K)]), r"differ in sequence 0: .* 6, .* 2")
    changed = tokens.copy()
    changed[3] = (tokens[3] + 1) % CLASSES
    refused(
        one,
        other([maker.vllm(logits, changed, K)]),
        rf"different texts in sequence 0: after position 2 comes {tokens[3]}, or {changed[3]}$",
    )
    refused(other([maker.openai_chat(logits, tokens, K)]), one, "ids and the other by their texts")


def test_logits_have_a_row_more_than_the_prompt(tmp_path, text):
    logits, tokens = text[0]
    top_k = maker.write(tmp_path / "a.json", maker.vllm(logits, tokens, K))
    whole = np.concatenate([logits, logits[:1]])
    for p, q in (([whole], top_k), (top_k, [whole]), ([logits], top_k)):
        found = evaluate(p, q).positions
        assert found["kl_lower"].to_list() == [0.0] * 6
        assert found["token"].to_list() == tokens[1:].tolist()
    for rows in (logits[:-1], np.concatenate([whole, logits])):
        with pytest.raises(DumpError, match=rf"positions differ in sequence 0: .* {len(rows)}, "):
            evaluate([rows], top_k)


@pytest.mark.slow
def test_lines_are_read_one_by_one(tmp_path, text):
    line = json.dumps(maker.vllm(*text[0], K)).encode() + b"\n"
    path = tmp_path / "a.jsonl.gz"
    with gzip.open(path, "wb", 1) as file:
        for _ in range(50):
            file.write(line * 400)
    script = (
        "import sys, resource; from pathlib import Path\n"
        "from kldiv.evaluation.dumps import server_json\n"
        "kilobytes = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "dump = server_json.open(Path(sys.argv[1])); before = kilobytes()\n"
        "print(sum(x.positions for x in dump.sequences()), kilobytes() - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, path], capture_output=True, text=True, check=True
    )
    positions, grown = map(int, done.stdout.split())
    assert positions == 120_000
    assert grown < 20_000
