"""Who is speaking, and which sounds give him away? Deep SHAP of an LSTM on real speech.

`python -m deepshap.datasets.demo` trains an LSTM to tell nine speakers apart by one utterance of the vowels /ae/,
explains all 370 test utterances against 100 training utterances, and writes two tables, four pictures and a report.
So does `deepshap demo`.

What it explains is the *log-odds* of the predicted speaker, log p − log(1 − p). A probability near 1 hardly
moves and would hide most of the evidence; a logit also counts what speaks for every speaker alike. On the
scale of log-odds evidence adds up: +0.7 doubles the odds, +2.3 makes them ten times as large.

Whether all that is true of the network is asked of the network itself (`deepshap.faithfulness`).

Needs the extra `deepshap[demo]`.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

import deepshap
from deepshap.datasets import JapaneseVowels, Utterances, japanese_vowels
from deepshap.explanation.labels import duration

try:
    import matplotlib.pyplot as plt
    import pyarrow
    import pyarrow.parquet
    from matplotlib.figure import Figure

    from deepshap import plots
except ImportError as error:
    raise ImportError("the demo writes Parquet tables and pictures: pip install 'deepshap[demo]'") from error

SPEAKERS, CHANNELS = 9, 12
CHANNEL_NAMES = [f"cepstrum {i}" for i in range(1, CHANNELS + 1)]
EPOCHS = 60
CHECKED = 50  # utterances that the model is asked about


class SpeakerNet(nn.Module):
    """An LSTM reads an utterance; its last state scores the speakers."""

    mean: Tensor
    scale: Tensor
    others: Tensor

    def __init__(self, mean: np.ndarray, scale: np.ndarray, hidden: int = 64):
        super().__init__()
        self.lstm = nn.LSTM(CHANNELS, hidden, batch_first=True)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(hidden, SPEAKERS)
        self.register_buffer("mean", torch.as_tensor(mean))
        self.register_buffer("scale", torch.as_tensor(scale))
        others = [[j for j in range(SPEAKERS) if j != k] for k in range(SPEAKERS)]
        self.register_buffer("others", torch.tensor(others))

    def logits(self, signal: Tensor, lengths: Tensor) -> Tensor:
        """Score padded signals (N, 29, 12) of `lengths` (N,) frames; returns (N, 9)."""
        frames = pack_padded_sequence(
            (signal - self.mean) / self.scale, lengths, batch_first=True, enforce_sorted=False
        )
        _, (last_state, _) = self.lstm(frames)
        return self.head(self.dropout(last_state[-1]))

    def forward(self, signal: Tensor, lengths: Tensor) -> Tensor:
        """Return the log-odds (N, 9) of each speaker against all others."""
        logits = self.logits(signal, lengths)
        return logits - logits[:, self.others].logsumexp(dim=-1)


@dataclass(frozen=True)
class Explained:
    """Utterances, and why the model hears in each the speaker that it does.

    explanation: of the log-odds of the speaker that is heard, (N, 29, 12), zero in the padding; the sum over an utterance is
    log-odds − base.
    """

    utterances: Utterances
    explanation: deepshap.Explanation

    @property
    def predicted(self) -> np.ndarray:
        """The speaker with the highest log-odds (N,)."""
        return self.explanation.predictions.argmax(axis=1)

    @property
    def log_odds(self) -> np.ndarray:
        """Of the predicted speaker (N,)."""
        return self.explanation.outputs

    @property
    def probability(self) -> np.ndarray:
        """The predicted speaker's probability (N,)."""
        return 1 / (1 + np.exp(-self.log_odds))


def main(
    output: Path, *, seed: int = 0, utterances: int | None = None, background: int = 100, report: bool = True
) -> None:
    """Train, explain, check, report, write; of the first ``utterances``, all by default, against ``background`` references."""
    vowels = japanese_vowels()
    model = train(vowels.train, seed)
    test = select(vowels.test, slice(utterances))
    references = balanced_background(vowels.train, background, seed)

    explainer = explainer_of(model, references)
    start = time.perf_counter()
    explained = explain(explainer, test)
    seconds = time.perf_counter() - start
    faithfulness = check(explainer, test, seed)

    summarise(explained, len(references), seconds, faithfulness)
    write_tables(explained, output)
    write_pictures(explained, faithfulness, output)
    print(f"tables and pictures are in {output}")
    if report:
        title = "Who is speaking, and why?"
        page = explained.explanation.report(output / "report.html", title=title, faithfulness=faithfulness)
        print(f"the report is {page}")


def train(utterances: Utterances, seed: int) -> SpeakerNet:
    """Train a new network; the same seed gives the same one."""
    torch.manual_seed(seed)
    frames = utterances.signal[present(utterances)]
    model = SpeakerNet(frames.mean(axis=0), frames.std(axis=0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=1e-3)
    signal, lengths, speaker = map(torch.as_tensor, (utterances.signal, utterances.lengths, utterances.speaker))
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(utterances)).split(32):
            loss = nn.functional.cross_entropy(model.logits(signal[rows], lengths[rows]), speaker[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def explainer_of(model: SpeakerNet, background: np.ndarray) -> deepshap.DeepExplainer:
    """Explain against the background (B, 29, 12), which is read for as many frames as the utterance it is compared with."""
    names = [f"speaker {k}" for k in range(1, SPEAKERS + 1)]
    return deepshap.DeepExplainer(model, background, feature_names=CHANNEL_NAMES, output_names=names)


def explain(explainer: deepshap.DeepExplainer, utterances: Utterances) -> Explained:
    """Explain the predicted speaker of every utterance."""
    lengths = torch.as_tensor(utterances.lengths)
    found = explainer(utterances.signal, target="predicted", additional_forward_args=(lengths,))
    found.row_ids = np.arange(len(utterances))
    found.step_labels = JapaneseVowels.FRAME_SHIFT_MS * np.arange(utterances.signal.shape[1])
    found.time_label = "time (ms)"
    found.lengths = utterances.lengths
    found.targets = [f"speaker {k + 1}" for k in utterances.speaker]
    found.background = (found.background or {}) | {"description": "training utterances, as many of each speaker"}
    return Explained(utterances, found)


def check(explainer: deepshap.DeepExplainer, utterances: Utterances, seed: int) -> deepshap.Faithfulness:
    """Ask the model about some of the utterances: it should change its answer when what is called important is taken away."""
    some = select(utterances, slice(None, None, max(1, len(utterances) // CHECKED)))
    lengths = torch.as_tensor(some.lengths)
    return deepshap.faithfulness(explainer, some.signal, additional_forward_args=(lengths,), points=CHANNELS, seed=seed)


def balanced_background(utterances: Utterances, size: int, seed: int) -> np.ndarray:
    """Pick `size` training utterances, in turn one of each speaker (size, 29, 12).

    They hold their last frame to the end, so that they can be compared with a longer utterance.
    """
    random = np.random.default_rng(seed)
    by_speaker = [random.permutation(np.flatnonzero(utterances.speaker == k)) for k in range(SPEAKERS)]
    chosen = select(utterances, np.stack(by_speaker, axis=1).ravel()[:size])
    frame = np.minimum(np.arange(chosen.signal.shape[1]), chosen.lengths[:, None] - 1)
    return np.take_along_axis(chosen.signal, frame[..., None], axis=1)


def summarise(explained: Explained, references: int, seconds: float, faithfulness: deepshap.Faithfulness) -> None:
    """Print what was done and how well."""
    right, count = explained.predicted == explained.utterances.speaker, len(explained.predicted)
    print(f"accuracy: {right.mean():.1%} of {count} test utterances")
    print(f"explained: {count} utterances × {references} references = {count * references} pairs, {duration(seconds)}")
    print(f"largest additivity gap: {explained.explanation.gap.max():.1e} of the outputs' scale")
    print(faithfulness)


def write_tables(explained: Explained, folder: Path) -> None:
    """Write `attributions.parquet`, a line per coefficient of every frame, and `utterances.parquet`.

    Summed over an utterance, attributions are its log_odds − base. `deepshap.load` reads the first as an explanation.
    """
    folder.mkdir(parents=True, exist_ok=True)
    explained.explanation.save(folder / "attributions.parquet")
    table = pyarrow.table(
        {
            "utterance": np.arange(len(explained.utterances)),
            "frames": explained.utterances.lengths,
            "predicted_speaker": explained.predicted + 1,
            "true_speaker": explained.utterances.speaker + 1,
            "probability": explained.probability,
            "log_odds": explained.log_odds,
            "base": explained.explanation.base_values,
        }
    )
    pyarrow.parquet.write_table(table, folder / "utterances.parquet")


def write_pictures(explained: Explained, faithfulness: deepshap.Faithfulness, folder: Path) -> None:
    """Write `utterance.png`, `mistake.png` (if there is one), `speakers.png` and `check.png`."""
    right = explained.predicted == explained.utterances.speaker
    figures = {"speakers": draw_speakers(explained), "check": draw_check(faithfulness)}
    if right.any():
        typical = np.argsort(np.where(right, explained.log_odds, np.inf))[right.sum() // 2]
        figures["utterance"] = draw_utterance(explained, typical)
    if not right.all():
        worst = np.where(right, -np.inf, explained.log_odds).argmax()
        figures["mistake"] = draw_utterance(explained, worst)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=150)
        plt.close(figure)


def draw_utterance(explained: Explained, row: np.integer) -> Figure:
    """Draw what spoke for and against the predicted speaker of an utterance, and when."""
    ax = plots.heatmap(explained.explanation[int(row)], unit="log-odds")
    predicted, true = explained.predicted[row] + 1, explained.utterances.speaker[row] + 1
    verdict = "right" if predicted == true else f"wrong, it was speaker {true}"
    sure = min(explained.probability[row], 0.999)
    figure = ax.get_figure(root=True)
    assert figure is not None
    chance = f"probability {'over ' if sure == 0.999 else ''}{sure:.1%}"
    text = f"Utterance {row}: the LSTM hears speaker {predicted} with {chance}: {verdict}"
    figure.suptitle(text, fontsize=13, fontweight="bold")
    return figure


def draw_speakers(explained: Explained) -> Figure:
    """Draw by which coefficients, and when in the utterance, each speaker is recognised."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(14, 5), layout="constrained", width_ratios=[3, 2])
    explanation, speaker = explained.explanation, explained.predicted + 1
    plots.importance_by_group(explanation, speaker, unit="log-odds", ax=left)
    plots.importance_by_group(explanation, speaker, per="step", unit="log-odds", ax=right)
    left.set_xticks(range(CHANNELS), range(1, CHANNELS + 1), rotation=0, ha="center")
    left.set(xlabel="cepstrum coefficient", ylabel="predicted speaker", title="which coefficients")
    right.set(xlabel="part of the utterance (%)", title="when in the utterance")
    figure.suptitle("What each speaker is recognised by", fontsize=14, fontweight="bold")
    return figure


def draw_check(faithfulness: deepshap.Faithfulness) -> Figure:
    """Draw how the log-odds fall when coefficients are taken away."""
    figure, ax = plt.subplots(figsize=(7, 4.8), layout="constrained")
    faithfulness.plot(ax, unit="log-odds")
    figure.suptitle("Does the model need what the explanation calls important?", fontweight="bold")
    return figure


def present(utterances: Utterances) -> np.ndarray:
    """Tell frames of speech from padding (N, 29)."""
    return np.arange(utterances.signal.shape[1]) < utterances.lengths[:, None]


def select(utterances: Utterances, rows: np.ndarray | slice) -> Utterances:
    """Take some utterances."""
    return Utterances(utterances.signal[rows], utterances.lengths[rows], utterances.speaker[rows])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deepshap.datasets.demo", description="Who is speaking, and why?")
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="where tables and pictures go")
    parser.add_argument("--seed", type=int, default=0, help="seed of the training and of the background")
    parser.add_argument("--utterances", type=int, default=None, help="explain only this many, the first")
    parser.add_argument("--background", type=int, default=100, help="number of reference utterances")
    parser.add_argument("--no-report", dest="report", action="store_false", help="write no report.html")
    return parser.parse_args()


if __name__ == "__main__":
    main(**vars(_options()))
