"""A pytest plugin (``-p shap_in_place``) for shap's own tests: ours is in the place of shap's DeepExplainer.

Some things are other than shap's tests mean them. shap's engines cannot be made, so that none of the tests passes by
them. The houses in California and the film reviews, which the tests would download, are random numbers of the same scales
and shapes. And the test of a recurrent Keras model, which skips itself where TensorFlow is newer than shap's engine for it,
runs: it sees an old version, its session of TensorFlow 1 evaluates Keras 3, and its model is built before it is explained.
"""

import keras
import numpy as np
import pytest
import sklearn.datasets
import tensorflow as tf
from shap.explainers._deep import deep_pytorch, deep_tf

import deepshap

# Rows, and typical values of: income, age of the house, rooms, bedrooms, people, people per household, latitude, longitude.
HOUSES = 20640
TYPICAL = (3.9, 29.0, 5.4, 1.1, 1425.0, 3.1, 36.0, 120.0)
REVIEWS, REVIEW = 200, 100  # as many, and cut or padded to as many words
RECURRENT = "test_tf_keras_imdb_lstm"


def random_houses(*, return_X_y):
    """Random houses (20640, 8) and prices, from the same seed each time."""
    random = np.random.default_rng(0)
    houses = random.lognormal(sigma=0.5, size=(HOUSES, len(TYPICAL))) * TYPICAL
    assert return_X_y
    return houses, random.lognormal(sigma=0.5, size=HOUSES)


def random_reviews(*, num_words):
    """Random token ids of reviews of 20 to 300 words, and their labels; for training and for testing."""
    random = np.random.default_rng(0)
    lengths = random.integers(20, 300, 2 * REVIEWS)
    reviews = np.array([random.integers(1, num_words, length).tolist() for length in lengths], dtype=object)
    labels = random.integers(0, 2, 2 * REVIEWS)
    return (reviews[:REVIEWS], labels[:REVIEWS]), (reviews[REVIEWS:], labels[REVIEWS:])


class Session:
    """Evaluates symbolic tensors of Keras 3 as a session of TensorFlow 1 does its own."""

    def run(self, output, feed_dict=None):
        if output is None:
            return None
        ((given, values),) = feed_dict.items()
        return keras.Model(given, output).predict(values, verbose=0)


def refuse(*_):
    raise AssertionError("shap's own engine was used")


def pytest_configure():
    deepshap.patch_shap()
    deep_pytorch.PyTorchDeep.__init__ = refuse
    deep_tf.TFDeep.__init__ = refuse
    sklearn.datasets.fetch_california_housing = random_houses


@pytest.fixture(autouse=True)
def _as_in_old_tensorflow(request, monkeypatch):
    if request.node.name != RECURRENT:
        return
    monkeypatch.setattr(tf, "__version__", "2.4.4")
    monkeypatch.setattr(tf.keras.datasets.imdb, "load_data", random_reviews)
    monkeypatch.setattr(tf.compat.v1, "disable_eager_execution", lambda: None)
    monkeypatch.setattr(tf.compat.v1, "global_variables_initializer", lambda: None)
    monkeypatch.setattr(tf.compat.v1.keras.backend, "get_session", Session, raising=False)
    monkeypatch.setattr(keras.Sequential, "compile", lambda model, **_: model.build((None, REVIEW)))
