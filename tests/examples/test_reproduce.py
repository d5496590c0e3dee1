import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.utils import Bunch

from skdiscovery import MLSTMFeaturizer

EXAMPLES = Path(__file__).parents[2] / "examples"
PNG = b"\x89PNG\r\n\x1a\n"
CLASSES = ["negative", "positive"]
ROWS = ["all neurons", "one neuron, the others masked", "one neuron", "majority class", "tf-idf"]


@pytest.fixture(scope="module")
def scripts(load_script):
    """The script and what it measures with."""
    return load_script("reproduce"), sys.modules["reproduce_measures"]


@pytest.fixture
def reproduce(scripts, tables, language_model, tmp_path, monkeypatch, capsys):
    """Run the script on small data; return its exit status, the table, and what it printed."""
    script, measures = scripts

    def fetch(*, subset, return_X_y=False):
        table = tables[subset.replace("validation", "valid")]
        data, target = table["sentence"].tolist(), table["label"].to_numpy()
        return (data, target) if return_X_y else Bunch(
            data=data, target=target, target_names=CLASSES
        )  # fmt: skip

    monkeypatch.setattr(measures, "FETCH", dict.fromkeys(measures.FETCH, fetch))
    monkeypatch.setattr(measures, "fetch_sst2", fetch)
    monkeypatch.setattr(measures, "N_DRAWS", 2)
    monkeypatch.setattr(measures, "N_LABELS", (10, 1000))
    monkeypatch.setattr(script, "RECORDED", tmp_path / "reproduced.json")
    (tmp_path / "reproduced.json").write_text('{"tolerance": 1.0, "models": {}}')
    output = tmp_path / "out"

    def run(*arguments, draw=False):
        if not draw:
            monkeypatch.setattr(script, "draw", lambda *_: None)
        arguments = [
            *arguments,
            f"--output={output}",
            f"--cache={tmp_path / 'cache'}",
            "--n-jobs=1",
        ]
        status = 0
        try:
            script.main([f"--language-model={language_model}", *arguments])
        except SystemExit as leaving:
            status = leaving.code
        printed = capsys.readouterr()
        table = pd.read_csv(output / "table.csv", index_col=[0, 1]) if output.exists() else None
        return status, table, printed.out + printed.err

    run.output, run.recorded = output, tmp_path / "reproduced.json"
    return run


def best_on_validation(models, X, y):
    right = [np.count_nonzero(model.predict(X["valid"]) == y["valid"]) for model in models]
    return models[int(np.argmax(right))]


def test_the_table_has_what_plain_scikit_learn_measures(reproduce, tables, language_model):
    status, table, _ = reproduce("--data=sst2")
    assert status == 0
    assert table.index.tolist() == [("sst2", row) for row in ROWS]
    texts = {part: each["sentence"] for part, each in tables.items()}
    y = {part: each["label"].to_numpy() for part, each in tables.items()}
    featurizer = MLSTMFeaturizer(language_model, device="cpu").fit()
    X = {part: featurizer.transform(some) for part, some in texts.items()}
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit(texts["train"])
    W = {part: words.transform(some) for part, some in texts.items()}
    l1 = {"l1_ratio": 1, "solver": "liblinear", "max_iter": 1000, "random_state": 0}

    def fit(X, grid, **params):
        models = [LogisticRegression(C=C, **params).fit(X["train"], y["train"]) for C in grid]
        return best_on_validation(models, X, y)

    everything = fit(X, 2.0 ** np.arange(-8, 1), **l1)
    first = np.abs(everything.coef_[0]).argmax()
    X_one = {part: some[:, [first]] for part, some in X.items()}
    alone = fit(X_one, 2.0 ** np.arange(-8, 1), **l1)
    tfidf = fit(W, 2.0 ** np.arange(7), max_iter=1000)
    columns = {"train": "train", "validation": "valid", "test": "test", "0% edits": "test"}
    for column, part in columns.items():
        masked = (X_one[part] @ everything.coef_[:, first] + everything.intercept_ > 0).astype(int)
        majority = int(y["train"].mean() > 0.5)
        expected = [
            everything.score(X[part], y[part]),
            np.mean(masked == y[part]),
            alone.score(X_one[part], y[part]),
            np.mean(y[part] == majority),
            tfidf.score(W[part], y[part]),
        ]
        np.testing.assert_allclose(table[column], 100 * np.array(expected), atol=0.01)
    assert table["C"].tolist()[:3] == [everything.C, everything.C, alone.C]
    n_features = [np.count_nonzero(everything.coef_), 1, 1, len(words.vocabulary_)]
    assert table["features"].dropna().tolist() == n_features


def test_of_imdb_the_last_fifth_of_the_training_reviews_validates(scripts, reproduce, tables):
    _, measures = scripts
    reproduce("--data=sst2", "--n-test=50")  # for its patches
    texts, y, classes = measures.load("imdb", 100, 50)
    train = tables["train"]
    assert texts["train"] == train["sentence"].tolist()[:80]
    assert texts["valid"] == train["sentence"].tolist()[80:100]
    np.testing.assert_array_equal(y["valid"], train["label"][80:100])
    assert texts["test"] == texts["0% edits"] == tables["test"]["sentence"].tolist()[:50]
    assert classes == CLASSES


def test_columns_of_few_labels(reproduce):
    _, table, _ = reproduce("--data", "sst2", "imdb")
    assert "1000 labels" not in table
    few = table["10 labels"].dropna()
    learners = few.index.get_level_values(1)
    assert learners.tolist() == ["all neurons", "one neuron", "tf-idf"] * 2
    assert few.between(20, 100).all()
    assert table["10 labels, std"].notna().equals(table["10 labels"].notna())


@pytest.mark.parametrize(("n_features", "numbers"), [(8, [1, 2, 4, 8]), (6, [1, 2, 4, 6])])
def test_accuracy_by_the_number_of_neurons(scripts, n_features, numbers):
    _, measures = scripts
    rng = np.random.default_rng(0)
    X = {part: rng.normal(size=(90, n_features)) for part in ("train", "test")}
    y = {part: (some[:, 3] + some[:, 1] > 0).astype(int) for part, some in X.items()}
    model = LogisticRegression().fit(X["train"], y["train"])
    ranking = np.array([3, 1, *set(range(n_features)) - {1, 3}])
    methods = {measures.ALL: measures.Method(model, X)}
    curve = measures.accuracy_by_neurons(methods, y, ranking)
    assert curve.index.tolist() == numbers
    for k in numbers:
        first = ranking[:k]
        fitted = LogisticRegression().fit(X["train"][:, first], y["train"])
        assert curve[k] == 100 * fitted.score(X["test"][:, first], y["test"])
    assert curve[1] < curve[2]


def test_few_words_weigh_as_among_all(scripts):
    _, measures = scripts
    rng = np.random.default_rng(0)
    X = {part: sparse.random(n, 300, 0.03, "csr", rng=rng) for part, n in
         (("train", 100), ("test", 80))}  # fmt: skip
    y = {part: rng.integers(2, size=len(some.toarray())) for part, some in X.items()}
    search = GridSearchCV(LogisticRegression(tol=1e-8), {"C": [1.0, 8.0]}, cv=3)
    dense = {part: some.toarray() for part, some in X.items()}
    for k in range(3):
        got, expected = (
            measures.accuracy_from_few(search, some, y, n_labels=20, draw=k) for some in (X, dense)
        )
        assert got == pytest.approx(expected)


def test_files(reproduce):
    status, table, printed = reproduce("--data=imdb", "--n-train=100", draw=True)
    assert status == 0
    names = ["weights", "neuron", "neurons", "labels"]
    pictures = {f"imdb_{name}.png" for name in names}
    assert {path.name for path in reproduce.output.iterdir()} == {
        *pictures, "table.csv", "table.md"
    }  # fmt: skip
    for picture in pictures:
        assert (reproduce.output / picture).read_bytes().startswith(PNG)
    text = (reproduce.output / "table.md").read_text()
    assert text in printed
    lines = text.splitlines()
    assert len({line.count("|") for line in lines[:7]}) == 1
    assert f"| imdb | all neurons | {table['train'].iloc[0]:.2f} |" in lines[2]
    assert "imdb: 80 / 20 / 80 texts; neurons" in text
    assert "python examples/reproduce.py" in text
    assert "--n-train=100" in text


# ---- figures on record


def test_recorded_figures_are_compared_with(scripts, reproduce, monkeypatch):
    script, _ = scripts
    _, _, printed = reproduce("--data=sst2")
    assert "sst2: there are no figures of 'tiny.v1' on record" in printed
    assert reproduce("--data=sst2", "--record")[0] == 0
    kept = json.loads(reproduce.recorded.read_text())
    figures = kept["models"]["tiny.v1"]["sst2"]["accuracy"]
    assert set(figures) == set(ROWS)
    measure, outcomes = script.measure, []

    def keep(*given):
        outcomes.append(measure(*given))
        return outcomes[-1]

    monkeypatch.setattr(script, "measure", keep)
    status, _, printed = reproduce("--data=sst2")
    assert status == 0
    n_figures = sum(map(len, figures.values()))
    assert f"sst2: {n_figures} of {n_figures} figures of 'tiny.v1' are within 1.0" in printed

    monkeypatch.setattr(script, "measure", lambda *_: outcomes[-1])
    figures["tf-idf"]["test"] += 0.9
    reproduce.recorded.write_text(json.dumps(kept))
    assert reproduce("--data=sst2")[0] == 0
    figures["tf-idf"]["test"] += 0.2
    figures["one neuron"]["10 labels"] -= 7
    reproduce.recorded.write_text(json.dumps(kept))
    status, table, printed = reproduce("--data=sst2")
    assert status == 1
    assert f"sst2: {n_figures - 2} of {n_figures} figures" in printed
    got = table.loc[("sst2", "tf-idf"), "test"]
    assert f"\n  tf-idf, test: {got:.2f}, on record {got + 1.1:.2f}\n" in printed
    assert "\n  one neuron, 10 labels: " in printed


def test_figures_of_other_sizes_are_not_compared(reproduce):
    reproduce("--data=sst2", "--record", "--n-train=100")
    kept = reproduce.recorded.read_text()
    reproduce.recorded.write_text(re.sub(r'"test": [\d.]+', '"test": 0', kept))
    status, _, printed = reproduce("--data=sst2")
    assert status == 0
    assert "not compared" in printed
    assert "100 and 80 texts, training and test, and these of 240 and 80" in printed


def test_recording_keeps_the_figures_of_others(reproduce):
    other = {"source": "a paper", "sst2": {"accuracy": {}}}
    kept = {"tolerance": 2.0, "models": {"openai": other}}
    reproduce.recorded.write_text(json.dumps(kept))
    reproduce("--data=imdb", "--record", "--expect=mine")
    now = json.loads(reproduce.recorded.read_text())
    assert now["tolerance"] == 2.0
    assert now["models"]["openai"] == other
    assert list(now["models"]["mine"]) == ["imdb"]


def test_figures_of_a_paper_can_be_expected(reproduce):
    paper = {"n_train": 240, "n_test": 80, "accuracy": {"all neurons": {"test": 99.9}}}
    kept = {"tolerance": 1.0, "models": {"openai": {"sst2": paper}}}
    reproduce.recorded.write_text(json.dumps(kept))
    status, _, printed = reproduce("--data=sst2", "--expect=openai")
    assert status == 1
    assert "0 of 1 figures of 'openai' are within 1.0 of those on record" in printed
    assert "on record 99.90" in printed


def test_the_file_of_figures_has_what_the_script_reads(scripts):
    _, measures = scripts
    kept = json.loads((EXAMPLES / "reproduced.json").read_text())
    assert kept["tolerance"] > 0
    assert {"default", "openai"} <= set(kept["models"])
    for figures in kept["models"].values():
        for name in measures.FETCH.keys() & figures.keys():
            assert {"n_train", "n_test", "accuracy"} == set(figures[name])
            for method, row in figures[name]["accuracy"].items():
                assert method in ROWS
                assert all(0 < value <= 100 for value in row.values())
                few = {f"{n} labels" for n in measures.N_LABELS}
                assert set(row) <= {*measures.COLUMNS, *few}


# ---- edits


def test_characters_are_edited_at_random_but_the_same_each_time(scripts):
    _, measures = scripts
    texts = ["".join(map(chr, range(0x4E00, 0x4E00 + 10_000)))] * 2
    assert measures.edited(texts, 0.0) == texts
    once, other = measures.edited(texts, 0.2)
    assert [once, other] == measures.edited(texts, 0.2)
    assert once != other
    letters = sum(character.isascii() for character in once)
    lost = len(set(texts[0]) - set(once))
    kept = [ord(character) for character in once if not character.isascii()]
    swapped = np.count_nonzero(np.diff(kept) < 0)
    # Of 2,000 edits, a quarter each replaces, drops, adds and swaps.
    assert letters == pytest.approx(1000, abs=150)
    assert lost == pytest.approx(1000, abs=150)
    assert swapped == pytest.approx(500, abs=120)
    assert len(once) == pytest.approx(10_000, abs=150)


@pytest.mark.parametrize("text", ["", "a", "ab"])
def test_the_shortest_texts_are_edited(scripts, text):
    _, measures = scripts
    for seed in range(20):
        edited = measures.edit(text, 1.0, np.random.default_rng(seed))
        assert len(edited) <= 2 * len(text)


# ---- what is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--language-model=nowhere"], "No language model 'nowhere'"),
        (["--n-train=49"], "--n-train: expected 50 or more, got 49"),
        (["--n-test=-1"], "--n-test: expected 50 or more, got -1"),
        (["--data=amazon"], "invalid choice: 'amazon'"),
        (["--precision=int4"], "invalid choice: 'int4'"),
    ],
)
def test_errors_come_before_the_work(reproduce, arguments, message):
    status, table, printed = reproduce(*arguments)
    assert status == 2
    assert table is None
    assert message in printed


def test_help_of_the_script(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["reproduce.py", "--help"])
    monkeypatch.syspath_prepend(EXAMPLES)
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(EXAMPLES / "reproduce.py"), run_name="__main__")
    text = capsys.readouterr().out
    for part in ("--expect openai", "--record", "reproduced.json", "(default: runs/reproduce)"):
        assert part in text
    assert "None" not in text
