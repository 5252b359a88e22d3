"""Models of further kinds: mixing without attention, forecasting, segmentation, speech, and layers that reduce or choose."""

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F
from zoo_case import (
    BATCH,
    CONVOLUTION,
    EXPERTS,
    HEADS,
    HIDDEN,
    LAYERS,
    OTHER,
    SEQ,
    TRANSFORMER,
    VOCAB,
    WIDTH,
    Case,
    classified_tokens,
    floats,
    integers,
    labelled_tokens,
    padded_tokens,
)
from zoo_decoders import GROUPED, GROUPED_MM, MODERN
from zoo_decoders import case as decoder
from zoo_encoders import BART, BERT
from zoo_encoders import case as encoder

SPEECH = {
    **{name: value for name, value in BERT.items() if name != "max_position_embeddings"}, "conv_dim": [16, 16],
    "conv_stride": [5, 4], "conv_kernel": [10, 8], "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4, "mask_time_prob": 0.0, "layerdrop": 0.0, "classifier_proj_size": 32,
}  # fmt: skip
FORECAST = {
    "prediction_length": 4, "context_length": 8, "lags_sequence": [1, 2], "num_time_features": 2, "d_model": WIDTH,
    "encoder_layers": LAYERS, "decoder_layers": LAYERS, "encoder_attention_heads": HEADS, "decoder_attention_heads": HEADS,
    "encoder_ffn_dim": HIDDEN, "decoder_ffn_dim": HIDDEN, "encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0,
}  # fmt: skip


def forecaster() -> nn.Module:
    """Its loss is the likelihood under a Student t distribution."""
    return transformers.TimeSeriesTransformerForPrediction(transformers.TimeSeriesTransformerConfig(**FORECAST))


def series() -> dict[str, Tensor]:
    return {
        "past_values": floats(BATCH, 10).abs(), "past_time_features": floats(BATCH, 10, 2),
        "past_observed_mask": torch.ones(BATCH, 10), "future_values": floats(BATCH, 4).abs(),
        "future_time_features": floats(BATCH, 4, 2),
    }  # fmt: skip


def segment_anything() -> nn.Module:
    sizes = {"hidden_size": 32, "image_size": 32, "patch_size": 4}
    image = {**sizes, "mlp_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "output_channels": 32,
             "window_size": 4, "global_attn_indexes": [1], "num_pos_feats": 16}  # fmt: skip
    mask = {"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 4, "iou_head_hidden_dim": 32}
    config = transformers.SamConfig(
        vision_config=image, prompt_encoder_config={**sizes, "mask_input_channels": 4}, mask_decoder_config=mask
    )
    return transformers.SamModel(config)


def pointed_images() -> dict[str, Tensor]:
    points = torch.tensor([[[[3.0, 4.0]]], [[[10.0, 20.0]]]])
    return {
        "pixel_values": floats(2, 3, 32, 32), "input_points": points, "input_labels": torch.ones(2, 1, 1, dtype=torch.long)
    }  # fmt: skip


def segmented_images() -> dict[str, Tensor]:
    return {"pixel_values": floats(BATCH, 3, 32, 32), "labels": integers(8, BATCH, 32, 32)}


def windows() -> dict[str, Tensor]:
    return {"past_values": floats(BATCH, 16, 2), "future_values": floats(BATCH, 4, 2)}


def waves() -> dict[str, Tensor]:
    return {"input_values": floats(BATCH, 400), "labels": integers(2, BATCH)}


def spectra() -> dict[str, Tensor]:
    return {"input_features": floats(BATCH, 32, 16), "labels": integers(VOCAB, BATCH, SEQ // 2)}


class DenseLayer(nn.Module):
    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(channels), nn.Conv2d(channels, 4 * growth, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(4 * growth), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, parts: list[Tensor]) -> Tensor:
        x = self.conv1(F.relu(self.norm1(torch.cat(parts, 1))))
        return self.conv2(F.relu(self.norm2(x)))


class DenseNet(nn.Module):
    """Every layer reads what all before it made, by concatenation."""

    def __init__(self, growth: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.layers = nn.ModuleList(DenseLayer(16 + k * growth, growth) for k in range(3))
        self.norm, self.narrow = nn.BatchNorm2d(16 + 3 * growth), nn.Conv2d(16 + 3 * growth, 20, 1)
        self.head = nn.Linear(20, 10)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.stem(x)]
        for layer in self.layers:
            parts.append(layer(parts))
        y = F.avg_pool2d(self.narrow(F.relu(self.norm(torch.cat(parts, 1)))), 2)
        return self.head(torch.amax(y, (2, 3)))


class ConvolutionsThenLstm(nn.Module):
    """Speech: convolutions, a bidirectional LSTM with dropout between its layers, attention over time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(8, 32, 3, padding=1)
        self.network = nn.LSTM(32, 24, 2, batch_first=True, bidirectional=True, dropout=0.1)
        self.score, self.head = nn.Linear(48, 1), nn.Linear(48, 5)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        y = self.network(F.max_pool1d(F.relu(self.conv(x)), 2).transpose(1, 2))[0]
        weights = self.score(torch.tanh(y)).softmax(1)
        return F.cross_entropy(self.head((weights * y).sum(1)), label)


class VectorQuantiser(nn.Module):
    """The nearest entry of a code book, chosen by argmin, with a gradient that passes straight through."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(WIDTH, 32), nn.Linear(32, WIDTH)
        self.codes = nn.Parameter(torch.randn(24, 32))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.encoder(x)
        place = torch.cdist(z, self.codes.expand(z.shape[0], -1, -1)).argmin(-1)
        found = F.embedding(place, self.codes)
        loss = F.mse_loss(found, z.detach()) + 0.25 * F.mse_loss(z, found.detach())
        return loss + F.mse_loss(self.decoder(z + (found - z).detach()), x), place


class Reducer(nn.Module):
    """Maxout, standardised and normalised features, extremes over time and over features."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head, self.gate = nn.Linear(WIDTH, 96), nn.Linear(24, 8), nn.Linear(96, 4)

    def forward(self, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = self.layer(x)
        best = y.view(*y.shape[:-1], 24, 4).max(-1).values
        direction = y / y.norm(dim=-1, keepdim=True).clamp(min=1e-6)
        standard = (y - y.mean(-1, keepdim=True)) / (y.std(-1, keepdim=True) + 1e-5)
        spread, mean = torch.var_mean(y, 1)
        loss = F.cross_entropy(self.head(best).mean(1), label) + self.gate(y.amax(1)).square().mean()
        loss = loss + (standard * direction).mean() + torch.logsumexp(y, -1).mean() + (spread * mean).mean()
        return loss + y.amin(0).mean(), y.argmax(-1), (y > 0).any(-1)


def pictures() -> tuple[Tensor, ...]:
    return (floats(BATCH, 3, 16, 16),)


def sounds() -> tuple[Tensor, ...]:
    return floats(BATCH, 8, 12), integers(5, BATCH)


def vectors() -> tuple[Tensor, ...]:
    return (floats(BATCH, SEQ, WIDTH),)


def labelled_vectors() -> tuple[Tensor, ...]:
    return floats(BATCH, SEQ, WIDTH), integers(8, BATCH)


CASES = [
    encoder("fnet", "FNetConfig", "FNetForMaskedLM",
            {**BERT, "intermediate_size": 4 * WIDTH, "tpu_short_seq_length": SEQ}, labelled_tokens),
    encoder("xlnet", "XLNetConfig", "XLNetForSequenceClassification",
            {"vocab_size": VOCAB, "d_model": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "d_inner": HIDDEN, "num_labels": 2},
            classified_tokens),
    encoder("funnel", "FunnelConfig", "FunnelForMaskedLM",
            {"vocab_size": VOCAB, "block_sizes": [1, 1], "d_model": WIDTH, "n_head": HEADS, "d_head": 8, "d_inner": HIDDEN,
             "num_decoder_layers": 1}, padded_tokens),
    encoder("segformer", "SegformerConfig", "SegformerForSemanticSegmentation",
            {"num_encoder_blocks": 2, "depths": [1, 1], "sr_ratios": [4, 2], "hidden_sizes": [16, 32], "patch_sizes": [7, 3],
             "strides": [4, 2], "num_attention_heads": [2, 4], "mlp_ratios": [2, 2], "decoder_hidden_size": 32,
             "num_labels": 8}, segmented_images),
    encoder("hubert", "HubertConfig", "HubertForSequenceClassification", SPEECH, waves),
    encoder("speech2text", "Speech2TextConfig", "Speech2TextForConditionalGeneration",
            {**{name: value for name, value in BART.items() if name != "max_position_embeddings"},
             "max_source_positions": 64, "max_target_positions": 64, "input_feat_per_channel": 16, "conv_channels": 32,
             "num_conv_layers": 2}, spectra),
    encoder("patchtst", "PatchTSTConfig", "PatchTSTForPrediction",
            {"num_input_channels": 2, "context_length": 16, "patch_length": 4, "patch_stride": 4, "prediction_length": 4,
             "d_model": WIDTH, "num_attention_heads": HEADS, "num_hidden_layers": LAYERS, "ffn_dim": HIDDEN}, windows),
    Case("time-series-transformer", TRANSFORMER, forecaster, series),
    Case("segment-anything", TRANSFORMER, segment_anything, pointed_images),
    decoder("mpt", "Mpt", {"vocab_size": VOCAB, "d_model": WIDTH, "n_heads": HEADS, "n_layers": LAYERS, "max_seq_len": 64,
                           "expansion_ratio": 2}, padded=True),
    decoder("lfm2", "Lfm2", {**GROUPED, "layer_types": ["conv", "full_attention"], "conv_L_cache": 3}),
    decoder("deepseek_v2", "DeepseekV2",
            {**MODERN, "num_key_value_heads": HEADS, "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2,
             "moe_intermediate_size": 32, "q_lora_rank": 32, "kv_lora_rank": 16, "qk_rope_head_dim": 4,
             "qk_nope_head_dim": 8, "v_head_dim": 8, "first_k_dense_replace": 1}, kind=EXPERTS, dtype=GROUPED_MM),
    Case("densenet", CONVOLUTION, DenseNet, pictures),
    Case("convolutions-then-lstm", OTHER, ConvolutionsThenLstm, sounds),
    Case("vector-quantiser", OTHER, VectorQuantiser, vectors),
    Case("reductions", OTHER, Reducer, labelled_vectors),
]  # fmt: skip
