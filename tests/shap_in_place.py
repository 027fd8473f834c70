"""A pytest plugin (``-p shap_in_place``) for shap's own tests: ours is in the place of shap's DeepExplainer.

Two things are other than shap's tests mean them. shap's PyTorch engine cannot be made, so that none of them passes by
it. And the houses in California, which scikit-learn would download, are random numbers of the same scales.
"""

import numpy as np
import sklearn.datasets
from shap.explainers._deep import deep_pytorch

import deepshap

# Rows, and typical values of: income, age of the house, rooms, bedrooms, people, people per household, latitude, longitude.
HOUSES = 20640
TYPICAL = (3.9, 29.0, 5.4, 1.1, 1425.0, 3.1, 36.0, 120.0)


def random_houses(*, return_X_y):
    """Random houses (20640, 8) and prices, from the same seed each time."""
    random = np.random.default_rng(0)
    houses = random.lognormal(sigma=0.5, size=(HOUSES, len(TYPICAL))) * TYPICAL
    assert return_X_y
    return houses, random.lognormal(sigma=0.5, size=HOUSES)


def refuse(*_):
    raise AssertionError("shap's own engine was used")


def pytest_configure():
    deepshap.patch_shap()
    deep_pytorch.PyTorchDeep.__init__ = refuse
    sklearn.datasets.fetch_california_housing = random_houses
