"""Every picture of deepshap.plots, drawn of small models trained on real data.

`python examples/gallery.py` writes the pictures of docs/plots.md: an LSTM that tells nine speakers apart, a GRU that
forecasts Seattle's temperatures for a week, and an LSTM that reads short reviews. It takes about half a minute.

Needs the extra `deepshap[demo]`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from forecast import COLUMNS, HORIZON, TEST_YEAR, Forecaster, days_of, train
from matplotlib.axes import Axes
from PIL import Image
from torch import Tensor, nn

import deepshap
from deepshap import demo, plots
from deepshap.datasets import JapaneseVowels, japanese_vowels, seattle_weather

WIDTH = 900  # of a picture, in pixels
WORDS = [
    "the",
    "film",
    "plot",
    "acting",
    "music",
    "was",
    "very",
    "not",
    "never",
    "good",
    "great",
    "bad",
    "dull",
    "and",
    "but",
]


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, explain, draw."""
    options = _options(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    for draw in (draw_speakers, draw_weather, draw_reviews):
        for name, ax in draw(options.quick).items():
            _write(ax, options.output / f"{name}.png")
    print(f"pictures are in {options.output}")


def draw_speakers(quick: bool) -> dict[str, Axes]:
    """Draw sequences of different lengths, with one output per speaker."""
    vowels = japanese_vowels()
    model = demo.train(vowels.train, seed=0)
    test = demo.select(vowels.test, slice(0, 370, 30 if quick else 3))
    names = [f"speaker {k}" for k in range(1, demo.SPEAKERS + 1)]
    background = demo.balanced_background(vowels.train, 18 if quick else 45, seed=0)
    explainer = deepshap.DeepExplainer(model, background, feature_names=demo.CHANNEL_NAMES, output_names=names)
    explanation = explainer(test.signal, additional_forward_args=(torch.as_tensor(test.lengths),))
    explanation.lengths = test.lengths
    explanation.step_labels = JapaneseVowels.FRAME_SHIFT_MS * np.arange(test.signal.shape[1])
    explanation.row_ids = [f"utterance {i}" for i in range(len(test))]
    third = explanation.output("speaker 3")
    spoken = test.speaker == 2
    options = {"unit": "log-odds"}
    return {
        "heatmap": plots.heatmap(third[int(np.flatnonzero(spoken)[0])], time_label="time (ms)", **options),
        "importance": plots.importance(third, **options),
        "importance_over_time": plots.importance_over_time(third, align="end", **options),
        "importance_map": plots.importance_map(third[spoken], align="end", **options),
        "importance_by_group": plots.importance_by_group(third, np.array(names)[test.speaker], **options),
        "beeswarm": plots.beeswarm(third, **options),
        "difference": plots.difference(
            third, spoken, names=("speaker 3 speaks", "others"), align="relative", **options
        ),
        "outliers": plots.outliers(third[spoken], rows=6, **options),
    }


def draw_weather(quick: bool) -> dict[str, Axes]:
    """Draw a series with time stamps and seven outputs."""
    days = days_of(seattle_weather())
    past, day = days[days.date + HORIZON < TEST_YEAR], days[days.date == np.datetime64("2015-04-20")]
    model = train(past, epochs=2 if quick else 20, seed=0)
    explanation = explain_weather(model, past.history[::40], past.season[::40], day)
    tomorrow = explanation.output("in 1 day")[0]
    options = {"unit": "°C"}
    return {
        "signal": plots.signal(tomorrow, **options),
        "buildup": plots.buildup(tomorrow, **options),
        "output_matrix": plots.output_matrix(explanation[0], "temp_max", **options),
    }


def explain_weather(model: Forecaster, history: np.ndarray, season: np.ndarray, days: object) -> deepshap.Explanation:
    """Explain the forecasts of the given days by the weather up to then, against past histories and seasons."""
    outputs = [f"in {k + 1} day{'s' * (k > 0)}" for k in range(HORIZON)]
    explainer = deepshap.DeepExplainer(
        model, [history, season], feature_names=[COLUMNS, ["sine", "cosine"]], output_names=outputs
    )
    explanation = explainer(days.inputs)[0]
    explanation.step_labels = days.date[:, None] - np.arange(history.shape[1])[::-1]
    return explanation


class Reader(nn.Module):
    """An LSTM reads the words of a review and says how favourable it is."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.lstm, self.head = (
            nn.Embedding(len(WORDS), 12),
            nn.LSTM(12, 24, batch_first=True),
            nn.Linear(24, 1),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the log-odds (N, 1) of reviews (N, words)."""
        return self.head(self.lstm(self.embedding(tokens))[0][:, -1])


def draw_reviews(quick: bool) -> dict[str, Axes]:
    """Draw a text: "good" and "bad" turn around behind "not" and "never"."""
    torch.manual_seed(0)
    tokens = torch.randint(len(WORDS), (3000, 14))
    model = Reader()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(30 if quick else 300):
        rows = torch.randint(len(tokens), (128,))
        loss = nn.functional.binary_cross_entropy_with_logits(model(tokens[rows])[:, 0], favourable(tokens[rows]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    review = [
        "the",
        "acting",
        "was",
        "very",
        "good",
        "and",
        "the",
        "plot",
        "was",
        "not",
        "dull",
        "but",
        "never",
        "great",
    ]
    ids = torch.tensor([[WORDS.index(word) for word in review]])
    explanation = deepshap.DeepExplainer(model.eval(), tokens[:100], output_names=["favourable"])(ids)
    explanation.display_data = [review]
    return {"text": plots.text(explanation[0], unit="log-odds")}


def favourable(tokens: Tensor) -> Tensor:
    """Tell reviews (N, words) that praise more than they blame (N,), as 1 and 0."""
    words = torch.tensor([{"good": 1, "great": 2, "bad": -1, "dull": -2}.get(word, 0) for word in WORDS])
    negates = torch.tensor([word in ("not", "never") for word in WORDS])
    turned = torch.cat([torch.zeros_like(tokens[:, :1], dtype=torch.bool), negates[tokens[:, :-1]]], dim=1)
    return (torch.where(turned, -words[tokens], words[tokens]).sum(dim=1) > 0).float()


def _write(ax: Axes, path: Path) -> None:
    """Write a picture with 256 colours, to be small."""
    figure = ax.figure
    figure.savefig(path, dpi=WIDTH / figure.get_figwidth())
    plt.close(figure)
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2)
    small.save(path, optimize=True)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Draw every picture of deepshap.plots.")
    parser.add_argument("--output", type=Path, default=Path("docs/images/plots"), help="where the pictures go")
    parser.add_argument("--quick", action="store_true", help="train and explain little, for a test")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
