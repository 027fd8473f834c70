"""Models of transformers, built from configurations: series, texts, state spaces, mixtures of experts, images, sound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from case import ROWS, Case, ids, normal

SERIES: dict[str, Any] = {"prediction_length": 2, "context_length": 10, "lags_sequence": [1, 2], "num_time_features": 1}
SMALL: dict[str, Any] = {
    "d_model": 8,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_ffn_dim": 8,
    "decoder_ffn_dim": 8,
}
HEADS: dict[str, Any] = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
BERT: dict[str, Any] = {
    "vocab_size": 30,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 24,
}
DECODER: dict[str, Any] = {**BERT, "num_key_value_heads": 1, "head_dim": 8, "use_cache": False}
EXPERTS: dict[str, Any] = {
    **DECODER,
    "experts_implementation": "eager",
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 8,
}
IMAGE: dict[str, Any] = {"image_size": 16, "patch_size": 8, "num_labels": 3}


def autoformer(heads: int) -> Callable[[], Case]:
    """Several heads mix rows: transformers gives a row's heads the delays of other rows."""
    each = {"encoder_attention_heads": heads, "decoder_attention_heads": heads}
    return hf(
        "AutoformerForPrediction",
        window,
        located,
        single=True,
        label_length=4,
        moving_average=3,
        **SERIES,
        **SMALL,
        **each,
    )


def hf(
    name: str, inputs: Callable[[], Any], output: Any = "logits", single: bool = False, **config: Any
) -> Callable[[], Case]:
    """The model of that name, from its configuration."""

    def build() -> Case:
        import transformers

        kind = getattr(transformers, name)
        made = kind.config_class(**config)
        made._attn_implementation = "eager"
        return Case(kind(made), inputs(), output, single)

    return build


def series(channels: int, length: int = 32) -> Callable[[], Any]:
    """Past values."""
    return lambda: {"past_values": normal(length, channels)}


def embeddings() -> Any:
    """Texts as vectors."""
    return {"inputs_embeds": normal(6, 16)}


def text() -> Any:
    """Token ids."""
    return {"input_ids": ids(6)}


def padded() -> Any:
    """Token ids with a mask."""
    mask = torch.ones(ROWS, 6, dtype=torch.long)
    mask[:, 4:] = 0
    return {"input_ids": ids(6), "attention_mask": mask}


def ended() -> Any:
    """Token ids that end in different places, with a mask."""
    lengths = torch.tensor([6, 3, 4, 6, 2, 5, 6])
    mask = (torch.arange(6) < lengths[:, None]).long()
    made = ids(6) * mask
    made[torch.arange(ROWS), lengths - 1] = 1
    return {"input_ids": made, "attention_mask": mask}


def window() -> Any:
    """A series with its time features, past and future."""
    return {
        "past_values": normal(12),
        "past_time_features": normal(12, 1),
        "past_observed_mask": torch.ones(ROWS, 12),
        "future_time_features": normal(2, 1),
        "future_values": normal(2),
    }


def image() -> Any:
    """Small pictures."""
    return {"pixel_values": normal(3, 16, 16)}


def large_image() -> Any:
    """Pictures that networks may halve five times."""
    return {"pixel_values": normal(3, 32, 32)}


def last_hidden(found: Any) -> Any:
    """The last step's hidden state."""
    return found["last_hidden_state"][:, -1]


def located(found: Any) -> Any:
    """Means of a forecast's distribution."""
    return found["params"][1]


T5: dict[str, Any] = {"vocab_size": 30, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}

MODELS = {
    "transformers, series": {
        "PatchTST": hf(
            "PatchTSTForPrediction",
            series(3),
            "prediction_outputs",
            num_input_channels=3,
            context_length=32,
            patch_length=8,
            patch_stride=8,
            d_model=16,
            num_attention_heads=2,
            num_hidden_layers=1,
            prediction_length=2,
        ),
        "PatchTST, classes": hf(
            "PatchTSTForClassification",
            series(3),
            "prediction_logits",
            num_input_channels=3,
            context_length=32,
            patch_length=8,
            patch_stride=8,
            d_model=16,
            num_attention_heads=2,
            num_hidden_layers=1,
            num_targets=2,
        ),
        "PatchTSMixer": hf(
            "PatchTSMixerForPrediction",
            series(2),
            "prediction_outputs",
            context_length=32,
            patch_length=8,
            patch_stride=8,
            num_input_channels=2,
            d_model=8,
            num_layers=2,
            prediction_length=2,
        ),
        "TimeSeriesTransformer": hf("TimeSeriesTransformerForPrediction", window, located, **SERIES, **SMALL, **HEADS),
        "Informer": hf("InformerForPrediction", window, located, attention_type="full", **SERIES, **SMALL, **HEADS),
        "Informer, sparse": hf("InformerForPrediction", window, located, sampling_factor=1, **SERIES, **SMALL, **HEADS),
        "Autoformer": autoformer(2),
        "Autoformer, one head": autoformer(1),
    },
    "transformers, recurrent": {
        "Mamba": hf(
            "MambaModel",
            embeddings,
            last_hidden,
            vocab_size=30,
            hidden_size=16,
            num_hidden_layers=2,
            state_size=4,
            use_cache=False,
        ),
        "Mamba2": hf(
            "Mamba2Model",
            embeddings,
            last_hidden,
            vocab_size=30,
            hidden_size=16,
            num_hidden_layers=1,
            state_size=4,
            head_dim=8,
            num_heads=4,
            expand=2,
            n_groups=1,
            chunk_size=4,
            use_cache=False,
        ),
        "RWKV": hf(
            "RwkvModel", embeddings, last_hidden, vocab_size=30, hidden_size=16, num_hidden_layers=2, use_cache=False
        ),
        "FalconMamba": hf(
            "FalconMambaModel",
            embeddings,
            last_hidden,
            vocab_size=30,
            hidden_size=16,
            num_hidden_layers=1,
            state_size=4,
            use_cache=False,
        ),
        "RecurrentGemma": hf(
            "RecurrentGemmaModel",
            embeddings,
            last_hidden,
            **{**DECODER, "num_hidden_layers": 3},
            lru_width=16,
            attention_window_size=6,
        ),
    },
    "transformers, text": {
        "BERT": hf("BertForSequenceClassification", padded, **BERT),
        "DistilBERT": hf(
            "DistilBertForSequenceClassification", text, vocab_size=30, dim=16, n_layers=1, n_heads=2, hidden_dim=16
        ),
        "RoBERTa": hf("RobertaForSequenceClassification", text, **BERT),
        "ALBERT": hf("AlbertForSequenceClassification", text, **BERT, embedding_size=8),
        "ELECTRA": hf("ElectraForSequenceClassification", text, **BERT, embedding_size=8),
        "DeBERTa": hf(
            "DebertaV2ForSequenceClassification", text, **BERT, relative_attention=True, pos_att_type=["p2c", "c2p"]
        ),
        "ModernBERT": hf(
            "ModernBertForSequenceClassification", text, **{**BERT, "max_position_embeddings": 32}, pad_token_id=0
        ),
        "XLNet": hf("XLNetForSequenceClassification", text, vocab_size=30, d_model=16, n_layer=1, n_head=2, d_inner=16),
        "FNet": hf(
            "FNetForSequenceClassification", text, **{k: v for k, v in BERT.items() if k != "num_attention_heads"}
        ),
        "Longformer": hf("LongformerForSequenceClassification", text, **BERT, attention_window=4),
        "BigBird": hf("BigBirdForSequenceClassification", text, **BERT, attention_type="original_full"),
        "GPT-2": hf(
            "GPT2Model",
            embeddings,
            last_hidden,
            vocab_size=30,
            n_embd=16,
            n_layer=2,
            n_head=2,
            n_positions=8,
            use_cache=False,
        ),
        "Llama": hf("LlamaModel", embeddings, last_hidden, **DECODER),
        "Qwen3": hf("Qwen3Model", embeddings, last_hidden, **DECODER),
        "Gemma3": hf("Gemma3TextModel", embeddings, last_hidden, **DECODER),
        "T5": hf("T5EncoderModel", embeddings, last_hidden, **T5),
        "T5, classes": hf(
            "T5ForSequenceClassification",
            ended,
            num_labels=3,
            decoder_start_token_id=0,
            pad_token_id=0,
            eos_token_id=1,
            **T5,
        ),
        "BART": hf(
            "BartForSequenceClassification",
            lambda: {"input_ids": torch.cat([ids(5), torch.full((ROWS, 1), 2)], 1)},
            vocab_size=30,
            **SMALL,
            **HEADS,
        ),
    },
    "transformers, experts": {
        "Mixtral": hf(
            "MixtralModel",
            embeddings,
            last_hidden,
            **DECODER,
            experts_implementation="eager",
            num_local_experts=4,
            num_experts_per_tok=2,
        ),
        "Qwen2-MoE": hf("Qwen2MoeModel", embeddings, last_hidden, **EXPERTS, shared_expert_intermediate_size=8),
        "Qwen3-MoE": hf("Qwen3MoeModel", embeddings, last_hidden, **EXPERTS),
        "OLMoE": hf(
            "OlmoeModel", embeddings, last_hidden, **{k: v for k, v in EXPERTS.items() if k != "moe_intermediate_size"}
        ),
        "Switch": hf(
            "SwitchTransformersEncoderModel", embeddings, last_hidden, **T5, num_experts=4, num_sparse_encoder_layers=1
        ),
    },
    "transformers, images and sound": {
        "ViT": hf(
            "ViTForImageClassification",
            image,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            **IMAGE,
        ),
        "BEiT": hf(
            "BeitForImageClassification",
            image,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            **IMAGE,
        ),
        "ConvNeXt": hf(
            "ConvNextForImageClassification",
            large_image,
            hidden_sizes=[8, 8],
            depths=[1, 1],
            num_stages=2,
            num_labels=3,
        ),
        "ResNet": hf(
            "ResNetForImageClassification",
            large_image,
            embedding_size=8,
            hidden_sizes=[8, 16],
            depths=[1, 1],
            num_labels=3,
        ),
        "Wav2Vec2": hf(
            "Wav2Vec2ForSequenceClassification",
            lambda: {"input_values": normal(200)},
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            conv_dim=[8, 8],
            conv_stride=[5, 2],
            conv_kernel=[10, 3],
            num_feat_extract_layers=2,
            num_conv_pos_embeddings=4,
            num_conv_pos_embedding_groups=2,
            classifier_proj_size=8,
        ),
        "Whisper encoder": hf(
            "WhisperForAudioClassification",
            lambda: {"input_features": normal(8, 20)},
            num_mel_bins=8,
            max_source_positions=10,
            vocab_size=30,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
            **SMALL,
            **HEADS,
        ),
    },
}
