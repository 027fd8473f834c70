# %% [markdown]
# # Tutorial: explain a speaker recognizer (PyTorch)
#
# This tutorial is for people who want to follow a whole analysis of a classifier of sequences. Nine men say the Japanese vowels
# /ae/, a fifth of a second each. An LSTM reads the recording frame by frame and predicts the speaker.
#
# You train the LSTM, explain its predictions, find the cause of a mistake, and check the explanation by replacing the inputs
# that it calls important. The notebook takes half a minute on a laptop.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import deepshap
from deepshap import plots
from deepshap.datasets import JapaneseVowels, japanese_vowels

vowels = japanese_vowels()
train, test = vowels.train, vowels.test
NAMES = [f"speaker {k}" for k in range(1, 10)]
print(train.signal.shape, test.signal.shape, "frames per recording:", test.lengths.min(), "to", test.lengths.max())

# %% [markdown]
# Each recording is a sequence of 7 to 29 frames, padded with zeros to 29. Frames are 6.4 ms apart. Twelve cepstrum coefficients
# describe a frame: the shape of the voice's spectrum at that moment.
#
# ## The model
#
# The model is an LSTM over the frames without the padding, and a linear layer on its last state. It returns *log-odds*.
# Evidence adds up on this scale: +0.7 doubles the odds, +2.3 makes them ten times as large.


# %%
OTHERS = torch.tensor([[j for j in range(9) if j != k] for k in range(9)])


class SpeakerNet(nn.Module):
    def __init__(self, mean, scale):
        super().__init__()
        self.lstm, self.dropout, self.head = nn.LSTM(12, 64, batch_first=True), nn.Dropout(0.3), nn.Linear(64, 9)
        self.register_buffer("mean", torch.as_tensor(mean))
        self.register_buffer("scale", torch.as_tensor(scale))

    def logits(self, signal, lengths):
        frames = (signal - self.mean) / self.scale
        packed = pack_padded_sequence(frames, lengths, batch_first=True, enforce_sorted=False)
        return self.head(self.dropout(self.lstm(packed)[1][0][-1]))

    def forward(self, signal, lengths):
        logits = self.logits(signal, lengths)
        return logits - logits[:, OTHERS].logsumexp(-1)


torch.manual_seed(0)
frames = train.signal[np.arange(29) < train.lengths[:, None]]
model = SpeakerNet(frames.mean(0), frames.std(0))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=1e-3)
signal, lengths, speaker = map(torch.as_tensor, (train.signal, train.lengths, train.speaker))
for epoch in range(60):
    for rows in torch.randperm(len(train)).split(32):
        loss = nn.functional.cross_entropy(model.logits(signal[rows], lengths[rows]), speaker[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
model.eval()


def log_odds(signal):
    with torch.no_grad():
        return model(torch.as_tensor(signal), torch.as_tensor(test.lengths)).numpy()


answers = log_odds(test.signal)
predicted = answers.argmax(1)
print(f"right: {(predicted == test.speaker).mean():.1%} of {len(test)} recordings that it has never heard")

# %% [markdown]
# ## The explanation
#
# Deep SHAP compares each recording with a background, a set of recordings that represents the absence of information. The
# background has five recordings of each speaker. Each of them repeats its last frame to the end, because the model reads a
# reference for as many frames as the explained recording has ([details](../guide/lengths.md)).

# %%
random = np.random.default_rng(0)
by_speaker = [np.flatnonzero(train.speaker == k) for k in range(9)]
chosen = np.concatenate([random.choice(recordings, 5, replace=False) for recordings in by_speaker])
last = np.minimum(np.arange(29), train.lengths[chosen, None] - 1)
background = np.take_along_axis(train.signal[chosen], last[..., None], axis=1)
explainer = deepshap.DeepExplainer(
    model,
    background,
    feature_names=[f"cepstrum {i}" for i in range(1, 13)],
    output_names=NAMES,
    progress=False,
)


def explain(recordings, **options):
    counts = test.lengths[recordings]
    made = explainer(test.signal[recordings], additional_forward_args=(torch.as_tensor(counts),), **options)
    made.lengths = counts
    made.step_labels = JapaneseVowels.FRAME_SHIFT_MS * np.arange(29)
    made.row_ids = [f"recording {i}" for i in recordings]
    made.targets = np.array(NAMES)[test.speaker[recordings]]
    return made


mistakes = np.flatnonzero(predicted != test.speaker)
some = np.union1d(np.arange(0, 370, 5), mistakes)  # every fifth recording, and all mistakes
explanation = explain(some)
explanation

# %% [markdown]
# Each frame, coefficient and speaker has an attribution: its contribution to the log-odds of that speaker. The attributions
# **add up**: for each recording and speaker they sum to the model's output minus its mean over the background. The next cell
# checks this.

# %%
total = explanation.base_values + explanation.values.sum((1, 2))
print("shape:", explanation.values.shape, "(recordings, frames, coefficients, speakers)")
print(f"largest difference from the model's output: {np.abs(total - answers[some]).max():.1e} log-odds")
padding = np.arange(29) >= test.lengths[some, None]
print("largest attribution to padding:", np.abs(explanation.values[padding]).max())

# %% [markdown]
# ## One recording
#
# What speaks for speaker 3 in one of his recordings? Each cell of the map shows the contribution of a coefficient at a moment.
# The next plot shows how the output builds up over time, from the base value, which is the mean output over the background.

# %%
third = explanation.output("speaker 3")
row = int(np.flatnonzero(test.speaker[some] == 2)[2])
plots.heatmap(third[row], unit="log-odds", time_label="time (ms)");

# %%
plots.buildup(third[row], unit="log-odds", time_label="time (ms)");

# %% [markdown]
# ## The cause of a mistake
#
# We take the mistake that the model is most certain of. Why did it prefer the wrong speaker to the right speaker? The
# explanation of the *difference* of two outputs is the difference of their explanations.

# %%
wrong = np.flatnonzero(predicted[some] != test.speaker[some])
row = int(wrong[answers[some][wrong].max(1).argmax()])
heard, true = NAMES[predicted[some[row]]], NAMES[test.speaker[some[row]]]
print(f"{explanation.row_ids[row]}: it was {true}, the model heard {heard}")

misled = explanation.output(heard) - explanation.output(true)
misled.data, misled.output_names = explanation.data, f"{heard} (wrong) rather than {true} (right)"
plots.heatmap(misled[row], unit="log-odds", time_label="time (ms)");

# %% [markdown]
# To check this, we replace the three coefficients with the largest contributions to the mistake by their averages, and predict
# again.

# %%
blame = pd.Series(misled[row].values.sum(0), misled.feature_names, name="speaks for the wrong one").sort_values()
worst = [misled.feature_names.index(name) for name in blame.index[-3:]]

repaired = test.signal[some[row] : some[row] + 1].copy()
repaired[..., worst] = model.mean[worst]
with torch.no_grad():
    again = model(torch.as_tensor(repaired), torch.as_tensor(test.lengths[some[row : row + 1]]))
lead = [answer[NAMES.index(heard)] - answer[NAMES.index(true)] for answer in (answers[some[row]], again[0])]
print(f"with {', '.join(blame.index[-3:])} at their averages, the model hears {NAMES[again.argmax()]}:")
print(f"the lead of {heard} over {true} went from {lead[0]:.1f} to {lead[1]:.1f} log-odds")
blame[::-1].round(2).to_frame().head(4)

# %% [markdown]
# ## All recordings
#
# What does the model use to recognize each speaker? For each recording we explain the predicted speaker: `ranked_outputs=1`.

# %%
own = explain(np.arange(370), ranked_outputs=1)
groups = np.array(NAMES)[predicted]

figure, (left, right) = plt.subplots(1, 2, figsize=(14, 4.6), layout="constrained", width_ratios=[3, 2])
plots.importance_by_group(own, groups, unit="log-odds", ax=left)
plots.importance_by_group(own, groups, per="step", unit="log-odds", ax=right);

# %% [markdown]
# The last frames matter most, because the model predicts from the LSTM's last state. The next plot aligns the recordings at
# their ends and shows the spread over the recordings:

# %%
plots.importance_over_time(own, align="end", unit="log-odds");

# %%
plots.beeswarm(third, unit="log-odds");

# %% [markdown]
# Coefficient 6 distinguishes speaker 3: the lower it is, the more it speaks for him. Which recordings have unusual
# explanations?

# %%
plots.outliers(own, rows=6, unit="log-odds");

# %% [markdown]
# ## Does the model need the important coefficients?
#
# In each recording we replace three of the twelve coefficients by their averages: the three with the highest attributions, a
# random three, and the three with the lowest attributions. `deepshap.faithfulness` automates [such
# tests](../guide/faithfulness.md).

# %%
support = own.output(0).values.sum(1)  # (recordings, coefficients)
orders = {
    "highest": -support,
    "random": np.random.default_rng(0).random(support.shape),
    "lowest": support,
}
kept = {}
for name, score in orders.items():
    taken = score.argsort(1).argsort(1) < 3
    changed = log_odds(np.where(taken[:, None], model.mean.numpy(), test.signal))
    kept[name] = f"{(changed.argmax(1) == predicted).mean():.0%}"
pd.DataFrame({"answers that stay the same": kept}).rename_axis("attribution of what is replaced")

# %% [markdown]
# ## Save and report
#
# An explanation is also available as a table, as a file, and as a report for people who do not program:

# %%
table = third.to_dataframe()
table.head()

# %%
table.groupby("feature", observed=True)["attribution"].agg(["mean", "std", "min", "max"]).round(3)

# %%
import tempfile
from pathlib import Path

with tempfile.TemporaryDirectory() as folder:
    explanation.save(Path(folder) / "speakers.parquet")
    again = deepshap.load(Path(folder) / "speakers.parquet")
    page = explanation.report(Path(folder) / "speakers.html", title="Who is speaking?")
    print("the same after loading:", np.array_equal(again.values, explanation.values))
    print(f"a page for the browser, without network: {page.stat().st_size / 1e6:.1f} MB")
