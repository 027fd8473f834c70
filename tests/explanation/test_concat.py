"""Explanation.concat: rows that were apart are together again, with all that is known of them."""

import copy
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slicer import Obj

import deepshap

ROWS, STEPS, FEATURES, OUTPUTS = 6, 5, 3, 2
FACTS = ("background", "model", "method", "players", "compute_time", "output_dims")


def explanation(rows=ROWS, seed=0, labels="shared", ranked=False, padded=True):
    """All fields are known."""
    random = np.random.default_rng(seed)
    shape = (rows, STEPS, FEATURES, OUTPUTS)
    lengths = random.integers(1, STEPS + 1, rows) if padded else np.full(rows, STEPS)
    there = (np.arange(STEPS) < lengths[:, None])[..., None, None]
    base = random.normal(size=(rows, OUTPUTS))
    made = deepshap.Explanation(
        there * random.normal(size=shape), base, random.normal(size=shape[:3]), compute_time=2.0
    )
    made.feature_names, made.row_ids = ["wind", "rain", "sun"], [f"row {seed} {i}" for i in range(rows)]
    made.output_names = (
        np.array([["no", "yes"], ["yes", "no"]])[random.integers(0, 2, rows)] if ranked else ["no", "yes"]
    )
    days = np.arange("2024-03-01", "2024-03-06", dtype="M8[D]")
    made.step_labels = days if labels == "shared" else days + random.integers(0, 300, (rows, 1))
    made.lengths, made.targets, made.converged = lengths, random.integers(0, 2, rows), random.random(rows) < 0.5
    made.display_data = random.normal(size=shape[:3]).astype(str)
    made.replicates = made.values + there * random.normal(size=(4, *shape))
    made.background, made.model = {"rows": 9, "description": "drawn"}, "Net"
    made.method = "Deep SHAP along 4 paths."
    made._track(outputs=Obj(base + made.values.sum((1, 2)), [0, 3]), gap=Obj(random.random(base.shape), [0, 3]))
    return made


def assert_equal(one, other, but=()):
    assert type(one) is type(other)
    mine, others = (dict(each._s._iter_tracked(include_aliases=True)) for each in (one, other))
    assert set(mine) == set(others)
    for name, array in mine.items():
        assert list(array.dim) == list(others[name].dim), name
        np.testing.assert_array_equal(np.asarray(array.o), np.asarray(others[name].o), err_msg=name)
    for name in FACTS:
        assert name in but or getattr(one, name) == getattr(other, name), name


@settings(max_examples=60, deadline=None)
@given(
    cuts=st.lists(st.integers(0, ROWS), max_size=4),
    labels=st.sampled_from(["shared", "of rows"]),
    ranked=st.booleans(),
    form=st.sampled_from(["cells", "over_time", "over_features", "one output"]),
)
def test_slices_are_the_whole_again(cuts, labels, ranked, form):
    whole = explanation(labels=labels, ranked=ranked)
    if form == "one output":
        whole = whole.output(1)
    elif form != "cells":
        whole = getattr(whole, form)()
    edges = [0, *sorted(cuts), ROWS]  # some parts have no rows
    parts = [whole[start:stop] for start, stop in pairwise(edges)]
    again = deepshap.Explanation.concat(parts)
    assert_equal(again, whole, but=("compute_time",))
    assert again.compute_time == pytest.approx(2.0)
    np.testing.assert_array_equal(again.lengths, whole.lengths)


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(ROWS)))
def test_rows_come_in_the_order_that_they_are_given(order):
    whole = explanation(labels="of rows")
    again = deepshap.Explanation.concat([whole[[row]] for row in order])
    assert_equal(again, whole[list(order)], but=("compute_time",))


@pytest.mark.parametrize("named", [False, True])
def test_several_inputs(named):
    one, two = explanation(), explanation(seed=1).over_time()
    for part in (one, two):
        part.row_ids = range(ROWS)

    def joint(rows):
        parts = [one[rows], two[rows]]
        return deepshap.JointExplanation(dict(zip("ab", parts, strict=True)) if named else parts)

    again = deepshap.JointExplanation.concat([joint(slice(0, 2)), joint(slice(2, 6))])
    assert isinstance(again, deepshap.JointExplanation)
    assert isinstance(again.parts, dict if named else list)
    for (_, part), whole in zip(again.items(), (one, two), strict=True):
        assert_equal(part, whole, but=("compute_time",))
    assert again.compute_time == pytest.approx(2.0)
    np.testing.assert_array_equal(again.row_ids, range(ROWS))
    with pytest.raises(deepshap.InputError, match="inputs differ"):
        deepshap.JointExplanation.concat([again, deepshap.JointExplanation([one])])
    with pytest.raises(deepshap.InputError, match="of one kind"):
        deepshap.Explanation.concat([again, one])


def test_labels_of_steps_may_differ():
    one, two = explanation(), explanation(seed=1)
    two.step_labels = np.arange("2025-01-01", "2025-01-06", dtype="M8[D]")
    both = deepshap.Explanation.concat([one, two])
    expected = np.stack([one.step_labels] * ROWS + [two.step_labels] * ROWS)
    np.testing.assert_array_equal(both.step_labels, expected)
    three = explanation(seed=2, labels="of rows")
    np.testing.assert_array_equal(deepshap.Explanation.concat([one, three]).step_labels[ROWS:], three.step_labels)
    step = deepshap.Explanation.concat([one[:, 2], two[:, 2]])
    np.testing.assert_array_equal(step.step_labels, expected[:, 2])


@pytest.mark.parametrize("labels", ["shared", "of rows"])
def test_shorter_sequences_are_padded(labels):
    """Rows that were padded to the longest of their own part are padded to the longest of all."""
    whole = explanation(labels=labels)[np.argsort(explanation().lengths)]
    cut = int(whole.lengths[:4].max())
    assert cut < STEPS == whole.lengths.max()
    short, long = whole[:4][:, :cut], whole[4:]
    again = deepshap.Explanation.concat([short, long])
    np.testing.assert_array_equal(again.lengths, whole.lengths)
    for name in ("values", "standard_errors", "row_ids", "outputs"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))
    there = np.arange(STEPS) < whole.lengths[:, None]
    np.testing.assert_array_equal(again.data[there], whole.data[there])
    np.testing.assert_array_equal(again.display_data[there], whole.display_data[there])
    labels_of = np.broadcast_to(again.step_labels, there.shape)
    np.testing.assert_array_equal(labels_of[there], np.broadcast_to(whole.step_labels, there.shape)[there])
    assert again.step_labels.ndim == (1 if labels == "shared" else 2)


@pytest.mark.parametrize("kind", ["M8[D]", "m8[h]"])
def test_padding_has_no_time(kind):
    one, two = explanation(padded=False), explanation(seed=1, padded=False)
    one.step_labels, two.step_labels = np.arange(STEPS).astype(kind), np.arange(1, STEPS + 1).astype(kind)
    labels = deepshap.Explanation.concat([one[:, :3], two]).step_labels
    assert labels.dtype == kind
    assert np.isnat(labels[:ROWS, 3:]).all()
    np.testing.assert_array_equal(labels[:ROWS, :3], np.tile(one.step_labels[:3], (ROWS, 1)))
    np.testing.assert_array_equal(labels[ROWS:], np.tile(two.step_labels, (ROWS, 1)))


def test_methods_are_named_one_after_the_other():
    one, two, three = (explanation(seed=seed) for seed in range(3))
    one.method, two.method, three.method = "A", "B", None
    both = deepshap.Explanation.concat([one, two, one, three])
    assert both.method == "A; B"
    assert deepshap.Explanation.concat([both, two, both[:1]]).method == "A; B"


def test_fewer_replicates_stand_beside_more():
    """As in files of rows that took more and less effort: each row's errors of sums stay as they are."""
    one, two = explanation(padded=False), explanation(seed=1, padded=False)
    two.replicates = two.replicates[:3]
    both = deepshap.Explanation.concat([two, one])
    assert both.replicates.shape == (4, *both.values.shape)
    for part, rows in ((two, slice(0, ROWS)), (one, slice(ROWS, None))):
        for summed in ("over_time", "over_features"):
            errors = getattr(both, summed)().standard_errors[rows]
            np.testing.assert_allclose(errors, getattr(part, summed)().standard_errors, rtol=1e-12)
    assert two.replicates.shape[0] == 3


def changed(**fields):
    other = explanation(seed=1)
    for name, value in fields.items():
        setattr(other, name, value)
    return other


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: changed(feature_names=["wind", "rain", "fog"]), "feature_names must be the same in all"),
        (lambda: changed(output_names=["no", "maybe"]), "output_names must be the same"),
        (lambda: changed(model="Other"), "model must be the same in all, not Net and Other"),
        (lambda: changed(background={"rows": 8}), "background must be the same"),
        (lambda: changed(players="steps"), "players must be the same"),
        (lambda: changed(row_ids=None), "row_ids is known of some"),
        (lambda: changed(standard_errors=None), "standard_errors is known of some"),
        (lambda: changed(replicates=None), "replicate_0 is known of some"),
        (lambda: explanation(seed=1)[:, 1:], r"one shape, not values of shape \(6, 5, 3, 2\) and \(6, 4, 3, 2\)"),
        (lambda: explanation(seed=1)[:, [1, 0, 2, 3, 4]], "steps must be the same"),
        (lambda: explanation(seed=1)[0], r"take explanation\[\[0\]\]"),
        (lambda: explanation(seed=1, ranked=True), "axes of output_names"),
        (lambda: explanation(seed=1).output(0), "one shape"),
        (lambda: np.ones(3), "of one kind"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_an_error(other, message):
    with pytest.raises(deepshap.InputError, match=message):
        deepshap.Explanation.concat([explanation(padded=False), other()])


def test_nothing_is_an_error_and_one_is_a_copy():
    with pytest.raises(deepshap.InputError, match="at least one"):
        deepshap.Explanation.concat([])
    whole = explanation()
    kept = copy.copy(whole)
    again = deepshap.Explanation.concat([whole])
    again.row_ids = range(ROWS)
    assert_equal(whole, kept)


def test_files_are_put_together(tmp_path):
    whole = explanation(labels="of rows")
    names = [tmp_path / f"part-{i}.parquet" for i in range(3)]
    for i, name in enumerate(names):
        whole[2 * i : 2 * i + 2].save(name)
    for source in (names, tuple(map(str, names)), tmp_path / "part-*.parquet", str(tmp_path / "*.parquet")):
        assert_equal(deepshap.load(source), whole, but=("compute_time",))
    assert_equal(deepshap.load(names[:1]), whole[:2])
    with pytest.raises(deepshap.InputError, match="no files"):
        deepshap.load(tmp_path / "none-*.parquet")
    with pytest.raises(deepshap.InputError, match="at least one"):
        deepshap.load([])


@pytest.mark.parametrize("rows", [slice(0, 0), slice(9, None), [], np.zeros(ROWS, bool)])
def test_no_rows_keep_their_shape(rows):
    whole = explanation(labels="of rows")
    for none in (whole[rows], whole[rows][:0]):
        assert none.shape == (0, STEPS, FEATURES, OUTPUTS)
        assert none.data.shape == none.display_data.shape == (0, STEPS, FEATURES)
        assert none.standard_errors.shape == none.shape
        assert len(none.row_ids) == len(none.lengths) == 0
        assert none.output("yes").over_time().shape == none[:, 0, :, 1].shape == (0, FEATURES)
        assert none.output("yes").base_values.shape == (0,)
        assert_equal(deepshap.Explanation.concat([none, whole]), whole, but=("compute_time",))
