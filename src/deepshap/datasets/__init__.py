"""Two small real data sets that travel with the package, for the demo, the examples and the tests.

Sources and licences stand in the README beside this file.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

__all__ = ["JapaneseVowels", "SeattleWeather", "Utterances", "japanese_vowels", "seattle_weather"]


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)


@dataclass(frozen=True)
class Utterances:
    """Utterances of different lengths, padded to a common one.

    signal: (N, 29, 12) float32, the LPC cepstrum coefficients 1 to 12 of every frame (they have no unit);
        zeros after an utterance's last frame.
    lengths: (N,) int64, the number of frames of each utterance, 7 to 29.
    speaker: (N,) int64, who speaks, 0 to 8 (the source counts from 1).
    """

    signal: np.ndarray
    lengths: np.ndarray
    speaker: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)


@dataclass(frozen=True)
class JapaneseVowels:
    """Nine men say the vowels /ae/: 270 utterances to learn from and 370 to be tested on.

    A frame spans 25.6 ms of sound and the next one starts `FRAME_SHIFT_MS` later.
    """

    FRAME_SHIFT_MS = 6.4

    train: Utterances
    test: Utterances


@dataclass(frozen=True)
class SeattleWeather:
    """The weather in Seattle on each of the 1461 days from 2012 to 2015, as arrays of shape (1461,).

    date: datetime64[D], without gaps.
    precipitation: float32, mm.
    temp_max, temp_min: float32, the day's highest and lowest temperature in °C.
    wind: float32, the day's average wind speed in m/s.
    weather: str, one of drizzle, fog, rain, snow, sun.
    """

    date: np.ndarray
    precipitation: np.ndarray
    temp_max: np.ndarray
    temp_min: np.ndarray
    wind: np.ndarray
    weather: np.ndarray

    def __len__(self) -> int:
        return len(self.date)


def japanese_vowels() -> JapaneseVowels:
    """Load the Japanese Vowels data: speech of nine men, to be told apart.

    Examples
    --------
    >>> deepshap.datasets.japanese_vowels().train.signal.shape
    (270, 29, 12)
    """
    with (files(__name__) / "japanese_vowels.npz").open("rb") as file, np.load(file) as arrays:
        return JapaneseVowels(train=_utterances(arrays, "train"), test=_utterances(arrays, "test"))


def seattle_weather() -> SeattleWeather:
    """Load the daily weather in Seattle from 2012 to 2015.

    Examples
    --------
    >>> len(deepshap.datasets.seattle_weather().date)
    1461
    """
    with (files(__name__) / "seattle_weather.csv").open(encoding="utf-8") as file:
        columns = {name: np.array(values) for name, *values in zip(*csv.reader(file), strict=True)}
    numbers = ("precipitation", "temp_max", "temp_min", "wind")
    return SeattleWeather(
        date=columns["date"].astype("datetime64[D]"),
        weather=columns["weather"],
        **{name: columns[name].astype(np.float32) for name in numbers},
    )


def _utterances(arrays: np.lib.npyio.NpzFile, part: str) -> Utterances:
    frames = arrays[f"{part}_frames"]  # (frames of all utterances, 12)
    lengths = arrays[f"{part}_lengths"].astype(np.int64)
    present = np.arange(29) < lengths[:, None]
    signal = np.zeros((*present.shape, frames.shape[1]), dtype=np.float32)
    signal[present] = frames
    return Utterances(signal, lengths, arrays[f"{part}_speakers"].astype(np.int64))
