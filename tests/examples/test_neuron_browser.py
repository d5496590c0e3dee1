import json
import re

import pandas as pd
import pytest


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("neuron_browser")


@pytest.fixture
def run(script, tiny_model, tmp_path, capsys):
    """Run the script; return the data of the page."""

    def run(*options):
        path = tmp_path / "page.html"
        script.main(
            [f"--language-model={tiny_model}", f"--output={path}", "--device=cpu", *options]
        )
        assert capsys.readouterr().out.startswith(f"{path}: ")
        page = path.read_text(encoding="utf-8")
        return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])

    return run


def test_the_reviews_that_ship(run):
    data = run("--n-neurons=4", "--max-characters=20")
    assert len(data["texts"]) == 200
    assert len(data["neurons"]) == 4
    assert data["classes"] == ["negative", "positive"]
    assert sum(text["label"] for text in data["texts"]) == 100  # as among all of them
    assert {len(text["characters"]) for text in data["texts"]} == {20}


def test_the_seed_decides_which_texts(run):
    def texts(seed):
        return [text["characters"] for text in run("--n-texts=20", f"--seed={seed}")["texts"]]

    assert texts(1) == texts(1) != texts(2)


def test_a_file_with_and_without_labels(run, tmp_path):
    texts = [f"It was number {i}, café." for i in range(9)]
    path = tmp_path / "mine.jsonl.gz"
    table = pd.DataFrame({"review": texts, "stars": [i % 3 for i in range(9)]})
    table.to_json(path, orient="records", lines=True)
    data = run(f"--data={path}", "--text-key=review", "--label-key=stars")
    assert len(data["classes"]) == 3
    assert [text["label"] for text in data["texts"]] == [0, 1, 2] * 3
    data = run(f"--data={path}", "--text-key=review")
    assert data["classes"] == ["text"]
    assert [text["characters"] for text in data["texts"]] == [
        f"↵ It was number {i}, cafe. " for i in range(9)
    ]


def test_texts_without_a_label_are_left_out(run, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("sentence,label\nGood.,1\nHm.,\nBad.,0\nGreat.,1\nAwful.,0\n")
    data = run(f"--data={path}", "--label-key=label")
    assert data["classes"] == ["0", "1"]
    assert [text["label"] for text in data["texts"]] == [1, 0, 1, 0]


def test_the_folder_of_the_page_is_made(script, tiny_model, tmp_path):
    path = tmp_path / "new" / "folder" / "page.html"
    script.main([f"--language-model={tiny_model}", f"--output={path}", "--device=cpu"])
    assert path.is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--n-texts=0"], "--n-texts: expected 1 or more, got 0"),
        (["--n-neurons=0"], "'n_neurons' parameter"),
        (["--data=nowhere.csv"], "nowhere.csv"),
        (["--language-model=nowhere"], "No language model 'nowhere'"),
    ],
)
def test_errors(run, capsys, tmp_path, options, message):
    with pytest.raises(SystemExit, match="2"):
        run(*options)
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.html"))


def test_a_page_that_cannot_be_written_is_refused_before_any_work(script, said_of_a_folder):
    assert "Expected a file to write, got a folder" in said_of_a_folder(script)
