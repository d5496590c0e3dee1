import pandas as pd
import pytest

from skdiscovery import TextCorpus


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("labelled_tables")


@pytest.fixture(scope="module")
def make_parser(load_script):
    return load_script("sentiment_transfer").make_parser


@pytest.fixture
def read_table(script, make_parser):
    """Return a function that reads the table of a file as the options say."""

    def read_table(path, *arguments):
        return script.read_table(path, "train", make_parser().parse_args(arguments))

    return read_table


@pytest.fixture
def read(script, make_parser):
    """Return a function that reads tables and labels as the options say."""

    def read(*arguments):
        options = make_parser().parse_args([*map(str, arguments)])
        tables = script.read_tables(options)
        return tables, script.labels_of(tables, options)

    return read


@pytest.mark.parametrize(
    "name",
    ["t.csv", "t.csv.bz2", "t.tsv", "t.tsv.xz", "list.json", "lines.json", "t.jsonl", "t.jsonl.gz"],
)
def test_file_formats(read_table, tmp_path, name):
    expected = pd.DataFrame(
        {"sentence": ['Fine, "so" to say.', "NA", "1957", "Café,\tclosed"], "label": [1, 0, 0, 1]}
    )
    path = tmp_path / name
    if ".json" in name:
        expected.to_json(path, orient="records", lines=not name.startswith("list"))
    else:
        expected.to_csv(path, index=False, sep="\t" if ".tsv" in name else ",")
    pd.testing.assert_frame_equal(read_table(path), expected)


def test_delimiter_and_encoding(read_table, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("sentence;label\nyes, très;1\n", encoding="latin-1")
    table = read_table(path, "--delimiter=;", "--encoding=latin-1")
    assert table.to_numpy().tolist() == [["yes, très", 1]]


def test_parts_that_have_no_file_are_drawn_from_the_training_set(read, tables, tmp_path):
    for part in ("train", "valid"):
        tables[part].to_csv(tmp_path / f"{part}.csv", index=False)
    train, valid = f"--train={tmp_path / 'train.csv'}", f"--valid={tmp_path / 'valid.csv'}"

    drawn, y = read(train, "--split=8,1,1")
    assert {part: len(table) for part, table in drawn.items()} == {
        "train": 192,
        "valid": 24,
        "test": 24,
    }
    together = pd.concat(drawn.values())
    assert sorted(together["sentence"]) == sorted(tables["train"]["sentence"])
    label_of = dict(zip(tables["train"]["sentence"], tables["train"]["label"], strict=True))
    for part, table in drawn.items():
        assert y[part].tolist() == [label_of[text] for text in table["sentence"]]

    again, _ = read(train, "--split=8,1,1")
    other, _ = read(train, "--split=8,1,1", "--seed=1")
    assert again["test"].equals(drawn["test"])
    assert not other["test"].equals(drawn["test"])

    partly, _ = read(train, valid, "--split=.9,0,.1")
    assert {part: len(table) for part, table in partly.items()} == {
        "train": 216,
        "valid": 80,
        "test": 24,
    }
    assert partly["valid"]["sentence"].tolist() == tables["valid"]["sentence"].tolist()


def test_rows_without_a_label_can_be_dropped(read, tmp_path):
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    train.write_text("sentence,label\nGood.,1\nHm.,\nBad.,0\nWell.,NA\n")
    test.write_text("sentence,label\nFine.,\n")
    options = [f"--train={train}", f"--test={test}", "--drop-unlabeled", "--no-test-eval"]
    tables, y = read(*options)
    assert tables["train"].to_numpy().tolist() == [["Good.", 1], ["Bad.", 0]]
    assert y["train"].dtype.kind == "i"
    assert tables["test"]["sentence"].tolist() == ["Fine."]
    assert "test" not in y


@pytest.mark.parametrize("missing", ["", "NA", "NULL", "-nan", " n/a "])
@pytest.mark.parametrize("name", ["t.csv", "t.json"])
def test_missing_labels_are_those_of_a_corpus(read, tmp_path, name, missing):
    table = pd.DataFrame({"sentence": ["Good.", "Hm.", "Bad."], "label": ["1", missing, "0"]})
    path = tmp_path / name
    if name.endswith("csv"):
        table.to_csv(path, index=False)
    else:
        table.to_json(path, orient="records")
    _, y = read(f"--train={path}", "--drop-unlabeled")
    labels = TextCorpus.from_file(path, label_key="label", drop_unlabeled=True).labels
    assert y["train"].tolist() == labels.tolist() == [1, 0]


@pytest.mark.parametrize("labels", [[True, False], ["1_1", "11"], [" 2", "1.0"], [1, "a"]])
def test_labels_are_those_of_a_corpus(read, tmp_path, labels):
    path = tmp_path / "t.json"
    pd.DataFrame({"sentence": ["Good.", "Bad."], "label": labels}).to_json(path, orient="records")
    _, y = read(f"--train={path}")
    of_corpus = TextCorpus.from_file(path, label_key="label").labels
    assert y["train"].tolist() == of_corpus.tolist()
    assert y["train"].dtype.kind == of_corpus.dtype.kind


def test_labels_can_be_binarized(read, tmp_path):
    paths = {part: tmp_path / f"{part}.csv" for part in ("train", "valid")}
    stars = {"train": [1, 2, 3, 4, 5], "valid": [4, 3]}  # of which 3 would be the lower half
    for part, path in paths.items():
        table = pd.DataFrame({"sentence": "A film.", "label": stars[part]})
        table.to_csv(path, index=False)
    _, y = read(*(f"--{part}={path}" for part, path in paths.items()), "--binarize-labels")
    assert y["train"].tolist() == [0, 0, 0, 1, 1]
    assert y["valid"].tolist() == [1, 0]
