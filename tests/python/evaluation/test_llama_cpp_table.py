"""The table that llama.cpp prints, and tables that it printed."""
# ruff: noqa: E501, UP031
# Numbers are formatted with C's formats, and lines are as long as printed.

import math

import numpy as np
import polars as pl
import pytest

from kldiv.evaluation.dumps.protocol import DumpError
from kldiv.evaluation.tables.llama_cpp import llama_cpp_table
from kldiv.evaluation.tables.logs import COLUMNS, SUMMARY, read_logs

F32 = np.float32


def positions_of(count, seed=0, suffix="_llama_cpp"):
    rng = np.random.default_rng(seed)
    nll_p = rng.exponential(2, count).astype(F32)
    nll_q = np.maximum(nll_p + rng.normal(0, 0.2, count).astype(F32), 0)
    top1_p = rng.integers(50, size=count)
    return pl.DataFrame(
        {
            f"kl{suffix}": rng.exponential(0.03, count) - 1e-4,
            f"nll_p{suffix}": nll_p.astype(np.float64),
            f"nll_q{suffix}": nll_q.astype(np.float64),
            "top1_p": top1_p,
            "top1_q": np.where(rng.random(count) < 0.9, top1_p, 50),
        }
    )


def printed(kl, nll_base, nll, same):
    """Number by number, as perplexity.cpp goes: floats are float32, sums are doubles."""
    n = len(kl)
    sums = dict.fromkeys(("q", "q2", "b", "b2", "qb", "k", "k2", "d", "d2", "d4"), 0.0)
    differences = []
    for k, b, q in zip(kl, nll_base, nll, strict=True):
        b, q = F32(b), F32(q)
        d = F32(math.exp(-q)) - F32(math.exp(-b))
        d2 = float(F32(d * d))
        differences.append(d)
        terms = (q, F32(q * q), b, F32(b * b), F32(q * b), k, k * k, d, d2, d2 * d2)
        for name, term in zip(sums, terms, strict=True):
            sums[name] += float(term)

    def mean(name, name2):
        f = sums[name] / n
        df = sums[name2] / n - f * f
        return f, math.sqrt(df / (n - 1)) if df > 0 and n > 10 else 0.0

    def at(values, fraction):
        p = F32(F32(fraction) * F32(n - 1))
        i = int(p)
        p = F32(p - F32(i))
        below = F32(F32(F32(1) - p) * values[i])
        return float(F32(below + F32(p * values[min(i + 1, n - 1)])))

    def median(values):
        if n % 2:
            return float(values[n // 2])
        return float(F32(F32(0.5) * F32(values[n // 2] + values[n // 2 - 1])))

    lnq, ulnq = mean("q", "q2")
    lnb, ulnb = mean("b", "b2")
    ppl, base = math.exp(lnq), math.exp(lnb)
    uppl, ubase = ppl * ulnq, base * ulnb
    cov = (sums["qb"] / n - (sums["q"] / n) * (sums["b"] / n)) / (n - 1)
    uratio = math.sqrt(ulnq * ulnq + ulnb * ulnb - 2 * cov)
    ratio = math.exp(lnq - lnb)
    udiff = math.sqrt(uppl * uppl + ubase * ubase - 2 * ppl * base * cov)
    k = sorted(F32(x) for x in kl)
    d = sorted(differences)
    mk, uk = mean("k", "k2")
    md, ud = mean("d", "d2")
    ms, us = mean("d2", "d4")
    rms = math.sqrt(ms)
    s = sum(same) / n
    lines = [
        "====== Perplexity statistics ======",
        "Mean PPL(Q)                   : %10.6f ± %10.6f" % (ppl, uppl),
        "Mean PPL(base)                : %10.6f ± %10.6f" % (base, ubase),
        "Cor(ln(PPL(Q)), ln(PPL(base))): %6.2f%%" % (100 * (cov / (ulnq * ulnb))),
        "Mean ln(PPL(Q)/PPL(base))     : %10.6f ± %10.6f" % (lnq - lnb, uratio),
        "Mean PPL(Q)/PPL(base)         : %10.6f ± %10.6f" % (ratio, ratio * uratio),
        "Mean PPL(Q)-PPL(base)         : %10.6f ± %10.6f" % (ppl - base, udiff),
        "",
        "====== KL divergence statistics ======",
        "Mean    KLD: %10.6f ± %10.6f" % (mk, uk),
        "Maximum KLD: %10.6f" % k[-1],
        "99.9%%   KLD: %10.6f" % at(k, 0.999),
        "99.0%%   KLD: %10.6f" % at(k, 0.990),
        "95.0%%   KLD: %10.6f" % at(k, 0.950),
        "90.0%%   KLD: %10.6f" % at(k, 0.900),
        "Median  KLD: %10.6f" % median(k),
        "10.0%%   KLD: %10.6f" % at(k, 0.100),
        " 5.0%%   KLD: %10.6f" % at(k, 0.050),
        " 1.0%%   KLD: %10.6f" % at(k, 0.010),
        " 0.1%%   KLD: %10.6f" % at(k, 0.001),
        "Minimum KLD: %10.6f" % k[0],
        "",
        "====== Token probability statistics ======",
        "Mean    Δp: %6.3f ± %5.3f %%" % (100 * md, 100 * ud),
        "Maximum Δp: %6.3f%%" % (100.0 * float(d[-1])),
        "99.9%%   Δp: %6.3f%%" % (100.0 * at(d, 0.999)),
        "99.0%%   Δp: %6.3f%%" % (100.0 * at(d, 0.990)),
        "95.0%%   Δp: %6.3f%%" % (100.0 * at(d, 0.950)),
        "90.0%%   Δp: %6.3f%%" % (100.0 * at(d, 0.900)),
        "75.0%%   Δp: %6.3f%%" % (100.0 * at(d, 0.750)),
        "Median  Δp: %6.3f%%" % (100.0 * median(d)),
        "25.0%%   Δp: %6.3f%%" % (100.0 * at(d, 0.250)),
        "10.0%%   Δp: %6.3f%%" % (100.0 * at(d, 0.100)),
        " 5.0%%   Δp: %6.3f%%" % (100.0 * at(d, 0.050)),
        " 1.0%%   Δp: %6.3f%%" % (100.0 * at(d, 0.010)),
        " 0.1%%   Δp: %6.3f%%" % (100.0 * at(d, 0.001)),
        "Minimum Δp: %6.3f%%" % (100.0 * float(d[0])),
        "RMS Δp    : %6.3f ± %5.3f %%" % (100 * rms, 100 * (0.5 / rms * us)),
        "Same top p: %6.3f ± %5.3f %%" % (100 * s, 100 * math.sqrt(s * (1 - s) / (n - 1))),
        "",
    ]
    return "\n".join(lines)


@pytest.mark.parametrize("count", [100, 101, 1275, 4000])
@pytest.mark.parametrize("suffix", ["", "_llama_cpp"])
def test_the_table_is_printed_digit_for_digit(count, suffix):
    positions = positions_of(count, seed=count, suffix=suffix)
    kl, nll_p, nll_q, top1_p, top1_q = positions
    assert llama_cpp_table(positions) == printed(kl, nll_p, nll_q, top1_p == top1_q)


def test_the_table_is_of_llama_cpps_own_numbers():
    positions = positions_of(200)
    others = positions_of(200, seed=1, suffix="").drop("top1_p", "top1_q")
    assert llama_cpp_table(pl.concat([positions, others], how="horizontal")) == llama_cpp_table(
        positions
    )


def test_squares_are_float32():
    """Of equal numbers the variance is what rounding leaves, here more than nothing."""
    nll = np.full(200, F32(2.3))
    positions = positions_of(200).with_columns(
        nll_p_llama_cpp=nll.astype(float), nll_q_llama_cpp=nll.astype(float)
    )
    square = float(F32(nll[0] * nll[0])) - float(nll[0]) ** 2
    error = math.sqrt(square / 199) if square > 0 else 0
    lines = llama_cpp_table(positions).splitlines()
    assert lines[2] == f"Mean PPL(base)                :   9.974182 ± {9.974182 * error:10.6f}"
    assert lines[4].endswith(("-nan", "0.000000"))


def test_a_model_against_itself():
    """Its uncertainties are roots of what rounding leaves below 0, and 0/0."""
    positions = positions_of(150).with_columns(
        pl.lit(0.0).alias("kl_llama_cpp"),
        pl.col("nll_p_llama_cpp").alias("nll_q_llama_cpp"),
        pl.col("top1_p").alias("top1_q"),
    )
    table = llama_cpp_table(positions)
    assert "\nMean    KLD:   0.000000 ±   0.000000\nMaximum KLD:   0.000000\n" in table
    assert table.endswith("\nRMS Δp    :  0.000 ±  -nan %\nSame top p: 100.000 ± 0.000 %\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.drop("nll_q_llama_cpp"), "needs labels: the positions have no nll_q"),
        (lambda p: p.head(0), "needs positions, and there are none"),
        (
            lambda p: p.with_columns(
                pl.when(pl.int_range(pl.len()) > 197)
                .then(None)
                .otherwise("nll_p_llama_cpp")
                .alias("nll_p_llama_cpp")
            ),
            "needs nll_p_llama_cpp of every position: 2 of 200 have none, the first is 198",
        ),
        (
            lambda p: p.with_columns(pl.lit(math.nan).alias("kl_llama_cpp")),
            "needs kl_llama_cpp of every position: 200 of 200 have none, the first is 0",
        ),
    ],
)
def test_positions_that_it_says_nothing_of(change, message):
    with pytest.raises(ValueError, match=message):
        llama_cpp_table(change(positions_of(200)))


BEFORE = """\
build: 6710 (1a2b3c4d) with cc (GCC) 13.2.0 for x86_64-linux-gnu
llama_model_loader: loaded meta data with 30 key-value pairs and 291 tensors from q4_K_M.gguf
kl_divergence: 0.61 seconds per pass - ETA 0.12 minutes

chunk             PPL               ln(PPL(Q)/PPL(base))          KL Divergence              Δp RMS            Same top p
   1       7.0123 ±    1.4211       0.02101 ±    0.01213       0.02911 ±    0.00302     5.012 ±  0.588 %    92.157 ±  1.687 %
  12       6.4071 ±    0.0391       0.02778 ±       -nan       0.03127 ±    0.00024     5.519 ±  0.050 %    91.901 ±  0.072 %

"""
PERPLEXITY = """\
====== Perplexity statistics ======
Mean PPL(Q)                   :   6.407115 ±   0.039119
Mean PPL(base)                :   6.231633 ±   0.037716
Cor(ln(PPL(Q)), ln(PPL(base))):  99.34%
Mean ln(PPL(Q)/PPL(base))     :   0.027772 ±       -nan
Mean PPL(Q)/PPL(base)         :   1.028160 ±   0.000723
Mean PPL(Q)-PPL(base)         :   0.175482 ±   0.004620

"""
KL = """\
====== KL divergence statistics ======
Mean    KLD:   0.031273 ±   0.000238
Maximum KLD:  11.911021
99.9%   KLD:   1.834118
99.0%   KLD:   0.412901
95.0%   KLD:   0.118233
90.0%   KLD:   0.066712
Median  KLD:   0.011044
10.0%   KLD:   0.000312
 5.0%   KLD:   0.000105
 1.0%   KLD:   0.000011
 0.1%   KLD:  -0.000002
Minimum KLD:  -0.000011

"""
OLD_KL = """\
====== KL divergence statistics ======
Mean    KLD:   0.031273 ±   0.000238
Maximum KLD:  11.911021
99.9%   KLD:   1.834118
99.0%   KLD:   0.412901
99.0%   KLD:   0.412901
Median  KLD:   0.011044
10.0%   KLD:   0.000312
 5.0%   KLD:   0.000105
 1.0%   KLD:   0.000011
Minimum KLD:  -0.000011

"""
TOKENS = """\
====== Token probability statistics ======
Mean    Δp: -0.596 ± 0.014 %
Maximum Δp: 95.054%
99.9%   Δp: 27.084%
99.0%   Δp: 12.084%
95.0%   Δp:  4.911%
90.0%   Δp:  2.534%
75.0%   Δp:  0.402%
Median  Δp: -0.024%
25.0%   Δp: -0.611%
10.0%   Δp: -3.101%
 5.0%   Δp: -6.201%
 1.0%   Δp: -19.567%
 0.1%   Δp: -56.054%
Minimum Δp: -98.699%
RMS Δp    :  5.519 ± 0.050 %
Same top p: 91.901 ± 0.072 %

llama_perf_context_print:        load time =    1021.31 ms
"""
NEW = BEFORE + PERPLEXITY + KL + TOKENS
OLD = BEFORE + PERPLEXITY + OLD_KL + TOKENS
VALUES = {
    "ppl_q": 6.407115,
    "ppl_base_error": 0.037716,
    "ln_ppl_correlation_percent": 99.34,
    "ppl_ratio": 1.02816,
    "ppl_difference": 0.175482,
    "kl_mean": 0.031273,
    "kl_mean_error": 0.000238,
    "kl_max": 11.911021,
    "kl_p99": 0.412901,
    "kl_median": 0.011044,
    "kl_p5": 0.000105,
    "kl_min": -0.000011,
    "delta_p_mean_percent": -0.596,
    "delta_p_p95_percent": 4.911,
    "delta_p_p5_percent": -6.201,
    "delta_p_p0_1_percent": -56.054,
    "delta_p_rms_error_percent": 0.05,
    "same_top_percent": 91.901,
}
SINCE_2025 = {"kl_p95": 0.118233, "kl_p90": 0.066712, "kl_p0_1": -0.000002}


def as_written_to(tmp_path, text, name="a.log", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    return path


DRESSES = {
    "plain": str,
    "time stamps": lambda text: "".join(
        f"[05:49:{i:02}] 0.12.345 I {line}\n" for i, line in enumerate(text.splitlines())
    ),
    "colours": lambda text: text.replace("Mean", "\x1b[32mMean").replace(" ±", "\x1b[0m ±"),
    "windows": lambda text: text.replace("\n", "\r\n"),
    "ascii": lambda text: text.replace("±", "+/-").replace("Δ", "?"),
    "decoded as latin-1": lambda text: text.encode().decode("cp1252", errors="replace"),
    "run twice into one file": lambda text: text + text[text.index("======") :],
}


@pytest.mark.parametrize("dress", DRESSES)
@pytest.mark.parametrize("age", ["old", "new"])
def test_logs_are_read(age, dress, tmp_path):
    text = DRESSES[dress](NEW if age == "new" else OLD)
    frame = read_logs([as_written_to(tmp_path, text)])
    assert frame.columns == list(COLUMNS)
    row = frame.row(0, named=True)
    expected = SINCE_2025 if age == "new" else dict.fromkeys(SINCE_2025)
    assert {name: row[name] for name in VALUES | SINCE_2025} == VALUES | expected
    assert math.isnan(row["ln_ppl_ratio_error"])


def test_logs_become_rows(tmp_path):
    first = as_written_to(tmp_path, NEW, "first.log", "utf-16")
    second = as_written_to(tmp_path, NEW.replace("0.031273", "0.041273"), "second.log")
    frame = read_logs([first, second])
    assert frame["log"].to_list() == [str(first), str(second)]
    assert frame["kl_mean"].to_list() == [0.031273, 0.041273]
    assert set(SUMMARY) <= set(frame.columns)
    assert read_logs([]).columns == list(COLUMNS)


def test_a_second_line_of_99_percent_that_differs_is_that_of_95(tmp_path):
    text = OLD[::-1].replace("109214.0", "332811.0", 1)[::-1]
    row = read_logs([as_written_to(tmp_path, text)]).row(0, named=True)
    assert (row["kl_p99"], row["kl_p95"]) == (0.412901, 0.118233)


def test_what_this_package_prints_is_read(tmp_path):
    positions = positions_of(500)
    row = read_logs([as_written_to(tmp_path, llama_cpp_table(positions))]).row(0, named=True)
    assert row["kl_mean"] == pytest.approx(positions["kl_llama_cpp"].mean(), abs=1e-6)
    assert None not in row.values()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"a.log: no table of llama-perplexity"),
        (BEFORE, r"a.log:7: the log ends after chunk 12, without the table"),
        (
            NEW[: NEW.index("RMS Δp   ")],
            r"a.log:45: the table is not whole: no 'RMS Δp' and 1 more line",
        ),
        (BEFORE + PERPLEXITY + KL, r"a.log:29: the table is not whole: no 'Mean Δp' and 15 more"),
        (
            NEW.replace("Median  KLD:   0.011044", "Median  KLD:   "),
            r"a.log:24: 'Median KLD' has no",
        ),
        (NEW.replace("0.412901\n", "0.4129x1\n"), r"a.log:21: '99.0% KLD' has no number"),
        (NEW.replace(" ±   0.000238", ""), r"a.log:18: 'Mean KLD' has no number"),
        (
            NEW + NEW.replace("6.407115", "7.407115"),
            r"a.log:59: a second 'Mean PPL\(Q\)', after that of line 10; a log is to be of one run",
        ),
    ],
)
def test_a_log_without_the_whole_table_is_an_error(text, message, tmp_path):
    with pytest.raises(DumpError, match=message):
        read_logs([as_written_to(tmp_path, text)])
