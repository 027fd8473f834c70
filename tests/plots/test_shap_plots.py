"""shap's plots show the numbers of our explanations, and the names on the axes they belong to."""

import re

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import shap
import torch
from torch import nn

import deepshap

matplotlib.use("Agg")
FEATURES, CLASSES = ["wind", "rain", "sun"], ["no", "yes"]
LABELS = {"wind", "rain", "sun"}


class Forecast(nn.Module):
    """An LSTM over (rows, steps, features) that scores two classes."""

    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(3, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, x):
        return 10 * self.head(self.lstm(x)[0][:, -1])


class Images(nn.Module):
    """A convolution over images with their channels last, (rows, height, width, channels)."""

    def __init__(self):
        super().__init__()
        self.convolution, self.head = nn.Conv2d(1, 3, 3, padding=1), nn.Linear(3 * 4 * 5, 2)

    def forward(self, x):
        return self.head(self.convolution(x.permute(0, 3, 1, 2)).relu().flatten(1))


class Sentences(nn.Module):
    """An LSTM over token ids (rows, steps)."""

    def __init__(self):
        super().__init__()
        self.embedding, self.lstm, self.head = nn.Embedding(20, 4), nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 2)

    def forward(self, x):
        return 10 * self.head(self.lstm(self.embedding(x))[0][:, -1])


@pytest.fixture(autouse=True)
def _no_figure_left():
    plt.close("all")
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def explanation():
    torch.manual_seed(1)
    explainer = deepshap.DeepExplainer(
        Forecast(), torch.randn(20, 5, 3), progress=False, feature_names=FEATURES, output_names=CLASSES
    )
    return explainer(torch.randn(8, 5, 3))


@pytest.fixture(scope="module")
def images():
    torch.manual_seed(2)
    return deepshap.DeepExplainer(Images(), torch.rand(5, 4, 5, 1), progress=False)(torch.rand(2, 4, 5, 1))


@pytest.fixture
def rows(explanation):
    """(8, 3): what each feature contributed to "yes"."""
    return explanation.over_time().output("yes")


@pytest.fixture
def steps(explanation):
    """(8, 5): what each step contributed to "yes"."""
    return explanation.over_features().output("yes")


def numbers(texts):
    return [float(t.get_text().replace("\N{MINUS SIGN}", "-")) for t in texts]


def names(labels):
    """Feature names in tick labels, top to bottom, without the value before and shap's second set of labels."""
    found = [label.get_text().split(" = ")[-1].strip() for label in labels]
    return list(dict.fromkeys(found))


def offsets(ax):
    """Points of a scatter plot, an array (points, 2) for every group of points."""
    return [np.asarray(c.get_offsets()) for c in ax.collections if len(c.get_offsets())]


@pytest.mark.parametrize("kind", ["rows", "steps"])
def test_waterfall(kind, request):
    one = request.getfixturevalue(kind)[2]
    shap.plots.waterfall(one, show=False)
    ax = plt.gcf().axes[0]
    by_size = np.argsort(-np.abs(one.values))
    drawn = sorted(zip(numbers(ax.texts), (t.get_position()[1] for t in ax.texts), strict=True), key=lambda t: -t[1])
    np.testing.assert_allclose([value for value, _ in drawn], one.values[by_size], atol=0.0051)
    labels = [label.get_text() for label in ax.get_yticklabels()][: len(one.values)][::-1]
    assert [label.split(" = ")[-1] for label in labels] == [one.feature_names[i] for i in by_size]
    if kind == "rows":
        data = [float(label.split(" = ")[0].replace("\N{MINUS SIGN}", "-")) for label in labels]
        np.testing.assert_allclose(data, one.data[by_size], atol=0.00051)
    ticks = [float(t.replace("\N{MINUS SIGN}", "-")) for t in figure_numbers(plt.gcf())]
    np.testing.assert_allclose(ticks, [one.base_values, one.base_values + one.values.sum()], atol=0.00051)


def figure_numbers(figure):
    """What a waterfall writes as E[f(X)] and f(x)."""
    labels = [label.get_text() for ax in figure.axes[1:] for label in ax.get_xticklabels()]
    return [match.group(1) for label in labels if (match := re.search(r"\$ = (.*)\$", label))]


def test_waterfall_of_explanations_side_by_side(explanation):
    both = explanation.over_time().hstack(explanation.over_features()).output(0)[0]
    shap.plots.waterfall(both, show=False)
    drawn = numbers(plt.gcf().axes[0].texts)
    np.testing.assert_allclose(np.sort(drawn), np.sort(both.values), atol=0.0051)


@pytest.mark.parametrize("kind", ["rows", "steps"])
def test_bar_of_one_row(kind, request):
    one = request.getfixturevalue(kind)[0]
    ax = shap.plots.bar(one, show=False)
    by_size = np.argsort(-np.abs(one.values))
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], one.values[by_size])
    np.testing.assert_allclose(numbers(ax.texts), one.values[by_size], atol=0.0051)
    assert names(ax.get_yticklabels()) == [one.feature_names[i] for i in by_size]


def test_bar_of_all_rows(rows):
    ax = shap.plots.bar(rows, show=False)
    importance = np.abs(rows.values).mean(0)
    by_size = np.argsort(-importance)
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], importance[by_size])
    np.testing.assert_allclose(numbers(ax.texts), importance[by_size], atol=0.0051)
    assert names(ax.get_yticklabels()) == [FEATURES[i] for i in by_size]


def test_bar_of_cohorts(rows):
    windy = rows.data[:, 0] > 0
    cohorts = rows.cohorts(np.where(windy, "windy", "calm"))
    ax = shap.plots.bar(cohorts.abs.mean(0), show=False)
    wanted = [np.abs(rows.values[chosen]).mean(0) for chosen in (~windy, windy)]
    np.testing.assert_allclose(sorted(bar.get_width() for bar in ax.patches), np.sort(np.ravel(wanted)))


@pytest.mark.parametrize("plot", [shap.plots.beeswarm, shap.summary_plot])
@pytest.mark.parametrize("kind", ["rows", "steps"])
def test_points_of_all_rows(plot, kind, request):
    table = request.getfixturevalue(kind)
    plot(table, show=False)
    ax = plt.gcf().axes[0]
    by_size = np.argsort(np.abs(table.values).mean(0))  # the largest on top
    drawn = offsets(ax)
    assert [label.get_text() for label in ax.get_yticklabels()] == [table.feature_names[i] for i in by_size]
    for height, feature in enumerate(by_size):
        (points,) = [p for p in drawn if abs(np.mean(p[:, 1]) - height) < 0.5]
        np.testing.assert_allclose(np.sort(points[:, 0]), np.sort(table.values[:, feature]))


def test_summary_plot_of_arrays(explanation):
    table = explanation.over_time()
    shap.summary_plot([table.output(k).values for k in range(2)], table.data, FEATURES, class_names=CLASSES, show=False)
    importance = np.abs(table.values).mean(0)  # (features, outputs)
    widths = sorted(bar.get_width() for bar in plt.gcf().axes[0].patches)
    np.testing.assert_allclose(widths, np.sort(importance.ravel()))


def test_violin(rows):
    shap.plots.violin(rows, show=False)
    labels = [label.get_text() for label in plt.gcf().axes[0].get_yticklabels()]
    assert labels == [FEATURES[i] for i in np.argsort(np.abs(rows.values).mean(0))]


@pytest.mark.parametrize("kind", ["rows", "steps"])
def test_heatmap(kind, request):
    table = request.getfixturevalue(kind)
    order = np.argsort(-table.values.sum(1))
    ax = shap.plots.heatmap(table, instance_order=order, show=False)
    by_size = np.argsort(-np.abs(table.values).mean(0))
    np.testing.assert_allclose(np.asarray(ax.images[0].get_array()), table.values[order][:, by_size].T)
    assert [label.get_text() for label in ax.get_yticklabels()][1:] == [table.feature_names[i] for i in by_size]
    (outputs,) = [line.get_ydata() for line in ax.lines if len(line.get_xdata()) == 8]
    assert np.array_equal(np.argsort(outputs), np.argsort(-table.values[order].mean(1)))  # f(x), upwards


def test_heatmap_in_the_order_of_a_clustering(rows):
    ax = shap.plots.heatmap(rows, show=False)
    drawn = np.asarray(ax.images[0].get_array()).T
    by_size = np.argsort(-np.abs(rows.values).mean(0))
    np.testing.assert_allclose(np.sort(drawn, 0), np.sort(rows.values[:, by_size], 0))


@pytest.mark.parametrize("kind", ["rows", "steps"])
def test_force_of_one_row(kind, request):
    one = request.getfixturevalue(kind)[1]
    drawn = shap.plots.force(one).data
    assert [drawn["features"][i]["effect"] for i in range(len(one.values))] == pytest.approx(one.values)
    assert drawn["featureNames"] == one.feature_names
    assert drawn["baseValue"] == pytest.approx(one.base_values)
    assert drawn["outValue"] == pytest.approx(one.base_values + one.values.sum())


def test_force_of_one_row_with_matplotlib(rows):
    one = rows[1]
    figure = shap.plots.force(one, matplotlib=True, show=False)
    texts = [t.get_text() for ax in figure.axes for t in ax.texts]
    assert f"{one.base_values + one.values.sum():.2f}" in texts
    assert {t.split(" = ")[0] for t in texts if " = " in t} <= LABELS


def test_force_of_all_rows(rows):
    drawn = shap.plots.force(rows).data
    effects = [[e["features"][i]["effect"] for i in range(3)] for e in drawn["explanations"]]
    outputs = [e["outValue"] for e in drawn["explanations"]]
    by_row = np.argsort([e["simIndex"] for e in drawn["explanations"]])
    assert len(by_row) == 8
    np.testing.assert_allclose(effects, rows.values)
    np.testing.assert_allclose(outputs, rows.base_values + rows.values.sum(1))


def by_value(points):
    return points[np.argsort(points[:, 0])]


def test_scatter(rows):
    ax = shap.plots.scatter(rows[:, "rain"], show=False)
    (points,) = offsets(ax)
    np.testing.assert_allclose(by_value(points), by_value(np.stack([rows.data[:, 1], rows.values[:, 1]], 1)))
    assert ax.get_xlabel() == "rain"


def test_scatter_of_several_features(rows):
    shap.plots.scatter(rows[:, ["rain", "sun"]], show=False)
    axes = [ax for ax in plt.gcf().axes if ax.get_xlabel() in LABELS]
    assert [ax.get_xlabel() for ax in axes] == ["rain", "sun"]
    for ax, feature in zip(axes, (1, 2), strict=True):
        (points,) = offsets(ax)
        wanted = np.stack([rows.data[:, feature], rows.values[:, feature]], 1)
        np.testing.assert_allclose(by_value(points), by_value(wanted))


def test_decision(rows):
    shap.plots.decision(rows.base_values[0], rows.values, rows.data, rows.feature_names, show=False)
    lines = [line.get_xdata() for line in plt.gcf().axes[0].lines if len(line.get_xdata()) == 4]
    by_size = np.argsort(np.abs(rows.values).sum(0))
    wanted = rows.base_values[:, None] + np.cumsum(rows.values[:, by_size], 1)
    np.testing.assert_allclose(np.array(lines)[:, 1:], wanted)


def test_decision_for_several_outputs(explanation):
    table = explanation.over_time()
    shap.multioutput_decision_plot(
        list(table.base_values[0]), [table.output(k).values for k in range(2)], row_index=3, show=False
    )
    ends = [line.get_xdata()[-1] for line in plt.gcf().axes[0].lines if len(line.get_xdata()) == 4]
    np.testing.assert_allclose(ends, table.base_values[3] + table.values[3].sum(0))


def image_arrays(figure):
    """What is drawn of attributions, by row and column."""
    return [np.asarray(ax.images[-1].get_array()) for ax in figure.axes if len(ax.images) == 2]


def test_image_of_all_outputs(images):
    shap.plots.image(images, show=False)
    drawn = image_arrays(plt.gcf())
    wanted = [images.values[row, :, :, 0, output] for row in range(2) for output in range(2)]
    np.testing.assert_allclose(drawn, wanted)
    assert [ax.get_title() for ax in plt.gcf().axes[1:3]] == ["Output 0", "Output 1"]


def test_image_of_one_output(images):
    shap.plots.image(images[..., [1]], show=False)
    np.testing.assert_allclose(image_arrays(plt.gcf()), images.values[..., 0, 1])
    shap.plots.image(images.output(1), labels=["Output 1"], show=False)
    np.testing.assert_allclose(image_arrays(plt.gcf()), images.values[..., 0, 1])


def test_image_of_one_row(images):
    shap.plots.image(images[1], show=False)
    np.testing.assert_allclose(image_arrays(plt.gcf()), np.moveaxis(images.values[1, ..., 0, :], -1, 0))


WORDS = np.array([["the ", "cat ", "sat ", "down "], ["my ", "dog ", "ran ", "off "]])


def shown_words(html):
    """Pairs of a number and the word below it."""
    pairs = re.findall(r"font-size: 12px;'>(-?[\d.]+)</div.*?>\s*>?(\w+) </div>", html, re.DOTALL)
    return [(word + " ", float(value)) for value, word in pairs]


@pytest.fixture(scope="module")
def sentences():
    """A model of token ids, a background and two rows to explain."""
    torch.manual_seed(3)
    return Sentences(), torch.randint(0, 20, (9, 4)), torch.randint(0, 20, (2, 4))


def test_text_of_token_ids(sentences):
    model, background, ids = sentences
    explanation = deepshap.DeepExplainer(model, background, progress=False)(ids).output(1)
    explanation.data = WORDS
    drawn = shown_words(shap.plots.text(explanation, display=False))
    assert [word for word, _ in drawn] == list(WORDS.ravel())
    np.testing.assert_allclose([value for _, value in drawn], explanation.values.ravel(), atol=0.00051)


def test_text_of_an_embedding(sentences):
    model, background, ids = sentences
    explanation = deepshap.DeepExplainer((model, model.lstm), background, progress=False)(ids)
    one = explanation.over_features(data=WORDS).output(0)[0]
    drawn = shown_words(shap.plots.text(one, display=False))
    assert [word for word, _ in drawn] == list(WORDS[0])
    np.testing.assert_allclose([value for _, value in drawn], one.values, atol=0.00051)


@pytest.mark.parametrize("name", ["bar", "beeswarm", "heatmap"])
def test_show_is_an_option_as_in_shap(name, rows, monkeypatch):
    """A picture is shown with ``show=True`` alone, and another value than True and False is refused."""
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(name))
    draw = getattr(deepshap.plots, name)
    draw(rows, show=False)
    assert not shown
    draw(rows, show=True)
    assert shown == [name]
    with pytest.raises(deepshap.InputError, match="show must be True or False, not 'yes'"):
        draw(rows, show="yes")
