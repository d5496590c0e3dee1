"""Stand-ins with the attributes of the estimators, and values that tell where they come from."""

import shutil
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.frozen import FrozenEstimator

from skdiscovery import TextCorpus


class LanguageModel(BaseEstimator):
    """Preprocesses to ``"<text> "``; has 6 neurons in each of 3 layers."""

    def __init__(self, device="auto", precision="auto", backend="auto"):
        self.device = device
        self.precision = precision
        self.backend = backend

    def fit(self, X=None, y=None):
        self.config_ = {"hidden_size": 6, "n_layers": 3}
        return self

    def preprocess(self, X):
        if isinstance(X, TextCorpus):
            return list(X)
        return [(text if isinstance(text, bytes) else text.encode()) + b" " for text in X]

    def activations(self, X, *, neurons=None, state="cell", layer=-1):
        if not -6 <= neurons[0] < 6:
            raise ValueError(f"neuron {neurons[0]} is out of range")
        base = 0.1 * neurons[0] + 0.01 * (layer % 3) + (0.001 if state == "hidden" else 0)
        return [
            np.float32(base + 0.0001 * np.arange(len(document)))[:, None]
            for document in self.preprocess(X)
        ]


class Featurizer(TransformerMixin, BaseEstimator):
    """Features are the mean and the last of the neurons 5, 3, 1."""

    def __init__(self, language_model=None, state="cell", layer=-1):
        self.language_model = language_model
        self.state = state
        self.layer = layer
        self.device = self.precision = self.backend = "auto"

    def fit(self, X, y=None):
        self.language_model_ = self.language_model.estimator
        self.feature_neurons_ = np.array([5, 3, 1, 5, 3, 1])
        return self

    def transform(self, X):
        return np.array([[len(text)] * 6 for text in X], dtype=np.float32)

    def get_feature_names_out(self, input_features=None):
        return np.array([f"{p}_{neuron}" for p in ("mean", "last") for neuron in (5, 3, 1)], object)


class Classifier(ClassifierMixin, BaseEstimator):
    """Relies on one column, with a sign."""

    def __init__(self, column=0, sign=1):
        self.column = column
        self.sign = sign

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.n_features_in_ = X.shape[1]
        self.neuron_indices_ = np.array([self.column])
        self.coef_ = np.zeros((1, X.shape[1]))
        self.coef_[0, self.column] = self.sign
        self.neuron_sign_ = self.sign
        return self

    def predict(self, X):
        return np.repeat(self.classes_[:1], len(X))


@pytest.fixture
def fakes():
    return SimpleNamespace(
        LanguageModel=LanguageModel, Featurizer=Featurizer, Classifier=Classifier
    )


@pytest.fixture
def language_model():
    return FrozenEstimator(LanguageModel().fit())


@pytest.fixture(autouse=True)
def no_figures():
    """Begin without the figures that doctests leave open, and leave none."""
    plt.close("all")
    yield
    plt.close("all")


CHROMIUM_OPTIONS = """
--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --disable-dev-shm-usage
"""


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Headless Chromium, if there is one; it is never downloaded."""
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for option in CHROMIUM_OPTIONS.split():
        options.add_argument(option)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield browser
    browser.quit()


@pytest.fixture
def open_page(browser, tmp_path):
    """Return a function that opens a page from a file; in the end there must be no complaint."""

    def open_page(html):
        path = tmp_path / "page.html"
        path.write_text(html, encoding="utf-8")
        browser.get(path.as_uri())
        return browser

    yield open_page
    assert browser.get_log("browser") == []
