import gzip
import json
import os
import signal
import time

import joblib
import numpy as np
import pytest
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from skdiscovery import ByteMLSTMLanguageModel, MLSTMFeaturizer, SentimentNeuronClassifier
from skdiscovery.datasets import load_reviews
from skdiscovery.text.readers import Reader

distributed = pytest.importorskip("distributed")

N_FILES = 10


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("featurize_with_dask")


@pytest.fixture(scope="module")
def client():
    """Two worker processes of one thread."""
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def featurizer(tmp_path_factory):
    """One with a small model of its own: the one that ships takes a while to reach the workers."""
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    lm = ByteMLSTMLanguageModel(64, max_steps=1, batch_size=1, device="cpu", random_state=0)
    lm.fit(["A film to see. " * 20]).save_pretrained(path)
    return MLSTMFeaturizer(path, neurons=[3, 1, 4], device="cpu")


@pytest.fixture
def files(tmp_path):
    """Files of reviews, of several formats, and one file of one document."""
    texts = load_reviews().data[:200]
    paths = []
    for number in range(N_FILES):
        share = texts[number::N_FILES] if number else texts[:1]
        lines = "".join(json.dumps({"sentence": text}) + "\n" for text in share).encode()
        path = tmp_path / f"reviews-{number}.jsonl{'.gz' if number % 2 else ''}"
        path.write_bytes(gzip.compress(lines) if number % 2 else lines)
        paths.append(path)
    return paths


def assert_features(folder, files, featurizer):
    targets = sorted(folder.iterdir())
    assert [target.suffix for target in targets] == [".npy"] * len(files)
    for file, target in zip(files, targets, strict=True):
        texts = [text for text, _ in Reader().read([file])]
        expected = featurizer.fit_transform(texts)
        np.testing.assert_allclose(np.load(target), expected, rtol=0, atol=1e-6)


def test_a_cluster_makes_the_features_of_one_process_and_goes_on_where_it_stopped(
    script, client, files, featurizer, tmp_path
):
    folder = tmp_path / "features"
    done = dict(script.featurize(client, files[:4], folder, featurizer, Reader()))
    assert sorted(done.values()) == [1, 20, 20, 20]
    first = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    done |= dict(script.featurize(client, files, folder, featurizer, Reader()))
    assert len(done) == N_FILES
    assert all(path.stat().st_mtime_ns == time for path, time in first.items())
    assert_features(folder, files, featurizer)


def test_a_file_that_is_new_among_others_gets_its_own_features(
    script, client, files, featurizer, tmp_path
):
    folder = tmp_path / "features"
    for some in (files[1:3], files[:3]):
        list(script.featurize(client, some, folder, featurizer, Reader()))
    assert sorted(path.name for path in folder.iterdir()) == [
        "reviews-0.jsonl.npy", "reviews-1.jsonl.gz.npy", "reviews-2.jsonl.npy"
    ]  # fmt: skip
    assert_features(folder, files[:3], featurizer)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a/x.csv", "b/x.csv", "b/x.csv.gz"], "a/x.csv and b/x.csv would have one file"),
        (["x.csv"], "No such file or directory: 'x.csv'"),
        (["x.csv", "--language-model=nowhere"], "No language model 'nowhere'"),
        (["x.csv", "--pooling=men"], "invalid choice: 'men'"),
    ],
)
def test_what_is_wrong_is_said_before_a_cluster_is_started(
    script, tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(script, "LocalCluster", None)
    with pytest.raises(SystemExit, match="2"):
        script.main([*arguments, "--folder=features"])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "features").exists()


def test_a_file_that_fails_does_not_keep_others_from_being_read(
    script, client, files, featurizer, tmp_path
):
    files[0].write_text("no JSON\n")
    folder = tmp_path / "features"
    with pytest.raises(ExceptionGroup, match="1 of 3 files") as raised:
        list(script.featurize(client, files[:3], folder, featurizer, Reader()))
    assert "reviews-0.jsonl, line 1" in str(raised.value.exceptions[0])
    assert_features(folder, files[1:3], featurizer)


def test_a_worker_that_is_killed_half_way_loses_nothing(
    script, client, files, featurizer, tmp_path
):
    class SlowReader(Reader):
        def read(self, paths):
            time.sleep(0.5)
            return super().read(paths)

    folder = tmp_path / "features"
    running = script.featurize(client, files, folder, featurizer, SlowReader())
    done = [next(running)]
    workers = client.run(os.getpid)
    assert len([*folder.glob("*.npy")]) < N_FILES
    os.kill(next(iter(workers.values())), signal.SIGKILL)
    done += running
    assert len(dict(done)) == N_FILES
    assert_features(folder, files, featurizer)


def test_the_model_reaches_each_worker_once(script, client, featurizer):
    def who(_, featurizer):
        return os.getpid(), id(featurizer.language_model_.weights_["layers.0.wh"])

    client.wait_for_workers(2)
    loaded = client.submit(script.load, featurizer, pure=False)
    seen = client.gather(client.map(who, range(40), featurizer=loaded, pure=False))
    processes = {process for process, _ in seen}
    assert len(set(seen)) == len(processes) <= 2
    assert os.getpid() not in processes


def test_scikit_learns_loops_run_on_the_cluster(client, featurizer):
    texts, labels = load_reviews(return_X_y=True)
    pipeline = make_pipeline(featurizer, SentimentNeuronClassifier(random_state=0))
    alone = cross_val_score(pipeline, texts[:40], labels[:40], cv=2, error_score="raise")
    client.wait_for_workers(2)
    with joblib.parallel_config("dask", n_jobs=2):
        together = cross_val_score(pipeline, texts[:40], labels[:40], cv=2, error_score="raise")
    np.testing.assert_array_equal(together, alone)
