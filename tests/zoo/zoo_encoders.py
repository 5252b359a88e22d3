"""Encoders and encoder-decoders from transformers: text, speech, images, and both."""

from functools import partial
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from zoo_case import (
    BATCH,
    CONVOLUTION,
    HEADS,
    HIDDEN,
    LAYERS,
    SEQ,
    TRANSFORMER,
    VOCAB,
    WIDTH,
    Case,
    classified_tokens,
    floats,
    integers,
    padded_tokens,
    padding,
)  # fmt: skip

BERT = {
    "vocab_size": VOCAB, "hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS, "max_position_embeddings": 64, "num_labels": 2,
}  # fmt: skip
T5 = {"vocab_size": VOCAB, "d_model": WIDTH, "d_kv": 8, "d_ff": HIDDEN, "num_layers": LAYERS, "num_heads": HEADS,
      "decoder_start_token_id": 0}  # fmt: skip
BART = {
    "vocab_size": VOCAB, "d_model": WIDTH, "encoder_layers": LAYERS, "decoder_layers": LAYERS, "encoder_ffn_dim": HIDDEN,
    "decoder_ffn_dim": HIDDEN, "encoder_attention_heads": HEADS, "decoder_attention_heads": HEADS,
    "max_position_embeddings": 64,
}  # fmt: skip
IMAGE = {"hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
         "image_size": 16, "patch_size": 4, "num_labels": 8}  # fmt: skip


def build(config: str, model: str, options: dict[str, Any]) -> nn.Module:
    made: nn.Module = getattr(transformers, model)(getattr(transformers, config)(**options))
    return made


def sequences() -> dict[str, Tensor]:
    """Padded source sequences and target sequences of another length."""
    labels = integers(VOCAB, BATCH, SEQ // 2)
    return {"input_ids": integers(VOCAB, BATCH, SEQ), "attention_mask": padding(), "labels": labels}


def images() -> dict[str, Tensor]:
    return {"pixel_values": floats(BATCH, 3, 16, 16), "labels": integers(8, BATCH)}


def speech() -> dict[str, Tensor]:
    return {"input_features": floats(BATCH, 16, 32), "labels": integers(VOCAB, BATCH, SEQ // 2)}


def captions() -> dict[str, Any]:
    ids = integers(VOCAB - 1, BATCH, SEQ)
    ids[:, -1] = VOCAB - 1  # the end of a text, whose position is that of the highest token
    return {
        "input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": floats(BATCH, 3, 16, 16),
        "return_loss": True,
    }  # fmt: skip


def clip() -> nn.Module:
    text = {**BERT, "projection_dim": 32, "eos_token_id": VOCAB - 1}
    config = transformers.CLIPConfig(text_config=text, vision_config={**IMAGE, "projection_dim": 32}, projection_dim=32)
    return transformers.CLIPModel(config)


def case(name: str, config: str, model: str, options: dict[str, Any], inputs: Any, kind: str = TRANSFORMER) -> Case:
    return Case(name, kind, partial(build, config, model, options), inputs)


CASES = [
    case("bert", "BertConfig", "BertForSequenceClassification", BERT, classified_tokens),
    case("bert-mlm", "BertConfig", "BertForMaskedLM", BERT, padded_tokens),
    case("roberta", "RobertaConfig", "RobertaForMaskedLM", BERT, padded_tokens),
    case("albert", "AlbertConfig", "AlbertForMaskedLM", {**BERT, "embedding_size": 16}, padded_tokens),
    case("electra", "ElectraConfig", "ElectraForSequenceClassification", {**BERT, "embedding_size": 16}, classified_tokens),
    case("distilbert", "DistilBertConfig", "DistilBertForSequenceClassification",
         {"vocab_size": VOCAB, "dim": WIDTH, "hidden_dim": HIDDEN, "n_layers": LAYERS, "n_heads": HEADS}, classified_tokens),
    case("deberta_v2", "DebertaV2Config", "DebertaV2ForSequenceClassification",
         {**BERT, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8,
          "problem_type": "single_label_classification"}, classified_tokens),
    case("t5", "T5Config", "T5ForConditionalGeneration", T5, sequences),
    case("t5-gated", "T5Config", "T5ForConditionalGeneration",
         {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}, sequences),
    case("bart", "BartConfig", "BartForConditionalGeneration", BART, sequences),
    case("pegasus", "PegasusConfig", "PegasusForConditionalGeneration", BART, sequences),
    case("whisper", "WhisperConfig", "WhisperForConditionalGeneration",
         {**BART, "num_mel_bins": 16, "max_source_positions": 16, "max_target_positions": 32, "pad_token_id": 0,
          "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1, "suppress_tokens": None,
          "begin_suppress_tokens": None}, speech),
    case("vit", "ViTConfig", "ViTForImageClassification", IMAGE, images),
    case("dinov2", "Dinov2Config", "Dinov2ForImageClassification", {**IMAGE, "mlp_ratio": 2}, images),
    case("swin", "SwinConfig", "SwinForImageClassification",
         {"image_size": 16, "patch_size": 2, "embed_dim": 32, "depths": [2, 2], "num_heads": [4, 8], "window_size": 4,
          "num_labels": 8}, images),
    case("convnext", "ConvNextConfig", "ConvNextForImageClassification",
         {"hidden_sizes": [16, 32], "depths": [1, 1], "num_stages": 2, "image_size": 16, "num_labels": 8}, images,
         kind=CONVOLUTION),
    Case("clip", TRANSFORMER, clip, captions),
]  # fmt: skip
