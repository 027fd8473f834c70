"""Explanations of small models trained on real data, and every picture of deepshap.plots drawn of them.

`python examples/gallery.py` runs the code of docs/plots.md and writes its pictures: an LSTM that tells nine speakers apart,
a GRU that forecasts Seattle's temperatures for a week, an LSTM that reads short reviews, and a network that reads digits. It
takes about a minute.

Needs the extra `deepshap[demo]`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from forecast import COLUMNS, HORIZON, TEST_YEAR, days_of, train
from matplotlib.axes import Axes
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

import deepshap
from deepshap.datasets import JapaneseVowels, demo, japanese_vowels, seattle_weather
from deepshap.explanation.interactions import Interactions
from deepshap.forecasting import explain_forecast

PAGE = Path(__file__).parents[1] / "docs" / "plots.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$(?:\n\n!\[[^]]*\]\(images/plots/(\S+)\))?", re.MULTILINE | re.DOTALL)
WIDTH = 900  # of a picture, in pixels
QUICK = False  # train and explain little, for tests
WORDS = "the film plot acting music was very not never good great bad dull and but"
REVIEW = "the acting was very good and the plot was not dull but never great"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the page, and write each picture that a block has drawn and that follows it."""
    global QUICK
    options = _options(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    QUICK = options.quick
    sys.modules.setdefault("gallery", sys.modules[__name__])  # as the page imports it
    names: dict[str, Any] = {}
    for code, picture in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        exec(compile(code, str(PAGE), "exec"), names)
        if picture:
            _write(names["ax"], options.output / picture)
    print(f"pictures are in {options.output}")


def speakers() -> deepshap.Explanation:
    """Explain an LSTM that tells nine speakers apart: sequences of different lengths, one output per speaker."""
    vowels = japanese_vowels()
    model = demo.train(vowels.train, seed=0)
    test = demo.select(vowels.test, slice(0, 370, 30 if QUICK else 3))
    names = [f"speaker {k}" for k in range(1, demo.SPEAKERS + 1)]
    background = demo.balanced_background(vowels.train, 18 if QUICK else 45, seed=0)
    explainer = deepshap.DeepExplainer(model, background, feature_names=demo.CHANNEL_NAMES, output_names=names)
    explanation = explainer(test.signal, additional_forward_args=(torch.as_tensor(test.lengths),))
    explanation.lengths = test.lengths
    explanation.step_labels = JapaneseVowels.FRAME_SHIFT_MS * np.arange(test.signal.shape[1])
    explanation.row_ids = [f"utterance {i}" for i in range(len(test))]
    explanation.targets = np.array(names)[test.speaker]
    return explanation


def weather() -> deepshap.Explanation:
    """Explain a GRU's forecast of seven days by the weather up to then and the season: time stamps, an output per day ahead."""
    days = days_of(seattle_weather())
    past, day = days[days.date + HORIZON < TEST_YEAR], days[days.date == np.datetime64("2015-04-20")]
    model = train(past, epochs=2 if QUICK else 20, seed=0)
    outputs = [f"in {k + 1} day{'s' * (k > 0)}" for k in range(HORIZON)]
    background = {"weather": past.history[::40], "season": past.season[::40]}
    explainer = deepshap.DeepExplainer(
        lambda weather, season: model(weather, season),
        background,
        feature_names={"weather": COLUMNS, "season": ["sine", "cosine"]},
        output_names=outputs,
    )
    explanation = explainer(dict(zip(background, day.inputs, strict=True)))
    explanation["weather"].step_labels = day.date[:, None] - np.arange(past.history.shape[1])[::-1]
    return explanation


class Week(nn.Module):
    """A GRU reads three weeks of scaled weather and forecasts a week of temperatures."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(4, 24, batch_first=True), nn.Linear(24, HORIZON)

    def forward(self, past: Tensor) -> Tensor:
        """Forecast (N, 7) from (N, 21, 4)."""
        return self.head(self.gru(past)[0][:, -1])


def forecasts() -> deepshap.JointExplanation:
    """Explain sixty forecasts of a week in spring, with ``explain_forecast``: lags, horizons and time stamps on the axes."""
    torch.manual_seed(0)
    weather, lags = seattle_weather(), 21
    frame = pd.DataFrame({name: getattr(weather, name) for name in COLUMNS}, index=weather.date)
    known, model = frame[frame.index < TEST_YEAR], Week()
    scaler = StandardScaler().fit(known.to_numpy())
    scaled = torch.tensor(scaler.transform(known.to_numpy()), dtype=torch.float32)
    starts = torch.arange(len(scaled) - lags - HORIZON)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    for _ in range(20 if QUICK else 150):
        rows = starts[torch.randint(len(starts), (128,))][:, None]
        ahead = scaled[rows + lags + torch.arange(HORIZON), 0]
        loss = nn.functional.l1_loss(model(scaled[rows + torch.arange(lags)]), ahead)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    spring = frame[frame.index < np.datetime64("2015-05-15")]
    return explain_forecast(model, spring, lags=lags, scaler=scaler, background=known, forecasts=60, progress=False)


class Reader(nn.Module):
    """An LSTM reads the words of a review and says how favourable it is."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.lstm, self.head = (
            nn.Embedding(len(WORDS.split()), 12),
            nn.LSTM(12, 24, batch_first=True),
            nn.Linear(24, 1),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the log-odds (N, 1) of reviews (N, words)."""
        return self.head(self.lstm(self.embedding(tokens))[0][:, -1])


def reader() -> tuple[Reader, Tensor]:
    """Train an LSTM on reviews, in which "good" and "bad" turn around behind "not" and "never"."""
    torch.manual_seed(0)
    tokens = torch.randint(len(WORDS.split()), (3000, 14))
    model = Reader()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(30 if QUICK else 300):
        rows = torch.randint(len(tokens), (128,))
        loss = nn.functional.binary_cross_entropy_with_logits(model(tokens[rows])[:, 0], favourable(tokens[rows]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval(), tokens[:100]


def ids_of(words: str) -> Tensor:
    """Return the token ids of a review, (1, words)."""
    return torch.tensor([[WORDS.split().index(word) for word in words.split()]])


def review() -> deepshap.Explanation:
    """Explain what the LSTM makes of a review."""
    model, background = reader()
    explanation = deepshap.DeepExplainer(model, background, output_names=["favourable"])(ids_of(REVIEW))
    explanation.display_data = [REVIEW.split()]
    return explanation


def phrase() -> Interactions:
    """Explain which words of a short review the LSTM reads together."""
    words = "plot not dull acting not good"
    model, background = reader()
    found = deepshap.DeepExplainer(model, background[:, :6]).interactions(ids_of(words), players="steps")
    return replace(found, names=[f"{k} {word}" for k, word in enumerate(words.split(), 1)])


def digit() -> deepshap.Explanation:
    """Explain why a convolutional network takes a picture of 8 × 8 pixels for a 3 and not for an 8."""
    torch.manual_seed(0)
    digits = load_digits()
    pictures = torch.tensor(digits.images[:, None] / 16, dtype=torch.float32)  # (rows, 1, 8, 8)
    truth = torch.tensor(digits.target)
    model = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(30 if QUICK else 300):
        rows = torch.randint(1000, (128,))
        loss = nn.functional.cross_entropy(model(pictures[rows]), truth[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    explainer = deepshap.DeepExplainer(model.eval(), pictures[:1000:10], output_names=[f"a {k}" for k in range(10)])
    three = 1000 + int((truth[1000:] == 3).nonzero()[0])
    return explainer(pictures[three : three + 1], target="a 3 - a 8")


def favourable(tokens: Tensor) -> Tensor:
    """Tell reviews (N, words) that praise more than they blame (N,), as 1 and 0."""
    words = torch.tensor([{"good": 1, "great": 2, "bad": -1, "dull": -2}.get(word, 0) for word in WORDS.split()])
    negates = torch.tensor([word in ("not", "never") for word in WORDS.split()])
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
