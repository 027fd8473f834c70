"""The data that travels with the package is what its docstrings say."""

import numpy as np
import pytest

from deepshap.datasets import japanese_vowels, seattle_weather


@pytest.mark.parametrize(("part", "per_speaker"), [("train", [30] * 9), ("test", [31, 35, 88, 44, 29, 24, 40, 50, 29])])
def test_every_speaker_has_his_utterances(part, per_speaker):
    utterances = getattr(japanese_vowels(), part)
    assert len(utterances) == sum(per_speaker)
    assert np.bincount(utterances.speaker).tolist() == per_speaker
    assert utterances.signal.shape == (len(utterances), 29, 12)
    assert utterances.signal.dtype == np.float32
    assert 7 <= utterances.lengths.min() <= utterances.lengths.max() <= 29


def test_only_the_padding_of_an_utterance_is_zero():
    for utterances in (japanese_vowels().train, japanese_vowels().test):
        for signal, length in zip(utterances.signal, utterances.lengths, strict=True):
            assert (signal[:length] != 0).any(axis=1).all()
            assert (signal[length:] == 0).all()


def test_the_first_utterance_is_the_one_of_the_source():
    train = japanese_vowels().train
    assert train.lengths[0] == 20
    np.testing.assert_allclose(train.signal[0, :3, 0], [1.860936, 1.891651, 1.939205])
    np.testing.assert_allclose(train.signal[0, 0, :3], [1.860936, -0.207383, 0.261557])


def test_weather_covers_four_years_day_by_day():
    weather = seattle_weather()
    days = np.arange("2012-01-01", "2016-01-01", dtype="datetime64[D]")
    np.testing.assert_array_equal(weather.date, days)
    assert len(weather) == 1461
    assert (weather.precipitation >= 0).all()
    assert (weather.temp_max >= weather.temp_min).all()
    assert set(weather.weather) == {"drizzle", "fog", "rain", "snow", "sun"}


def test_the_second_day_is_the_one_of_the_source():
    weather = seattle_weather()
    columns = (weather.precipitation, weather.temp_max, weather.temp_min, weather.wind)
    np.testing.assert_allclose([column[1] for column in columns], [10.9, 10.6, 2.8, 4.5], rtol=1e-6)
    assert weather.weather[1] == "rain"
