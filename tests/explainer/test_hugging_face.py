"""Classifiers of Hugging Face by what tokenizers return, a dict of ids and mask, and of time series, as they are."""

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BartConfig,
    BatchEncoding,
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    GPT2Config,
    LlamaConfig,
    ModernBertConfig,
    PatchTSTConfig,
    PatchTSTForClassification,
    RobertaConfig,
    T5Config,
)

import deepshap

SMALL = {"num_hidden_layers": 1, "num_attention_heads": 2}


def sums(explanation):
    return sum(
        part.values.reshape(len(part.values), -1, part.values.shape[-1]).sum(1) for _, part in explanation.items()
    )


@pytest.fixture(scope="module")
def bert():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30, hidden_size=16, intermediate_size=16, num_labels=3, max_position_embeddings=16, **SMALL
    )
    return BertForSequenceClassification(config).eval()


@pytest.mark.parametrize("padded", [False, True])
def test_a_dict_of_ids_and_mask_is_explained_as_it_is(bert, padded):
    random = torch.Generator().manual_seed(0)
    ids, mask = torch.randint(3, 30, (10, 7), generator=random), torch.ones(10, 7, dtype=torch.long)
    if padded:
        ids[:, 5:], mask[:, 5:] = 0, 0

    def encoded(rows):
        return {"input_ids": ids[rows], "attention_mask": mask[rows]}

    explanation = deepshap.DeepExplainer(bert, encoded(slice(2, 10)))(encoded(slice(0, 2)))
    own = bert(**encoded(slice(0, 2))).logits.detach().numpy()
    np.testing.assert_allclose(explanation.outputs, own, rtol=1e-5)
    base = bert(**encoded(slice(2, 10))).logits.detach().numpy().mean(0)
    np.testing.assert_allclose(sums(explanation), own - base, atol=2e-6)
    assert not explanation["attention_mask"].values.any()
    if padded:
        assert np.abs(explanation["input_ids"].values[:, 5:]).max() < 1e-6


WITH_FLOAT32 = ("Llama", "ModernBERT", "T5")  # angles of positions, norms
SIZES = {"vocab_size": 30, "hidden_size": 16, "intermediate_size": 16, "max_position_embeddings": 20, "num_labels": 3}
SEVERAL = {"vocab_size": 30, "num_labels": 3, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 2}
LAYERS = {
    f"{part}_{name}": n
    for part in ("encoder", "decoder")
    for name, n in {"layers": 1, "ffn_dim": 16, "attention_heads": 2}.items()
}
TEXT = {
    "BERT": lambda: BertConfig(**SMALL, **SIZES),
    "RoBERTa": lambda: RobertaConfig(**SMALL, **SIZES, pad_token_id=0),
    "ModernBERT": lambda: ModernBertConfig(**SMALL, **SIZES, pad_token_id=0, cls_token_id=1, sep_token_id=2),
    "DistilBERT": lambda: DistilBertConfig(
        vocab_size=30, dim=16, hidden_dim=16, n_layers=1, n_heads=2, max_position_embeddings=20, num_labels=3
    ),
    "GPT-2": lambda: GPT2Config(
        vocab_size=30, n_embd=16, n_layer=1, n_head=2, n_positions=20, num_labels=3, pad_token_id=0
    ),
    "Llama": lambda: LlamaConfig(**SMALL, **SIZES, pad_token_id=0),
    "BART": lambda: BartConfig(**SEVERAL, d_model=16, **LAYERS, max_position_embeddings=20, bos_token_id=2),
    "T5": lambda: T5Config(**SEVERAL, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2),
}


@pytest.mark.parametrize("name", TEXT)
def test_what_a_tokenizer_returns_of_texts_of_different_lengths_is_explained_as_it_is(name):
    """Models look at the whole mask and take another way where nothing is padded; BART and T5 return hidden states too."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(TEXT[name]()).double().eval()
    lengths = torch.tensor([7, 3, 5, 7, 6, 1])
    mask = (torch.arange(7) < lengths[:, None]).long()
    ids = torch.randint(3, 30, (6, 7)) * mask
    ids[torch.arange(6), lengths - 1] = 1  # the end

    def encoded(rows):
        return BatchEncoding({"input_ids": ids[rows], "attention_mask": mask[rows]})

    def logits(row):
        with torch.no_grad():
            return model(ids[row : row + 1, : lengths[row]]).logits[0].numpy()

    explanation = deepshap.DeepExplainer(model, encoded(slice(3, 6)), progress=False)(encoded(slice(0, 3)))
    base = np.mean([logits(row) for row in range(3, 6)], axis=0)
    wanted = np.stack([logits(row) for row in range(3)]) - base
    np.testing.assert_allclose(sums(explanation), wanted, atol=1e-6 if name in WITH_FLOAT32 else 1e-9)
    assert np.abs(explanation["attention_mask"].values).max() > 0
    assert not explanation["attention_mask"].values[0, 0].any()  # no text is without its first token


def test_a_time_series_classifier_is_explained_as_it_is():
    torch.manual_seed(0)
    config = PatchTSTConfig(
        num_input_channels=3,
        context_length=16,
        patch_length=4,
        patch_stride=4,
        d_model=8,
        ffn_dim=8,
        num_targets=4,
        **SMALL,
    )
    model = PatchTSTForClassification(config).eval()
    x = torch.randn(9, 16, 3)
    given = {"past_values": x, "past_observed_mask": torch.ones(9, 16, 3, dtype=torch.bool)}
    rows, background = ({name: value[part] for name, value in given.items()} for part in (slice(0, 2), slice(2, 9)))
    explanation = deepshap.DeepExplainer(model, background)(rows)
    own = model(**rows).prediction_logits.detach().numpy()
    base = model(**background).prediction_logits.detach().numpy().mean(0)
    np.testing.assert_allclose(sums(explanation), own - base, atol=2e-6)
    assert explanation["past_values"].values.shape == (2, 16, 3, 4)
