"""Standard errors, replicates, method, players and converged: what they mean, and that they travel."""

import numpy as np
import pytest
import shap

import deepshap

ROWS, STEPS, FEATURES, OUTPUTS, REPLICATES = 3, 4, 2, 2, 8
SHAPE = (ROWS, STEPS, FEATURES, OUTPUTS)


def plain():
    random = np.random.default_rng(0)
    made = deepshap.Explanation(
        random.normal(size=SHAPE), random.normal(size=(ROWS, OUTPUTS)), random.normal(size=SHAPE[:3])
    )
    made.feature_names, made.output_names = ["wind", "rain"], ["no", "yes"]
    return made


@pytest.fixture
def explanation():
    """With replicates whose cells have much to do with each other, and errors that are larger than their spread."""
    random = np.random.default_rng(1)
    made = plain()
    common = random.normal(size=(REPLICATES, ROWS, 1, 1, OUTPUTS))
    made.replicates = made.values + common * np.array([[1.0], [-1.0], [1.0], [-1.0]])[None, None, ..., None]
    made.replicates = made.replicates + 0.1 * random.normal(size=(REPLICATES, *SHAPE))
    made.standard_errors = np.hypot(spread(made.replicates), 0.25)
    made.method, made.players, made.converged = "Paths of 4 segments.", None, [True, False, True]
    return made


def spread(replicates):
    """Written out: the standard error of a mean."""
    n = len(replicates)
    mean = sum(replicates) / n
    return np.sqrt(sum((one - mean) ** 2 for one in replicates) / (n - 1) / n)


# ---------------------------------------------------------------------- sums
def test_replicates_set_the_errors():
    made = plain()
    assert made.standard_errors is made.replicates is None
    estimates = made.values + np.random.default_rng(2).normal(size=(5, *SHAPE))
    made.replicates = estimates
    np.testing.assert_array_equal(made.replicates, estimates)
    np.testing.assert_allclose(made.standard_errors, spread(estimates), rtol=1e-13)


@pytest.mark.parametrize(("method", "axis"), [("over_time", 1), ("over_features", 2)])
def test_errors_of_sums_are_the_spread_of_the_replicates_sums(explanation, method, axis):
    """And of what the errors hold beyond it, biases of signs that nobody knows, the squares add up."""
    found = getattr(explanation, method)()
    sums = explanation.replicates.sum(axis + 1)
    np.testing.assert_array_equal(found.replicates, sums)
    expected = np.sqrt(spread(sums) ** 2 + 0.25**2 * SHAPE[axis])
    np.testing.assert_allclose(found.standard_errors, expected, rtol=1e-12)
    one = getattr(explanation[1].output("yes"), method)()
    np.testing.assert_allclose(one.standard_errors, expected[1, ..., 1], rtol=1e-12)


def test_errors_that_cancel_are_known_to():
    """Steps that go up and down together: their sum is exact, and only replicates can tell."""
    made = plain()
    wave = (
        np.random.default_rng(3).normal(size=(6, ROWS, 1, FEATURES, OUTPUTS)) * np.array([1, -1, 2, -2])[:, None, None]
    )
    made.replicates = made.values + wave
    assert made.standard_errors.min() > 0.01
    assert made.over_time().standard_errors.max() < 1e-14
    made.replicates = None
    assert made.replicates is None
    np.testing.assert_allclose(made.over_time().standard_errors, made.standard_errors.sum(1), rtol=1e-14)  # a bound


def test_the_errors_are_those_of_repeated_estimates():
    """10 000 explanations with correlated noise: the mean square of the reported error is the variance of the sums."""
    random = np.random.default_rng(4)
    mixing = random.normal(size=(STEPS, STEPS))
    noise = random.normal(size=(6, 10_000, STEPS)) @ mixing
    made = deepshap.Explanation(noise.mean(0)[..., None], np.zeros(10_000))
    made.replicates = noise[..., None]
    sums = made.over_time()
    np.testing.assert_allclose((sums.standard_errors**2).mean(), (sums.values**2).mean(), rtol=0.05)
    bound = deepshap.Explanation(made.values, made.base_values)
    bound.standard_errors = made.standard_errors
    assert (bound.over_time().standard_errors >= sums.standard_errors * (1 - 1e-12)).all()


def test_without_errors_sums_have_none():
    assert plain().over_time().standard_errors is None


# ---------------------------------------------------------------------- they travel
def test_slices_outputs_and_copies(explanation):
    one = explanation[[2, 0], 1:, "rain"].output("yes")
    np.testing.assert_array_equal(one.standard_errors, explanation.standard_errors[[2, 0], 1:, 1, 1])
    np.testing.assert_array_equal(one.replicates, explanation.replicates[:, [2, 0]][:, :, 1:, 1, 1])
    assert one.converged.tolist() == [True, True]
    assert one.method == "Paths of 4 segments."
    assert explanation[1].converged == np.False_


def test_what_other_values_do_not_keep(explanation):
    for other in (explanation.abs, explanation * 2, explanation.mean(0), explanation.over_time().sum(0)):
        assert other.standard_errors is other.replicates is None
    assert explanation.mean(0).converged is None


def test_side_by_side(explanation):
    one, two = explanation[:, :, [0]], explanation[:, :, [1, 0]]
    both = one.hstack(two)
    np.testing.assert_array_equal(both.standard_errors, explanation.standard_errors[:, :, [0, 1, 0]])
    np.testing.assert_array_equal(both.replicates, explanation.replicates[:, :, :, [0, 1, 0]])
    two.replicates = two.replicates[:3]  # estimates that were not made together cannot be summed together
    assert one.hstack(two).replicates is None
    np.testing.assert_array_equal(one.hstack(two).standard_errors, both.standard_errors)
    one.standard_errors = None
    assert one.hstack(two).standard_errors is None


def test_tables(explanation, tmp_path):
    frame = explanation.to_dataframe()
    np.testing.assert_array_equal(frame["standard_error"], explanation.standard_errors.ravel())
    assert "standard_error" not in plain().to_dataframe()
    assert not [name for name in frame if name.startswith("replicate")]
    dataset = explanation.to_xarray()
    assert dataset["standard_error"].dims == dataset["attribution"].dims
    assert dataset["replicates"].dims == ("replicate", "row", "step", "feature", "output")
    explanation.save(tmp_path / "why.parquet")
    for again in (deepshap.load(tmp_path / "why.parquet"), deepshap.Explanation.from_xarray(dataset)):
        np.testing.assert_array_equal(again.standard_errors, explanation.standard_errors)
        np.testing.assert_array_equal(again.replicates, explanation.replicates)
        np.testing.assert_array_equal(again.converged, explanation.converged)
        assert (again.method, again.players) == ("Paths of 4 segments.", None)
        assert again.converged.dtype == bool


def test_padding_has_no_lines_and_comes_back(explanation, tmp_path):
    there = np.arange(STEPS) < np.array([4, 2, 1])[:, None]
    made = plain()
    made.values = made.values * there[..., None, None]
    made.replicates = made.values + there[..., None, None] * np.random.default_rng(5).normal(size=(3, *SHAPE))
    made.lengths = [4, 2, 1]
    assert len(made.to_dataframe()) == 7 * FEATURES * OUTPUTS
    made.save(tmp_path / "why.parquet")
    again = deepshap.load(tmp_path / "why.parquet")
    np.testing.assert_array_equal(again.replicates, made.replicates)
    np.testing.assert_array_equal(again.standard_errors, made.standard_errors)


def test_windows_are_named(explanation, tmp_path):
    """Values of windows, (rows, players, outputs): the data are the mean of a player's cells."""
    made = deepshap.Explanation(np.ones((ROWS, 3, OUTPUTS)), np.zeros((ROWS, OUTPUTS)), np.zeros((ROWS, 3)))
    made.feature_names, made.players = ["steps 0-4", "steps 5-9", "steps 10-12"], "window of 5 steps"
    assert made[:2].output(0).players == "window of 5 steps"
    made.save(tmp_path / "why.parquet")
    again = deepshap.load(tmp_path / "why.parquet")
    assert (again.players, again.feature_names) == (made.players, made.feature_names)
    assert again.to_dataframe()["window"].tolist()[::OUTPUTS] == made.feature_names * ROWS
    assert shap.plots.bar(made.output(0), show=False) is not None


def test_several_inputs(explanation):
    joint = deepshap.JointExplanation([explanation, explanation.over_time()])
    assert joint.method == "Paths of 4 segments."
    assert [errors.shape for errors in joint.standard_errors] == [SHAPE, (ROWS, FEATURES, OUTPUTS)]
    joint.converged = [True, True, False]
    assert joint[1].converged.tolist() == [True, True, False]
    assert joint.output("yes").standard_errors[0].shape == SHAPE[:3]
    assert "standard_error" in joint.to_dataframe()


# ---------------------------------------------------------------------- what is no error
@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("standard_errors", np.ones(SHAPE[:3]), "standard_errors has shape"),
        ("standard_errors", -np.ones(SHAPE), "not negative"),
        ("standard_errors", np.full(SHAPE, np.nan), "finite"),
        ("replicates", np.ones((1, *SHAPE)), "one alone"),
        ("replicates", np.ones(SHAPE), "replicate_0 has shape"),
        ("converged", [1, 0, 1], "True or False"),
        ("converged", [True], "converged has shape"),
    ],
)
def test_what_cannot_be_is_an_error(field, value, message):
    with pytest.raises(deepshap.InputError, match=message):
        setattr(plain(), field, value)
