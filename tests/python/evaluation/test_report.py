"""The page of an evaluation: what it says, and of what."""

import math
import re
import string
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import polars as pl
import pytest
from tables_of_positions import table

from kldiv.evaluation import Evaluation, evaluate
from kldiv.evaluation.report import numbers
from kldiv.evaluation.report.letters import visible
from kldiv.evaluation.report.names import short_names
from kldiv.evaluation.report.words import LANGUAGES, words_of
from kldiv.evaluation.results import read_results
from kldiv.evaluation.statistics.estimate import mean_of

FAST = {"bootstrap": 20}
EVIL = "<script>alert('甲')</script>"


def plain(text):
    """With spaces at which lines may end."""
    return text.replace("\u00a0", " ")


class Read(HTMLParser):
    """A page, taken apart: tags with their attributes, the text, and numbers by name."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.numbers = [], [], {}
        self.feed(text)
        self.text = " ".join("".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.words.append(" " if tag in ("td", "th") else "")
        self.tags.append((tag, found))
        if "data-value" in found and "data-candidate" in found:
            key = int(found["data-candidate"]), found["data-name"]
            self.numbers[key] = float(found["data-value"])

    def handle_data(self, data):
        if not self.tags or self.tags[-1][0] != "style":
            self.words.append(data)


def evaluation(*names, **options):
    tables = [table(candidate=name, noise=1 + place, **options) for place, name in enumerate(names)]
    return Evaluation(pl.concat(tables), {"reference": {"file": "models/reference"}})


def small(**columns):
    count = len(columns["kl"])
    place = {"candidate": "q", "sequence": 0, "position": np.arange(count)}
    frame = pl.DataFrame(place | columns)
    return Evaluation(frame, {})


@pytest.mark.costly
@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_numbers_are_those_of_the_json(lang, count, tmp_path):
    result = evaluation(*("int8", "int4", "int3")[:count])
    page = Read(result.to_html(lang=lang, **FAST))
    (tmp_path / "result.json").write_text(result.to_json(**FAST), encoding="utf-8")
    results = read_results(tmp_path / "result.json")
    assert len(results) == count
    assert {place for place, _ in page.numbers} == set(range(count))
    texts = {f"per_context.{place}.kl" for place in range(len(results[0].summary["per_context"]))}
    compared = 0
    for (place, name), value in page.numbers.items():
        if name in texts:
            expected = results[place].summary["per_context"][int(name.split(".")[1])]["kl"]
        else:
            expected = results[place].numbers()[name]
        assert value == (math.inf if expected == "Infinity" else expected), name
        compared += 1
    assert compared > 40 * count
    [language] = [found["lang"] for tag, found in page.tags if tag == "html"]
    assert language.startswith(lang)


def test_the_page_holds_all_it_shows_and_runs_nothing():
    text = evaluation("int8").to_html(**FAST)
    page = Read(text)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert not [name for _, found in page.tags for name in found if name in ("src", "href")]
    policy = [found["content"] for tag, found in page.tags if "http-equiv" in found]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]
    assert "url(" not in text
    assert "@import" not in text
    # In the order of the file, and the same each time.
    assert text == evaluation("int8").to_html(**FAST)


def test_text_of_files_and_models_is_escaped():
    tokenizers = pytest.importorskip("tokenizers")
    names = [f"token{number}" for number in range(60)]
    names[:50] = [EVIL if number % 2 else "汉字" for number in range(50)]
    vocabulary = {f"{name} {number}": number for number, name in enumerate(names)}
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel(vocabulary, unk_token="token59 59")
    )
    frame = table(candidate=f"q/{EVIL}").with_columns(
        pl.lit(f"text/{EVIL}").alias("name"), pl.lit(EVIL).alias("stratum")
    )
    about = {
        "reference": {"file": f"p/{EVIL}\udcff", "format": EVIL, "dtype": EVIL, "shape": [1, 2]},
        "candidates": [{"file": EVIL, "measure": EVIL, "head": EVIL, "shape": [None, 2]}],
        "labels": EVIL,
        "kldiv": EVIL,
    }
    for lang in LANGUAGES:
        text = Evaluation(frame, about).to_html(lang=lang, tokenizer=tokenizer, **FAST)
        text.encode("utf-8")
        page = Read(text)
        assert "script" not in {tag for tag, _ in page.tags}
        assert "<script" not in text.lower()
        # Candidate, text, stratum, format, labels, and tokens around positions.
        assert page.text.count(EVIL) > 30
        assert "汉字" in page.text


def test_worst_positions_have_their_text(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    letters = dict.fromkeys("abcdefghijklmnopqrstuvwxyz")
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="a"))
    count = 26
    kl = np.full(count, 0.1)
    kl[[3, 20]] = 5.0, 7.0
    result = small(
        kl=kl,
        token=[(place + 1) % 26 for place in range(count)],
        top1_p=[1] * count,
        top1_q=[2] * count,
        confidence_p=[0.75] * count,
        confidence_q=[0.5] * count,
        nll_p=[math.log(2)] * count,
        nll_q=[math.log(4)] * count,
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    for given in (tokenizer, tmp_path / "tokenizer.json", str(tmp_path)):
        text = result.to_html(tokenizer=given, **FAST)
        shown = re.findall(r'<p class="text"><bdi>(.*?)</bdi></p>', text)
        # Position 20 holds u, and v comes next; of the text the first token alone is not known.
        assert re.sub("<[^>]*>", "", shown[0]).replace(" ", "") == "…bcdefghijklmnopqrstuvwxyza…"
        assert "<mark> v</mark> w" in shown[0]
        assert "<mark> e</mark>" in shown[1]
        worst = text[text.index('<ol class="worst"') :]
        first = Read(worst[: worst.index("</li>")]).text
        assert first.startswith("KL 7.00 0, position 20")
        assert "reference b 75.0 % 50.0 %" in first
        assert "candidate c 50.0 % 25.0 %" in first
    # A tokenizer of another model is refused.
    fewer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    with pytest.raises(
        ValueError, match="2 tokens, and after position 1 of sequence 0 comes token 2"
    ):
        result.to_html(tokenizer=fewer, **FAST)


def test_gaps_end_the_text_that_is_shown():
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {letter: number for number, letter in enumerate("abcdefghij")}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="a"))
    frame = small(kl=[0.1] * 8 + [9.0], token=[*range(1, 9), 9]).positions
    left_out = Evaluation(frame.filter(pl.col("position") != 4), {})
    text = left_out.to_html(tokenizer=tokenizer, **FAST)
    shown = re.findall(r'<p class="text"><bdi>(.*?)</bdi></p>', text)[0]
    assert re.sub("<[^>]*>", "", shown).replace(" ", "") == "…ghij…"


def test_a_base_file_gives_the_tokens_before_its_rows(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    from kldiv.evaluation.dumps.llama_cpp_writer import write
    from kldiv.evaluation.dumps.memory import of_memory

    rng = np.random.default_rng(3)
    context, classes = 12, 20
    tokens = rng.integers(0, classes, (2, context))
    logits = rng.normal(0, 2, (2, context, classes)).astype(np.float32)
    for name, noise in (("p", 0.0), ("q", 0.3)):
        rows = logits + rng.normal(0, noise or 1e-9, logits.shape).astype(np.float32)
        write(tmp_path / f"{name}.kld", of_memory(list(rows), name), tokens)
    vocabulary = {chr(ord("a") + number): number for number in range(classes)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="a"))
    result = evaluate(str(tmp_path / "p.kld"), str(tmp_path / "q.kld"))
    text = result.to_html(tokenizer=tokenizer, **FAST)
    shown = re.findall(r'<p class="text"><bdi>(.*?)</bdi></p>', text)
    spelled = ["".join(chr(ord("a") + token) for token in row) for row in tokens]
    assert shown
    for one in shown:
        found = re.sub("<[^>]*>", "", one).replace(" ", "")
        assert any(row.startswith(found.rstrip("…")) for row in spelled), found
    # Another file of that name is not believed.
    write(tmp_path / "p.kld", of_memory(list(logits), "p"), (tokens + 1) % classes)
    text = result.to_html(tokenizer=tokenizer, **FAST)
    shown = re.findall(r'<p class="text"><bdi>(.*?)</bdi></p>', text)
    known = "".join(chr(ord("a") + token) for row in tokens[:, context // 2 + 1 :] for token in row)
    for one in shown:
        assert re.sub("<[^>]*>", "", one).replace(" ", "").strip("…") in known


@pytest.mark.parametrize("lang", LANGUAGES)
def test_answers(lang):
    def first(result):
        text = result.to_html(lang=lang, **FAST)
        return plain(re.search(r'<h1 id="answer">(.*?)</h1>', text)[1]), Read(text)

    equal, page = first(small(kl=[0.0] * 50))
    assert (
        equal
        == {
            "en": "q is not different from the reference: KL is exactly 0 at 50 positions.",
            "zh": "q 与 参考模型 没有差别：50 个位置的 KL 都恰为 0。",
        }[lang]
    )
    assert "svg" not in {tag for tag, _ in page.tags}
    infinite, _ = first(small(kl=[0.25, 0.25, math.inf, 0.25]))
    assert {"en": "at 1 of 4 positions: KL is infinite there", "zh": "有 1 处给"}[lang] in infinite
    assert "0.250 nat" in infinite
    every, _ = first(small(kl=[math.inf] * 3))
    assert {"en": "at all of 3 positions", "zh": "全部 3 个位置"}[lang] in every
    nothing, page = first(small(kl=[math.nan] * 3))
    assert (
        nothing
        == {
            "en": "No position of q has a KL that is a number.",
            "zh": "q 没有任何位置的 KL 是数值。",
        }[lang]
    )
    assert {"en": "3 of 3 positions hold NaN", "zh": "3 个位置中有 3 个含 NaN"}[lang] in page.text
    bound, page = first(
        Evaluation(
            pl.DataFrame(
                {"candidate": "q", "sequence": [0, 1], "position": 0, "kl_lower": [0.2, 0.4]}
            ),
            {},
        )
    )
    assert {"en": "at least 0.30 ± 0.10 nats", "zh": "至少相差 0.30 ± 0.10 nat"}[lang] in bound
    warned = {"en": "Every KL on this page is a lower bound", "zh": "本页的每个 KL 都是下界"}[lang]
    assert warned in page.text
    assert {"en": "Share of the total KL", "zh": "占总 KL"}[lang] not in page.text


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_page_of_models_says_what_they_read(lang):
    about = {
        "text": "wiki.txt",
        "windows": {"documents": 2, "windows": 12, "context": 512, "stride": 256},
        "tokenizer": {"begins_with": ["<s>"]},
        "models": [{"device_name": "cpu, 2 threads"}] * 2,
    }
    frame = evaluation("q", sequences=12).positions
    page = Evaluation(frame, about).to_html(lang=lang, **FAST)
    settings = re.sub(r"<[^>]+>", " ", page[page.index('id="settings"') :])
    for said in ("wiki.txt", "12", "512", "256", "&lt;s&gt;", "cpu, 2 threads"):
        assert said in settings, said
    assert ("12 windows" if lang == "en" else "12 个窗口") in settings
    assert ("By window" if lang == "en" else "按窗口") in page
    assert ("By text" if lang == "en" else "按文本<") not in page
    plain = Evaluation(frame, {}).to_html(lang=lang, **FAST)
    assert ("By text" if lang == "en" else "按文本") in plain


def test_the_closest_of_several_and_whether_that_is_sure():
    clear = evaluation("int8", "int4", spoiled=False)
    text = clear.to_html(**FAST)
    sentence = re.search(r'<h1 id="answer">(.*?)</h1>', text)[1]
    means = [clear.summary(place, bootstrap=0).kl for place in (0, 1)]
    shown = [numbers.with_error(one.mean, one.standard_error) for one in means]
    assert sentence == (
        f"int8 is the closest to reference, {shown[0]} nats per token away; "
        f"next is int4 with {shown[1]}."
    )
    rng = np.random.default_rng(0)
    frames = [
        pl.DataFrame(
            {"candidate": name, "sequence": range(40), "position": 0, "kl": rng.exponential(1, 40)}
        )
        for name in ("a", "b")
    ]
    unsure = Evaluation(pl.concat(frames), {})
    assert unsure.pairs()[0].better is None
    assert "are not told apart" in re.search(r'<h1 id="answer">(.*?)</h1>', unsure.to_html())[1]


def test_languages_say_the_same():
    tables = [words_of(lang) for lang in LANGUAGES]

    def braces(text):
        return sorted({name for _, name, _, _ in string.Formatter().parse(text) if name})

    assert tables[0].keys() == tables[1].keys()
    for name in tables[0]:
        assert braces(tables[0][name]) == braces(tables[1][name]), name
    with pytest.raises(ValueError, match="'fr'; expected one of en, zh"):
        evaluation("q").to_html(lang="fr")


def test_no_position_is_refused_and_nothing_is_written(tmp_path):
    empty = Evaluation(table().clear(), {})
    with pytest.raises(ValueError, match="no position"):
        empty.to_html(tmp_path / "page.html")
    with pytest.raises(FileNotFoundError):
        evaluation("q").to_html(tmp_path / "no folder" / "page.html", **FAST)
    assert not list(tmp_path.iterdir())
    assert evaluation("q").to_html(tmp_path / "page.html", **FAST) is None
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.costly
@pytest.mark.parametrize("missing", ["jinja2", "altair", "vl_convert"])
def test_what_is_missing_is_named(missing):
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "import polars as pl; from kldiv.evaluation import Evaluation\n"
        "Evaluation(pl.DataFrame({'candidate': 'q', 'sequence': [0], 'position': [0], "
        "'kl': [1.0]})).to_html()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"this needs {missing}: pip install 'kldiv[report]'" in done.stderr


@pytest.mark.parametrize(
    ("mean", "error", "text"),
    [
        (0.509676, 0.0271, "0.510 ± 0.027"),
        (0.00120941, 6.04e-5, "0.001209 ± 0.000060"),
        (1.2e-6, 3.1e-8, "(1.200 ± 0.031)×10⁻⁶"),
        (-0.31, 4.2, "−0.3 ± 4.2"),
        (-0.001, 4.2, "0.0 ± 4.2"),
        (12345.6, 77.0, "12,346 ± 77"),
        (0.0, 0.0, "0"),
        (100.0, 0.0, "100"),
        (0.25, 0.0, "0.2500"),
        (2.0, math.nan, "2.00"),
        (math.inf, math.nan, "∞"),
        (9.996e-4, 1e-5, "0.001000 ± 0.000010"),
    ],
)
def test_numbers_have_the_digits_of_their_errors(mean, error, text):
    assert plain(numbers.with_error(mean, error)) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.51, "0.510"),
        (4.929, "4.93"),
        (12.34, "12.3"),
        (99999.0, "99,999"),
        (1e6, "1.00×10⁶"),
        (0.00099999, "0.00100"),
        (3.2e-7, "3.20×10⁻⁷"),
        (-5e-324, "−4.94×10⁻³²⁴"),
        (-math.inf, "−∞"),
        (math.nan, "–"),
        (0.0, "0"),
    ],
)
def test_numbers_without_an_error(value, text):
    assert numbers.number(value) == text


def test_intervals_and_what_is_infinite_in_words():
    assert numbers.ends(0.445551, 0.573801) == ("0.45", "0.57")
    assert numbers.ends(1.00e-5, 1.05e-5) == ("1.000×10⁻⁵", "1.050×10⁻⁵")
    found = mean_of(np.array([1.0, 2.0, math.inf]), None)
    assert plain(numbers.estimate(found, words_of("en"))) == "1.50 ± 0.50, infinite in 1"


def test_short_names_tell_apart():
    assert list(short_names(["a/p.npy", "a/q.npy"]).values()) == ["p.npy", "q.npy"]
    assert list(short_names(["/x/int8/hidden", "/x/int4/hidden"]).values()) == ["int8", "int4"]
    assert list(short_names(["a/b/c", "a/c", "b/c"]).values()) == ["a/b", "a", "b"]
    assert list(short_names(["x/only"]).values()) == ["only"]
    assert list(short_names(["/", "q"]).values()) == ["/", "q"]
    assert list(short_names(["q", "./q"]).values()) == ["q", "./q"]


def test_letters_without_a_shape_are_seen():
    assert visible("a\n\tb\u202e\x00\ud800") == "a⏎⇥b\\u202e\\x00\\ud800"
    assert visible("👩\u200d👧 汉字") == "👩\u200d👧 汉字"


def test_no_name_turns_the_page_around():
    turned = "\u202ea\nb\u2066"
    frame = table(candidate=turned).with_columns(
        pl.lit(f"text {turned}").alias("name"), pl.lit(f"stratum {turned}").alias("stratum")
    )
    about = {"reference": {"file": turned, "shape": [1, 2]}, "labels": turned}
    text = Evaluation(frame, about).to_html(**FAST)
    assert not set("\u202e\u2066") & set(text)
    assert "stratum \\u202ea⏎b\\u2066" in text
