import numpy as np
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import VarianceThreshold
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skdiscovery import ByteMLSTMLanguageModel, MLSTMFeaturizer
from skdiscovery.plotting.neuron_values import neuron_values

TEXTS = ["good", "bad", "fine", "poor", "great", "awful"]
LABELS = [1, 0, 1, 0, 1, 0]


def find(estimator, text="café", *, neuron=None, state=None, layer=-1, negate=False):
    return neuron_values(estimator, text, neuron=neuron, state=state, layer=layer, negate=negate)


@pytest.fixture
def featurizer(fakes, language_model):
    return fakes.Featurizer(language_model)


@pytest.fixture
def make_pipeline(fakes, featurizer):
    def make(*, column=0, sign=1, between=(), before=(), **featurizer_parameters):
        steps = [
            *before,
            ("featurizer", featurizer.set_params(**featurizer_parameters)),
            *between,
            ("classifier", fakes.Classifier(column, sign)),
        ]
        return Pipeline(steps).fit(TEXTS, LABELS)

    return make


class TestLanguageModel:
    def test_cell_state_of_the_last_layer(self, language_model):
        text_bytes, values, description = find(language_model, neuron=4)
        assert text_bytes == "café ".encode()
        assert values.shape == (len(text_bytes),)
        np.testing.assert_allclose(values, 0.42 + 0.0001 * np.arange(6), rtol=1e-6)
        assert description == "neuron 4, cell state of the last layer"

    @pytest.mark.parametrize(
        ("layer", "base", "name"),
        [
            (0, 0.4, "layer 0"),
            (-2, 0.41, "layer 1"),
            (2, 0.42, "the last layer"),
            (-1, 0.42, "the last layer"),
        ],
    )
    def test_layer(self, language_model, layer, base, name):
        _, values, description = find(language_model, neuron=4, layer=layer)
        assert values[0] == pytest.approx(base)
        assert description.endswith(f"of {name}")

    def test_state(self, language_model):
        _, values, description = find(language_model, neuron=4, state="hidden")
        assert values[0] == pytest.approx(0.421)
        assert description == "neuron 4, hidden state of the last layer"

    def test_negate(self, language_model):
        _, values, description = find(language_model, neuron=4, negate=True)
        assert values[0] == pytest.approx(-0.42)
        assert description == "neuron 4 (sign flipped), cell state of the last layer"

    def test_bytes_are_passed_on(self, language_model):
        assert find(language_model, b"\xff", neuron=0).text_bytes == b"\xff "

    def test_neuron_is_required(self, language_model):
        with pytest.raises(ValueError, match="give neuron=, an index from 0 to 5"):
            find(language_model)

    def test_a_text_is_preprocessed_once(self):
        n_calls = 0

        def preprocess(text):
            nonlocal n_calls
            n_calls += 1
            return text.encode()

        lm = ByteMLSTMLanguageModel(4, max_steps=1, batch_size=2, seq_length=8, device="cpu")
        lm.set_params(preprocessor=preprocess).fit(TEXTS * 5)
        n_calls = 0
        assert find(lm, ["good", "bad"], neuron=3).text_bytes == [b"good", b"bad"]
        assert n_calls == 2

    def test_range_is_the_language_models_business(self, language_model):
        with pytest.raises(ValueError, match="neuron 6 is out of range"):
            find(language_model, neuron=6)

    def test_unfitted(self, fakes):
        with pytest.raises(NotFittedError, match="LanguageModel"):
            find(fakes.LanguageModel(), neuron=0)


class TestFeaturizer:
    def test_its_state_and_layer(self, featurizer):
        featurizer.set_params(state="hidden", layer=1).fit(TEXTS)
        _, values, description = find(featurizer, neuron=2)
        assert values[0] == pytest.approx(0.211)
        assert description == "neuron 2, hidden state of layer 1"

    def test_a_given_state_goes_first(self, featurizer):
        featurizer.set_params(state="hidden").fit(TEXTS)
        assert find(featurizer, neuron=2, state="cell").values[0] == pytest.approx(0.22)

    def test_a_given_layer_goes_first(self, featurizer):
        featurizer.set_params(layer=1).fit(TEXTS)
        assert find(featurizer, neuron=2, layer=0).values[0] == pytest.approx(0.2)

    def test_neuron_is_required(self, featurizer):
        with pytest.raises(ValueError, match="Featurizer does not tell: give neuron="):
            find(featurizer.fit(TEXTS))

    def test_unfitted(self, featurizer):
        with pytest.raises(NotFittedError, match="Featurizer"):
            find(featurizer, neuron=0)

    def test_values_are_computed_as_the_featurizer_computes(self):
        lm = ByteMLSTMLanguageModel(16, max_steps=2, batch_size=2, seq_length=8, device="cpu")
        lm.fit(TEXTS * 5)
        expected = lm.set_params(precision="float32").activations(["good"], neurons=[3])[0][:, 0]
        lm.set_params(precision="bfloat16", backend="torch")
        featurizer = MLSTMFeaturizer(lm, device="cpu", precision="float32").fit()
        np.testing.assert_array_equal(find(featurizer, "good", neuron=3).values, expected)
        assert (lm.precision, lm.backend) == ("bfloat16", "torch")


class TestPipeline:
    @pytest.mark.parametrize(("column", "neuron"), [(0, 5), (1, 3), (4, 3), (5, 1)])
    def test_a_column_leads_to_its_neuron(self, make_pipeline, column, neuron):
        found = find(make_pipeline(column=column))
        assert found.values[0] == pytest.approx(0.1 * neuron + 0.02)
        assert found.description.startswith(f"neuron {neuron}, ")

    @pytest.mark.parametrize(
        ("sign", "negate", "factor"), [(1, False, 1), (-1, False, -1), (1, True, -1), (-1, True, 1)]
    )
    def test_sign_of_the_classifier_then_negate(self, make_pipeline, sign, negate, factor):
        found = find(make_pipeline(sign=sign), negate=negate)
        assert found.values[0] == pytest.approx(factor * 0.52)
        assert ("(sign flipped)" in found.description) == (factor < 0)

    def test_a_given_neuron_keeps_its_sign(self, make_pipeline):
        assert find(make_pipeline(sign=-1), neuron=2).values[0] == pytest.approx(0.22)

    def test_state_and_layer_of_the_featurizer(self, make_pipeline):
        found = find(make_pipeline(state="hidden", layer=0))
        assert found.values[0] == pytest.approx(0.501)

    def test_steps_that_keep_the_columns_may_stand_between(self, make_pipeline):
        found = find(make_pipeline(between=[("scaler", StandardScaler())], column=2))
        assert found.description.startswith("neuron 1, ")

    def test_a_neuron_is_found_where_a_step_leaves_columns_out(self, make_pipeline):
        chosen = ColumnTransformer(
            [("chosen", "passthrough", [4, 2])], verbose_feature_names_out=False
        )
        found = find(make_pipeline(between=[("chosen", chosen)], column=1))
        assert found.description.startswith("neuron 1, ")

    @pytest.mark.parametrize(
        "step",
        [
            FunctionTransformer(lambda X: X[:, ::-1]),  # does not tell its names
            PCA(n_components=6),  # as many columns, and none of a neuron
        ],
    )
    def test_new_features_name_no_neuron(self, make_pipeline, step):
        pipeline = make_pipeline(between=[("step", step)])
        with pytest.raises(ValueError, match=r"names no neuron\. Give neuron="):
            find(pipeline)
        assert find(pipeline, neuron=2).values[0] == pytest.approx(0.22)

    def test_text_is_what_the_featurizer_receives(self, make_pipeline):
        shout = FunctionTransformer(lambda X: [text.upper() for text in X])
        assert find(make_pipeline(before=[("shout", shout)]), "ab").text_bytes == b"AB "

    def test_another_classifier_needs_neuron(self, featurizer):
        pipeline = Pipeline([("f", featurizer), ("c", LogisticRegression())]).fit(TEXTS, LABELS)
        with pytest.raises(TypeError, match="ends with LogisticRegression instead; give neuron="):
            find(pipeline)
        assert find(pipeline, neuron=2).values[0] == pytest.approx(0.22)

    def test_without_a_featurizer(self):
        pipeline = Pipeline([("scaler", StandardScaler()), ("c", LogisticRegression())])
        pipeline.fit(np.eye(6), LABELS)
        with pytest.raises(TypeError, match="Pipeline of StandardScaler, LogisticRegression"):
            find(pipeline)

    def test_unfitted(self, make_pipeline):
        with pytest.raises(NotFittedError):
            find(clone(make_pipeline()))


class TestSearch:
    def test_its_best_estimator(self, make_pipeline):
        search = GridSearchCV(make_pipeline(sign=-1), {"classifier__column": [1]}, cv=2)
        found = find(search.fit(TEXTS, LABELS))
        assert found.values[0] == pytest.approx(-0.32)

    @pytest.mark.parametrize("kind", [GridSearchCV, RandomizedSearchCV])
    def test_unfitted(self, make_pipeline, kind):
        with pytest.raises(NotFittedError, match="has no best_estimator_"):
            find(kind(make_pipeline(), {"classifier__column": [1]}))

    def test_not_refitted(self, make_pipeline):
        search = GridSearchCV(make_pipeline(), {"classifier__column": [1]}, cv=2, refit=False)
        with pytest.raises(NotFittedError, match="refit=True"):
            find(search.fit(TEXTS, LABELS))


@pytest.mark.parametrize("other", [LogisticRegression(), VarianceThreshold(), None, "default"])
def test_anything_else_is_refused(other):
    with pytest.raises(TypeError, match=r"must be a fitted language model.*Got"):
        find(other, neuron=0)
