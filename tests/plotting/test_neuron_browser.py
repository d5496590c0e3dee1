import copy
import json
import re

import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skdiscovery import ByteMLSTMLanguageModel, MLSTMFeaturizer, SentimentNeuronClassifier
from skdiscovery.plotting.neuron_browser import LEVELS, class_correlations, neuron_browser_html

ATTACK = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> &lt; {{data}}"
ODD = "שלום e\u0301 日本 \x00 ab\t😀\n"
TEXTS = [ATTACK, "A lovely film.", "A dull film.", ODD, "", "I loved it, each minute of it. " * 9]
LABELS = ["bad", "good", "bad", "good", "bad", "good"]


@pytest.fixture(scope="module")
def featurizer():
    """Of a tiny model that reads bytes as they are."""
    lm = ByteMLSTMLanguageModel(
        12, embedding_size=8, n_layers=2, preprocessor=None, max_steps=3, batch_size=2,
        seq_length=16, device="cpu", random_state=0,
    ).fit(TEXTS)  # fmt: skip
    lm.weights_["layers.1.wx"] *= 9  # neurons that differ
    return MLSTMFeaturizer(lm, pooling="mean", device="cpu").fit()


@pytest.fixture(scope="module")
def pipeline(featurizer):
    return make_pipeline(featurizer, SentimentNeuronClassifier(100.0)).fit(TEXTS, LABELS)


def data_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


def traces_of(neuron):
    """Return the values that the page shows for each text."""
    return [
        neuron["lowest"] + neuron["step"] * np.array([LEVELS.index(c) for c in trace])
        for trace in neuron["traces"]
    ]


def neurons_of(data):
    return [int(neuron["name"].rpartition("_")[2]) for neuron in data["neurons"]]


# ---- the data


def test_levels_are_characters_that_json_and_html_write_as_they_are():
    assert len(LEVELS) == len(set(LEVELS)) == 90
    assert json.dumps(LEVELS) == f'"{LEVELS}"'
    assert "<" not in LEVELS


def test_shown_are_the_states_after_each_character(featurizer):
    data = data_of(neuron_browser_html(featurizer, TEXTS, LABELS, max_characters=1000))
    neurons = neurons_of(data)
    assert sorted(neurons) == list(range(12))
    activations = featurizer.language_model_.activations(TEXTS, neurons=neurons)
    for i, neuron in enumerate(data["neurons"]):
        for text, shown, of_text in zip(TEXTS, traces_of(neuron), activations, strict=True):
            ends = np.cumsum([len(character.encode()) for character in text], dtype=int) - 1
            expected = of_text[ends, i]
            np.testing.assert_allclose(shown, expected, atol=0.51 * neuron["step"])
        everything = np.concatenate(traces_of(neuron))
        assert everything.min() == pytest.approx(neuron["lowest"])
        np.testing.assert_allclose(np.ptp(everything), 89 * neuron["step"])
    assert data["texts"][5]["n_bytes"] == len(TEXTS[5])
    assert data["texts"][3]["characters"] == "שלום e\u0301 日本 □ ab→😀↵"
    assert data["texts"][0]["characters"] == ATTACK
    assert [text["label"] for text in data["texts"]] == [0, 1] * 3
    assert not any(text["is_cut"] for text in data["texts"])


def test_shown_are_the_states_that_features_are_made_of(featurizer):
    lm = featurizer.language_model_
    other = MLSTMFeaturizer(lm, neurons=[7, 2], state="hidden", layer=0, device="cpu").fit()
    data = data_of(neuron_browser_html(other, ["A lovely film."]))
    expected = lm.activations(["A lovely film."], neurons=neurons_of(data), state="hidden", layer=0)
    for neuron, values in zip(data["neurons"], expected[0].T, strict=True):
        np.testing.assert_allclose(traces_of(neuron)[0], values, atol=0.51 * neuron["step"])


@pytest.mark.parametrize(
    ("text", "is_cut"), [("four", False), ("4 ü!", False), ("fivē!", True), ("😀" * 5, True)]
)
def test_a_text_is_cut_after_so_many_characters(featurizer, text, is_cut):
    (shown,) = data_of(neuron_browser_html(featurizer, [text], max_characters=4))["texts"]
    assert shown["characters"] == text[:4]
    assert shown["is_cut"] == is_cut
    assert shown["n_bytes"] == len(text.encode())


def test_values_of_whole_texts_are_the_features(featurizer):
    data = data_of(neuron_browser_html(featurizer, TEXTS, LABELS, n_neurons=5, max_characters=4))
    features = featurizer.transform(TEXTS)
    assert len(data["neurons"]) == 5
    for neuron, column in zip(data["neurons"], neurons_of(data), strict=True):
        np.testing.assert_allclose(neuron["values"], features[:, column], rtol=1e-3)
    assert [text["is_cut"] for text in data["texts"]] == [len(text) > 4 for text in TEXTS]
    assert [text["characters"] for text in data["texts"][1:3]] == ["A lo", "A du"]
    assert all(len(trace) <= 4 for neuron in data["neurons"] for trace in neuron["traces"])


def test_no_more_of_a_text_is_read_than_is_shown_and_as_the_featurizer_does(
    featurizer, monkeypatch
):
    asked, precisions = [], []
    activations = ByteMLSTMLanguageModel.activations

    def note(self, X, **options):
        asked.extend(X)
        precisions.append(self.precision)
        return activations(self, X, **options)

    monkeypatch.setattr(ByteMLSTMLanguageModel, "activations", note)
    precise = MLSTMFeaturizer(featurizer.language_model_, device="cpu", precision="float64").fit()
    neuron_browser_html(precise, TEXTS, LABELS, max_characters=4)
    assert precisions == ["float64"]
    assert asked == [text[:4].encode() for text in TEXTS]


def test_features_may_come_as_a_table(featurizer):
    expected = neuron_browser_html(featurizer, TEXTS, LABELS)
    with config_context(transform_output="pandas"):
        assert neuron_browser_html(featurizer, TEXTS, LABELS) == expected


def test_neurons_that_a_classifier_has_not_found_do_not_come_first(featurizer):
    classifier = SentimentNeuronClassifier(1e-6, n_neurons=10)
    with pytest.warns(UserWarning, match="leaves no neuron"):
        pipeline = make_pipeline(featurizer, classifier).fit(TEXTS, LABELS)
    assert neuron_browser_html(pipeline, TEXTS, LABELS) == neuron_browser_html(
        featurizer, TEXTS, LABELS
    )


def test_neurons_are_ranked_by_the_classes(featurizer):
    data = data_of(neuron_browser_html(featurizer, TEXTS, LABELS))
    features = featurizer.transform(TEXTS)
    expected = [np.corrcoef(column, np.array(LABELS) == "good")[0, 1] for column in features.T]
    scores = [neuron["score"] for neuron in data["neurons"]]
    np.testing.assert_allclose(scores, np.array(expected)[neurons_of(data)], atol=1e-6)
    assert np.all(np.diff(np.abs(scores)) <= 0)
    assert (data["classes"], data["score"]) == (["bad", "good"], "correlation")


def test_without_classes_they_are_ranked_by_how_they_vary(featurizer):
    data = data_of(neuron_browser_html(featurizer, TEXTS))
    spreads = featurizer.transform(TEXTS).std(axis=0)
    np.testing.assert_array_equal(neurons_of(data), np.argsort(-spreads, kind="stable"))
    assert (data["classes"], data["score"]) == (["text"], "standard deviation")


def test_correlation_ratio_of_more_classes():
    features = np.array([[0.0, 1, 5], [0, 2, 5], [1, 1, 5], [1, 2, 5], [9, 1, 5], [9, 2, 5]])
    ratios = class_correlations(features, np.array([0, 0, 1, 1, 2, 2]))
    np.testing.assert_allclose(ratios, [1, 0, 0], atol=1e-12)
    ratio = class_correlations(np.array([[1.0], [2], [4], [9]]), np.array([0, 0, 1, 2]))[0]
    np.testing.assert_allclose(ratio**2, 1 - 0.5 / np.var([1, 2, 4, 9]) / 4)


def test_the_classifiers_neuron_comes_first_with_its_threshold(pipeline):
    search = GridSearchCV(pipeline, {"sentimentneuronclassifier__C": [100.0]}, cv=2)
    for estimator in (pipeline, search.fit(TEXTS, LABELS)):
        classifier = getattr(estimator, "best_estimator_", estimator)[-1]
        first, *others = data_of(neuron_browser_html(estimator, TEXTS, LABELS))["neurons"]
        assert first["name"] == f"mean_cell_{classifier.neuron_indices_[0]}"
        assert first["threshold"] == pytest.approx(classifier.threshold_)
        assert {neuron["threshold"] for neuron in others} == {None}
        assert len(others) == 11


def test_more_than_two_classes(featurizer):
    data = data_of(neuron_browser_html(featurizer, TEXTS, [3, 1, 2, 1, 2, 3]))
    assert data["score"] == "correlation ratio"
    assert data["classes"] == ["1", "2", "3"]
    assert [text["label"] for text in data["texts"]] == [2, 0, 1, 0, 1, 2]


def test_texts_as_a_column(featurizer):
    pages = [
        neuron_browser_html(featurizer, X, LABELS)
        for X in (TEXTS, pd.Series(TEXTS), pd.DataFrame({"text": TEXTS}), np.array(TEXTS, object))
    ]
    assert len(set(pages)) == 1


def test_a_step_before_the_featurizer_changes_the_texts(featurizer):
    shout = FunctionTransformer(lambda texts: [text.upper() for text in texts])
    data = data_of(neuron_browser_html(make_pipeline(shout, featurizer).fit(TEXTS), ["quiet"]))
    assert data["texts"][0]["characters"] == "QUIET"


def test_a_step_after_it_takes_the_meaning_from_the_classifiers_columns(featurizer):
    steps = make_pipeline(featurizer, StandardScaler(), SentimentNeuronClassifier(100.0))
    data = data_of(neuron_browser_html(steps.fit(TEXTS, LABELS), TEXTS, LABELS))
    assert {neuron["threshold"] for neuron in data["neurons"]} == {None}
    alone = data_of(neuron_browser_html(featurizer, TEXTS, LABELS))
    assert neurons_of(data) == neurons_of(alone)


def test_a_neuron_is_shown_once_whatever_the_poolings(featurizer):
    both = MLSTMFeaturizer(
        featurizer.language_model, pooling=("last", "max"), neurons=[7, 2], state="hidden", layer=0
    )
    data = data_of(neuron_browser_html(both.fit(), TEXTS, LABELS))
    assert sorted(neurons_of(data)) == [2, 7]
    assert "hidden state of layer 0, last and max over the bytes" in data["summary"]


def test_200_long_texts_and_100_neurons_take_less_than_5_mb():
    rng = np.random.default_rng(0)
    texts = [bytes(row).decode("latin-1") for row in rng.integers(32, 255, (200, 400), np.uint8)]
    lm = ByteMLSTMLanguageModel(128, preprocessor=None, max_steps=1, batch_size=1, device="cpu")
    featurizer = MLSTMFeaturizer(lm.fit(texts), device="cpu").fit()
    page = neuron_browser_html(featurizer, texts, np.arange(200) % 2)
    assert 3_000_000 < len(page.encode()) < 5_000_000
    assert len(data_of(page)["neurons"]) == 100


def test_nothing_but_empty_texts(featurizer):
    data = data_of(neuron_browser_html(featurizer, ["", ""], [0, 1]))
    assert data["neurons"][0]["traces"] == ["", ""]


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"X": []}, ValueError, "X must have a text at least"),
        ({"X": "one text"}, TypeError, "'X' parameter"),
        ({"y": LABELS[1:]}, ValueError, "inconsistent numbers of samples"),
        ({"n_neurons": 0}, ValueError, r"'n_neurons' .* range \[1, inf\)"),
        ({"max_characters": 0}, ValueError, "'max_characters' parameter"),
        ({"estimator": StandardScaler()}, TypeError, r"must be a fitted featurizer.* Got Standard"),
        ({"estimator": MLSTMFeaturizer()}, NotFittedError, "MLSTMFeaturizer"),
        ({"estimator": Pipeline([("f", MLSTMFeaturizer())])}, NotFittedError, "MLSTMFeaturizer"),
    ],
    ids=str,
)
def test_errors(featurizer, parameters, error, message):
    with pytest.raises(error, match=message):
        neuron_browser_html(**{"estimator": featurizer, "X": TEXTS, "y": LABELS} | parameters)


# ---- the page, in a browser


@pytest.fixture
def page(pipeline, open_page):
    return open_page(neuron_browser_html(pipeline, TEXTS, LABELS, max_characters=150))


def run(page, script, *arguments):
    return page.execute_script(f"return {script}", *arguments)


def pick(page, select, value):
    page.execute_script(
        """
        const select = document.getElementById(arguments[0]);
        select.value = arguments[1];
        select.dispatchEvent(new Event("input"));
        """,
        select,
        str(value),
    )


def colours(page):
    return run(
        page,
        "Array.from(document.querySelectorAll('#heatmap span'), (cell) => cell.style.background)",
    )


def test_it_loads_nothing_and_shows_the_first_neuron(page, pipeline):
    assert run(page, "performance.getEntriesByType('resource').length") == 0
    name = f"mean_cell_{pipeline[-1].neuron_indices_[0]}"
    assert run(page, "document.getElementById('name').textContent").startswith(name)
    assert run(page, "document.getElementById('neuron').length") == 12
    assert run(page, "document.getElementById('text').length") == len(TEXTS)
    assert run(page, "document.querySelectorAll('#histogram path').length") >= 4
    assert run(page, "document.getElementById('legend').textContent") == "bad (3)good (3)"


@pytest.mark.parametrize(
    ("threshold", "said", "n_lines"),
    [(None, "Threshold, vertical line: ", 1), (-99.0, "Threshold, beyond the axis: −99.00.", 0)],
)
def test_the_threshold_is_drawn_where_the_axis_has_it(
    pipeline, open_page, threshold, said, n_lines
):
    pipeline = copy.deepcopy(pipeline)
    if threshold is not None:
        pipeline[-1].threshold_ = threshold
    page = open_page(neuron_browser_html(pipeline, TEXTS, LABELS))
    assert said in run(page, "document.getElementById('histogram-caption').textContent")
    line = "#histogram path[stroke='currentColor'][stroke-dasharray]"
    assert run(page, f'document.querySelectorAll("{line}").length') == n_lines


def test_picking_a_neuron_changes_the_picture(page, pipeline):
    pick(page, "text", 5)
    before, histogram = colours(page), run(page, "document.getElementById('histogram').innerHTML")
    pick(page, "neuron", 3)
    assert len(colours(page)) == len(before) == 151  # and three dots
    assert colours(page) != before
    assert run(page, "document.getElementById('histogram').innerHTML") != histogram
    name = run(page, "document.getElementById('name').textContent")
    neuron = int(re.match(r"mean_cell_(\d+)", name)[1])
    titles = run(
        page, "Array.from(document.querySelectorAll('#heatmap [title]'), (cell) => cell.title)"
    )
    shown = [float(title.replace("−", "-")) for title in titles]
    (expected,) = pipeline[0].language_model_.activations([TEXTS[5]], neurons=[neuron])
    np.testing.assert_allclose(shown, expected[:150, 0], atol=0.02 * np.ptp(expected))


def test_arrow_keys_pick_neurons(page):
    page.find_element("id", "neuron").send_keys("\ue015\ue015")  # arrow down, twice
    assert run(page, "document.getElementById('neuron').value") == "2"
    third = run(page, "document.getElementById('neuron').options[2].textContent").split()[-1]
    assert run(page, "document.getElementById('name').textContent").startswith(third)


def test_tails_are_the_texts_with_the_highest_and_lowest_values(page, pipeline):
    values = pipeline[0].transform(TEXTS)[:, pipeline[-1].neuron_indices_[0]]
    order = np.argsort(values).tolist()
    tails = [
        run(
            page,
            "Array.from(document.querySelectorAll(arguments[0]), (b) => Number(b.dataset.text))",
            f"#{tail} button",
        )
        for tail in ("highest", "lowest")
    ]
    assert tails == [order[::-1][:5], order[:5]]
    page.find_elements("css selector", "#lowest button")[0].click()
    assert run(page, "document.getElementById('text').value") == str(order[0])
    assert run(page, "document.querySelectorAll('[aria-pressed=true]').length") == 1


def test_markup_in_a_text_stays_text(page):
    pick(page, "text", 0)
    assert run(page, "document.getElementById('heatmap').textContent") == ATTACK
    assert run(page, "window.hacked") is None
    assert run(page, "document.querySelectorAll('main img, main script').length") == 0


def test_every_character_has_its_cell(page):
    pick(page, "text", 3)
    cells = run(
        page, "Array.from(document.querySelectorAll('#heatmap span'), (cell) => cell.textContent)"
    )
    assert cells == list("שלום e\u0301 日本 □ ab→😀↵")
    pick(page, "text", 4)
    assert colours(page) == []


def test_the_scale_changes_the_colours(page):
    pick(page, "text", 5)
    shown = {}
    for scale in ("fixed", "symmetric", "data"):
        pick(page, "scale", scale)
        ends = [
            run(page, f"document.getElementById('scale-{end}').textContent").replace("−", "-")
            for end in ("low", "high")
        ]
        shown[scale] = (*map(float, ends), *colours(page))
    assert shown["fixed"][:2] == (-1, 1)
    assert shown["symmetric"][0] == -shown["symmetric"][1]
    assert len(set(shown.values())) == 3


def test_pointing_at_a_character_shows_its_value(page, browser):
    from selenium.webdriver import ActionChains

    pick(page, "text", 5)
    cell = page.find_elements("css selector", "#heatmap span")[2]
    ActionChains(browser).move_to_element(cell).perform()
    assert run(page, "document.getElementById('readout').textContent") == (
        f"{cell.get_attribute('title')} after “l”"
    )


@pytest.mark.parametrize("width", [320, 1280])
def test_it_fits_the_width_of_the_screen(page, width):
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        assert run(page, "document.documentElement.scrollWidth") <= width
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
