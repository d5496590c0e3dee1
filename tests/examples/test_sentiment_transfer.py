import gzip
import json
import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from skdiscovery import MLSTMFeaturizer, SentimentNeuronClassifier

SCRIPT = Path(__file__).parents[2] / "examples" / "sentiment_transfer.py"
GRID = [2.0**k for k in range(-8, 1)]
MODELS = ["all_neurons", "masked_n_neurons", "n_neurons"]
FLAGS = "-num_neurons -no_test_eval -write_results"
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("sentiment_transfer")


@pytest.fixture(scope="module")
def reviews(tmp_path_factory, tables):
    """The parts as csv files in a folder that is called reviews."""
    folder = tmp_path_factory.mktemp("data") / "reviews"
    folder.mkdir()
    for part, table in tables.items():
        table.to_csv(folder / f"{part}.csv", index=False)
    return folder


@pytest.fixture
def run(script, language_model, tmp_path, capsys, monkeypatch):
    """Run the script with options; return the printed lines and the folder of the files.

    Drawing takes the most time by far, and is left out where it is not the point.
    """

    def run(*arguments, folder="reviews/tiny.v1", draw=False):
        if not draw:
            monkeypatch.setattr(script, "draw_neurons", lambda *_: None)
            monkeypatch.setattr(script, "draw_weights", lambda *_: None)
        script.main(
            [
                f"--language-model={language_model}",
                "--device=cpu",
                f"--experiment-dir={tmp_path / 'experiments'}",
                *map(str, arguments),
            ]
        )
        return capsys.readouterr().out.splitlines(), tmp_path / "experiments/transfer" / folder

    return run


@pytest.fixture
def files(reviews):
    """Return the options that name the files of some parts."""
    return lambda *parts: [f"--{part}={reviews / part}.csv" for part in parts]


ALL = ("train", "valid", "test")


def featurise(language_model, tables, pooling="auto"):
    featurizer = MLSTMFeaturizer(language_model, pooling=pooling, device="cpu").fit()
    return {part: featurizer.transform(table["sentence"]) for part, table in tables.items()}


def best_fit(X, y, select="valid"):
    """Return the first regression of those that are right most often on the part ``select``."""
    best, most = None, -1
    for C in GRID:
        model = LogisticRegression(
            C=C, l1_ratio=1, solver="liblinear", max_iter=1000, random_state=0
        ).fit(X["train"], y["train"])
        right = np.count_nonzero(model.predict(X[select]) == y[select])
        if right > most:
            best, most = model, right
    return best


def percent(right):
    return f"{100 * np.mean(right):05.2f}"


def accuracies(predict, X, y, parts=ALL):
    return "/".join(percent(predict(X[part]) == y[part]) for part in parts)


def labels(tables):
    return {part: table["label"].to_numpy() for part, table in tables.items()}


# ---- what is printed


def test_lines_have_the_formats_of_v0(run, files):
    lines, _ = run(*files(*ALL))
    scores = r"\d\d\d?\.\d\d/\d\d\d?\.\d\d/\d\d\d?\.\d\d train/val/test accuracy w/ "
    patterns = [
        rf"{scores}all_neurons",
        r"0[01]\.\d\d regularization coef w/ all_neurons",
        r"000\d\d features used w/ all neurons all_neurons",
        r"neuron\(s\) \d+, \d+, \d+, \d+, \d+ are top sentiment neurons \(mean\)",
        rf"{scores}masked_n_neurons",
        r"00001 features used w/ all neurons masked_n_neurons",
        rf"{scores}n_neurons",
        r"0[01]\.\d\d regularization coef w/ n_neurons",
        r"00001 features used w/ all neurons n_neurons",
        rf"{scores}majority_class",
        rf"{scores}tfidf_1_2_grams",
        r"\d\d\.\d\d regularization coef w/ tfidf_1_2_grams",
        r"\d+\.\d\d seconds to featurise 400 texts, \d+\.\d texts/s \(cpu, float32\)",
    ]
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, line), f"{line} is not {pattern}"


@pytest.mark.parametrize("k", [1, 3])
def test_figures_are_those_of_an_independent_search(run, files, language_model, tables, k):
    lines, folder = run(*files(*ALL), f"--num-neurons={k}", "--no-baselines")
    X, y = featurise(language_model, tables), labels(tables)
    full = best_fit(X, y)
    weights = full.coef_[0]
    ranking = sorted(range(16), key=lambda i: (-abs(weights[i]), i))
    top = ranking[:k]
    few_X = {part: features[:, top] for part, features in X.items()}
    few = best_fit(few_X, y)

    def masked(features):
        return (features[:, top] @ weights[top] + full.intercept_[0] > 0).astype(int)

    expected = {
        "all_neurons": accuracies(full.predict, X, y),
        "masked_n_neurons": accuracies(masked, X, y),
        "n_neurons": accuracies(few.predict, few_X, y),
    }
    assert len(set(expected.values())) == 3  # else one could pass for another
    assert lines[0] == f"{expected['all_neurons']} train/val/test accuracy w/ all_neurons"
    assert lines[1] == f"{full.C:05.2f} regularization coef w/ all_neurons"
    assert lines[2] == f"{np.count_nonzero(weights):05d} features used w/ all neurons all_neurons"
    names = ", ".join(map(str, ranking[:5]))
    assert lines[3] == f"neuron(s) {names} are top sentiment neurons (mean)"
    assert lines[4] == f"{expected['masked_n_neurons']} train/val/test accuracy w/ masked_n_neurons"
    assert lines[5] == f"{k:05d} features used w/ all neurons masked_n_neurons"
    assert lines[6] == f"{expected['n_neurons']} train/val/test accuracy w/ n_neurons"
    assert lines[7] == f"{few.C:05.2f} regularization coef w/ n_neurons"

    for name, text in expected.items():
        assert (folder / f"sentiment_accuracies/{name}.txt").read_text().strip() == text
    positive = {
        "all_neurons": expit(X["test"] @ weights + full.intercept_),
        "masked_n_neurons": expit(X["test"][:, top] @ weights[top] + full.intercept_),
        "n_neurons": expit(few_X["test"] @ few.coef_[0] + few.intercept_),
    }
    for name, expected_probability in positive.items():
        saved = np.load(folder / f"test_probs/{name}.npy", allow_pickle=False)
        assert saved.shape == (80, 2)
        np.testing.assert_allclose(saved[:, 1], expected_probability, atol=1e-6)

    saved = json.loads((folder / "sentiment/neurons.json").read_text())
    assert (saved["classes"], saved["pooling"], saved["state"]) == ([0, 1], ["mean"], "cell")
    assert saved["all_neurons"]["C"] == full.C
    assert saved["n_neurons"]["C"] == few.C
    assert saved["n_neurons"]["neurons"] == top
    assert saved["top_features"] == ranking[:10]
    np.testing.assert_allclose(saved["all_neurons"]["coefficients"], full.coef_)
    np.testing.assert_allclose(saved["all_neurons"]["intercepts"], full.intercept_)
    np.testing.assert_allclose(saved["n_neurons"]["coefficients"], few.coef_)


def test_without_validation_set_the_training_set_chooses(run, files, language_model, tables):
    lines, _ = run(*files("train", "test"), "--no-baselines")
    X, y = featurise(language_model, tables), labels(tables)
    full = best_fit(X, y, select="train")
    shown = accuracies(full.predict, X, y, parts=("train", "train", "test"))
    assert lines[0].startswith(shown)
    assert lines[1].startswith(f"{full.C:05.2f}")
    assert "featurise 320 texts" in lines[-1]  # the training set is read once


def test_pooling_by_the_last_byte_goes_without_saying(run, files):
    lines, _ = run(*files("train"), "--pooling=last", "--no-baselines")
    assert re.fullmatch(r"neuron\(s\) [\d, ]+ are top sentiment neurons", lines[3])


def test_features_of_several_poolings_say_which(run, files, language_model, tables):
    lines, folder = run(
        *files(*ALL), "--pooling", "last", "max", "--num-neurons=20", "--no-baselines"
    )
    X = featurise(language_model, tables, pooling=("last", "max"))
    full = best_fit(X, labels(tables))
    ranking = np.argsort(-np.abs(full.coef_[0]), kind="stable")[:20]
    names = [f"{i % 16} ({'last' if i < 16 else 'max'})" for i in ranking]
    expected = f"neuron(s) {', '.join(names)} are top sentiment neurons (last and max)"
    assert lines[3] == expected
    saved = json.loads((folder / "sentiment/neurons.json").read_text())["n_neurons"]
    assert saved["features"] == ranking.tolist()
    assert saved["neurons"] == (ranking % 16).tolist()


def test_no_neuron_is_called_the_top_one_where_all_weights_are_0(run, tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("sentence,label\nSo so.,1\nSo so.,0\n")
    lines, _ = run(f"--train={path}", "--no-baselines", folder=f"{tmp_path.name}/tiny.v1")
    assert lines[2] == "00000 features used w/ all neurons all_neurons"
    assert lines[3] == "no neuron is used: all weights are 0, and every text gets the same label"


def test_baselines(run, files, tables):
    lines, _ = run(*files(*ALL))
    y = labels(tables)
    majority = int(y["train"].mean() > 0.5)
    shown = "/".join(percent(y[part] == majority) for part in ALL)
    assert f"{shown} train/val/test accuracy w/ majority_class" in lines
    C = float(next(line for line in lines if line.endswith("coef w/ tfidf_1_2_grams")).split()[0])
    assert np.log2(C) in range(7)


def test_same_command_same_output(run, files, tmp_path):
    options = [*files(*ALL), f"--cache={tmp_path / 'cache'}", "--no-baselines"]
    first, folder = run(*options)
    probabilities = (folder / "test_probs/all_neurons.npy").read_bytes()
    again, _ = run(*options)
    assert (tmp_path / "cache").is_dir()
    assert first[:-1] == again[:-1]
    assert probabilities == (folder / "test_probs/all_neurons.npy").read_bytes()


# ---- the files


def test_plots(run, files, language_model, tables, tmp_path):
    stale = tmp_path / "experiments/transfer/reviews/tiny.v1/logit_vis/0_9999.png"
    stale.parent.mkdir(parents=True)
    stale.touch()
    _, folder = run(*files(*ALL), "--no-baselines", draw=True)
    found = json.loads((folder / "sentiment/neurons.json").read_text())
    (coefficients,) = found["all_neurons"]["coefficients"]
    ranking = [neuron for neuron in found["top_features"] if coefficients[neuron]]
    assert 5 < len(ranking) < 10  # the L1 penalty leaves no more
    expected = {f"{rank}_{neuron}.png" for rank, neuron in enumerate(ranking)}
    assert {path.name for path in stale.parent.glob("*.png")} == expected
    for path in (folder / "sentiment/weight_vis.png", *stale.parent.glob("*.png")):
        assert path.read_bytes().startswith(PNG)

    values = pd.read_csv(stale.with_name("neuron_values.csv"))
    assert list(values) == ["label", *(f"neuron {neuron}" for neuron in ranking)]
    np.testing.assert_array_equal(values["label"], tables["test"]["label"])
    features = featurise(language_model, {"test": tables["test"]})["test"]
    np.testing.assert_allclose(values.iloc[:, 1:], features[:, ranking], rtol=1e-6)


def test_plots_are_of_the_training_set_without_labels_to_test_on(run, files, tables):
    _, folder = run(*files("train", "test"), "--no-test-eval", "--no-baselines", draw=True)
    values = pd.read_csv(folder / "logit_vis/neuron_values.csv")
    np.testing.assert_array_equal(values["label"], tables["train"]["label"])


def test_plots_of_many_classes(script, tmp_path):
    y = np.arange(90) % 9
    values = np.random.default_rng(0).normal(size=(90, 1)) + y[:, None]
    names = np.array(["4 (max)"])
    script.draw_neurons(values, y, names, tmp_path)
    script.draw_weights(SentimentNeuronClassifier().fit(values, y), names, tmp_path)
    drawn = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")}
    assert drawn == {"logit_vis/0_4.png", "sentiment/weight_vis.png"}


@pytest.mark.parametrize(("k", "also"), [(1, ["prob w/ 5 masked"]), (6, [])])
def test_written_results(run, files, language_model, tables, tmp_path, k, also):
    path = tmp_path / "results" / "test.csv"
    _, folder = run(*files(*ALL), f"--num-neurons={k}", f"--write-results={path}", "--no-baselines")
    table = pd.read_csv(path)
    top = json.loads((folder / "sentiment/neurons.json").read_text())["top_features"][: max(5, k)]
    neurons = [f"neuron {i}" for i in top]
    columns = ["prob w/ all", f"prob w/ {k} masked", *also]
    assert list(table) == ["label", *columns, *neurons, "sentence"]
    assert table["sentence"].tolist() == tables["test"]["sentence"].tolist()
    assert table["label"].tolist() == tables["test"]["label"].tolist()
    for column, name in zip(columns[:2], MODELS[:2], strict=True):
        np.testing.assert_allclose(table[column], np.load(folder / f"test_probs/{name}.npy")[:, 1])
    X = featurise(language_model, {"test": tables["test"]})["test"]
    np.testing.assert_allclose(table[neurons], X[:, top], rtol=1e-6)
    if also:
        saved = json.loads((folder / "sentiment/neurons.json").read_text())["all_neurons"]
        coef = np.array(saved["coefficients"][0])[top]
        masked = expit(X[:, top] @ coef + saved["intercepts"][0])
        np.testing.assert_allclose(table["prob w/ 5 masked"], masked, atol=1e-6)


def test_written_results_without_test_set_are_of_the_training_set(run, files, tables, tmp_path):
    path = tmp_path / "train.json"
    lines, folder = run(
        *files("train", "valid"), "--num-neurons=5", f"--write-results={path}", "--no-baselines"
    )
    records = json.loads(path.read_text(encoding="utf-8"))
    assert [each["sentence"] for each in records] == tables["train"]["sentence"].tolist()
    assert "prob w/ 5 masked" in records[0]
    _, valid, test = lines[0].split()[0].split("/")
    assert valid == test
    assert np.load(folder / "test_probs/all_neurons.npy").shape == (80, 2)  # of the validation set


def test_test_set_without_labels(run, files, reviews, tables, tmp_path):
    path = tmp_path / "unlabelled" / "test.jsonl"
    path.parent.mkdir()
    tables["test"][["sentence"]].to_json(path, orient="records", lines=True)
    results = tmp_path / "out.csv"
    lines, folder = run(
        *files("train", "valid"),
        f"--test={path}",
        "--no-test-eval",
        f"--write-results={results}",
    )
    labelled, _ = run(*files(*ALL))
    for line, full in zip(lines[:-1], labelled[:-1], strict=True):
        if "accuracy" in line:
            train, valid, test = line.split()[0].split("/")
            assert valid == test
            assert full.startswith(f"{train}/{valid}/")
        else:
            assert line == full
    table = pd.read_csv(results)
    assert "label" not in table
    assert table["sentence"].tolist() == tables["test"]["sentence"].tolist()
    for name in MODELS:
        assert np.load(folder / f"test_probs/{name}.npy").shape == (80, 2)


# ---- what is read


def test_three_classes(run, tables, language_model, tmp_path):
    folder = tmp_path / "three"
    folder.mkdir()
    for part, table in tables.items():
        table = table[["sentence", "kind"]].rename(columns={"sentence": "review"})
        table.to_csv(folder / f"{part}.tsv.gz", sep="\t", index=False)
    path = tmp_path / "out.csv"
    lines, out = run(
        *(f"--{part}={folder / part}.tsv.gz" for part in ALL),
        *("--text-key=review", "--label-key=kind", "--num-neurons=2", f"--write-results={path}"),
        folder="three/tiny.v1",
    )
    saved = json.loads((out / "sentiment/neurons.json").read_text())
    assert saved["classes"] == ["long", "medium", "short"]
    coef, intercept = (
        np.array(saved["all_neurons"][key]) for key in ("coefficients", "intercepts")
    )
    assert coef.shape == (3, 16)
    ranking = np.argsort(-np.abs(coef).sum(axis=0), kind="stable")
    assert saved["top_features"] == ranking[:10].tolist()

    X = featurise(language_model, tables)
    y = {part: table["kind"].to_numpy() for part, table in tables.items()}
    for row, name in enumerate(saved["classes"]):  # each against the rest
        one = LogisticRegression(
            C=saved["all_neurons"]["C"],
            l1_ratio=1,
            solver="liblinear",
            max_iter=1000,
            random_state=0,
        ).fit(X["train"], y["train"] == name)
        np.testing.assert_allclose(one.coef_[0], coef[row], atol=1e-8)
    kept = np.where(np.isin(np.arange(16), ranking[:2]), coef, 0)
    for line, weights in ((0, coef), (4, kept)):

        def predict(features, weights=weights):
            return np.array(saved["classes"])[(features @ weights.T + intercept).argmax(axis=1)]

        assert lines[line].startswith(accuracies(predict, X, y))
    assert lines[0][:17] != lines[4][:17]

    table = pd.read_csv(path)
    assert {"prob w/ all long", "prob w/ 2 masked medium", "prob w/ 5 masked short"} <= set(table)
    of_all = table[[f"prob w/ all {name}" for name in saved["classes"]]]
    np.testing.assert_allclose(of_all.sum(axis=1), 1)
    np.testing.assert_allclose(of_all, np.load(out / "test_probs/all_neurons.npy"))


def test_without_training_set_it_is_sst2(run, script, tables, monkeypatch):
    asked = []

    def fetch_sst2(*, subset, as_frame):
        asked.append(subset)
        table = tables[subset.replace("validation", "valid")].reset_index(drop=True)
        return SimpleNamespace(frame=table.rename(columns={"sentence": "text"}))

    monkeypatch.setattr("labelled_tables.fetch_sst2", fetch_sst2)
    lines, folder = run("--text-key=t", "--label-key=l", folder="sst2/tiny.v1")
    assert asked == ["train", "validation", "test"]
    assert "featurise 400 texts" in lines[-1]
    assert (folder / "sentiment/neurons.json").exists()


# ---- what is refused

CSV = "sentence,label\nGood.,1\nBad.,0\n"


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (CSV + "Hm.,\n", [], "--train: 1 of 3 rows have no 'label'"),
        (CSV + "Hm.,NA\n", [], "--train: 1 of 3 rows have no 'label'"),
        ("sentence\nGood.\n", [], "--train: train.csv has no column 'label', found 'sentence'"),
        (CSV, ["--text-key=review"], "--train: train.csv has no column 'review', found"),
        ("sentence,label\n", [], "--train: There is no document in train.csv"),
        (CSV, ["--delimiter=;"], "has no column 'sentence', found 'sentence,label'"),
        (CSV + "Good.\n", [], "--train: train.csv, line 4: 1 fields, but the header has 2"),
        (CSV, ["--valid=latin.csv"], "latin.csv is not utf-8"),
        (CSV, ["--valid=cut.csv.gz"], "--valid: cut.csv.gz is damaged or not complete"),
        ("sentence,label\nGood.,1\nBad.,1\n", [], "two labels are needed, and every one is 1"),
        (
            "sentence,label\nGood.,1\nBad.,0.2\n",
            [],
            "--train: expected classes, got fractions such as 0.2: --binarize-labels?",
        ),
        (CSV, ["--split=8,x"], "proportions='8,x'"),
        (CSV, ["--split=1,1,1"], "2 documents cannot be split into 3 parts"),
        (CSV, ["--split=0,1"], "--split: expected up to three shares, the first above 0"),
        ("sentence,label\nGood.,\n", ["--drop-unlabeled"], "--train: no row has a label"),
        ("sentence,label\nGood.,a\nBad.,b\n", ["--binarize-labels"], "needs numbers, got 'a'"),
        ("sentence,label\nGood.,3\nBad.,3\n", ["--binarize-labels"], "every one is 3"),
        (CSV, ["--num-neurons=0"], "--num-neurons: expected 1 to 16"),
        (CSV, ["--num-neurons=17"], "--num-neurons: expected 1 to 16"),
        (CSV, ["--write-results=out.txt"], "--write-results: expected .csv or .json, got out.txt"),
        (CSV, ["--language-model=nowhere"], "No language model 'nowhere'"),
        (CSV, ["--valid=nowhere.csv"], "nowhere.csv"),
        (CSV, ["--valid=text.txt"], "--valid: text.txt is plain text: it has no labels"),
        (CSV, ["--seed=-1"], "Seed must be between 0 and 2**32 - 1"),
        (CSV, ["--write-results=train.csv/out.csv"], "File exists: 'train.csv'"),
        (CSV, ["--experiment-dir=train.csv"], "Not a directory: 'train.csv"),
        (CSV, ["--device=nonsense"], "nonsense"),
    ],
)
def test_errors_come_before_the_work(run, tmp_path, capsys, monkeypatch, content, options, message):
    monkeypatch.chdir(tmp_path)
    Path("train.csv").write_text(content)
    Path("latin.csv").write_text(CSV + "Très bon.,1\n", encoding="latin-1")
    Path("text.txt").write_text("Good.\n")
    Path("cut.csv.gz").write_bytes(gzip.compress(CSV.encode())[:-8])
    with pytest.raises(SystemExit, match="2"):
        run("--train=train.csv", *options)
    assert message in capsys.readouterr().err
    assert not Path("experiments").exists()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"sentence": "Good.", "label": 1}', '{"sentence": "Bad."}'], "Or --no-test-eval?"),
        (['{"sentence": "Good."}'], "See --no-test-eval"),
        (
            ['{"sentence": null, "label": 1}'],
            "test.jsonl, line 1: the text 'sentence' is missing (null)",
        ),
        (['{"sentence": 5, "label": 1}'], "line 1: the text 'sentence' is of type int"),
        (['{"sentence": "Good.", "label": "one"}'], "--test: labels ['one'], but those of --train"),
    ],
)
def test_errors_in_the_test_set(run, files, tmp_path, capsys, lines, message):
    path = tmp_path / "test.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(SystemExit, match="2"):
        run(*files("train"), f"--test={path}")
    assert message in capsys.readouterr().err


def test_help(monkeypatch, capsys, script, common_flags):
    monkeypatch.setattr("sys.argv", ["sentiment_transfer.py", "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(SCRIPT), run_name="__main__")
    text = capsys.readouterr().out
    assert "python examples/sentiment_transfer.py" in text
    for part in ("--train", "--no-test-eval", "--no-baselines", "(default: sentence)"):
        assert part in text
    assert "None" not in text

    explained = text.partition("what they are here:\n")[2]
    table = [line for line in explained.splitlines() if line.startswith("    -")]
    theirs = {flag for line in table for flag in re.findall(r"-\w+", line[:32])}
    assert theirs == common_flags | set(FLAGS.split())
    ours = {flag for line in table for flag in re.findall(r"--[a-z][-a-z]+", line[32:])}
    assert ours <= set(script.make_parser()._option_string_actions)
