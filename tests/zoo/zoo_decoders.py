"""Causal language models from transformers."""

from functools import partial
from typing import Any

import torch
import transformers
from torch import nn
from zoo_case import (
    EXPERTS,
    HEADS,
    HIDDEN,
    LAYERS,
    OTHER,
    TRANSFORMER,
    VOCAB,
    WIDTH,
    Case,
    labelled_tokens,
    padded_tokens,
)

MODERN = {
    "vocab_size": VOCAB, "hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GROUPED = {**MODERN, "num_key_value_heads": 4}
CLASSIC = {"vocab_size": VOCAB, "n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_positions": 64, "bos_token_id": 1,
           "eos_token_id": 2}  # fmt: skip
EXPERT = {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}
GROUPED_MM = torch.float32  # torch has no grouped matmul of doubles


def causal(prefix: str, options: dict[str, Any]) -> nn.Module:
    """`<prefix>ForCausalLM` of a `<prefix>Config`, in eager mode of its attention where `options` say so."""
    options = dict(options)
    attention = options.pop("attention", None)
    config = getattr(transformers, f"{prefix}Config")(**options)
    if attention:
        config._attn_implementation = attention
    suffix = "LMHeadModel" if prefix == "GPT2" else "ForCausalLM"
    model: nn.Module = getattr(transformers, prefix.removesuffix("Text") + suffix)(config)
    return model


def case(
    name: str,
    prefix: str,
    options: dict[str, Any],
    *,
    kind: str = TRANSFORMER,
    padded: bool = False,
    dtype: torch.dtype = torch.float64,
) -> Case:
    return Case(name, kind, partial(causal, prefix, options), padded_tokens if padded else labelled_tokens, dtype)


CASES = [
    case("llama", "Llama", GROUPED),
    case("llama-padded", "Llama", GROUPED, padded=True),
    case("llama-eager", "Llama", {**GROUPED, "attention": "eager"}, padded=True),
    case("qwen2", "Qwen2", GROUPED, padded=True),
    case("qwen3", "Qwen3", {**GROUPED, "head_dim": 8}),
    case("mistral", "Mistral", {**GROUPED, "sliding_window": 8}),
    case("gpt2", "GPT2", CLASSIC),
    case("gpt2-padded", "GPT2", CLASSIC, padded=True),
    case("gpt_neox", "GPTNeoX", MODERN, padded=True),
    case("gptj", "GPTJ", {**CLASSIC, "rotary_dim": 4}),
    case("bloom", "Bloom", {"vocab_size": VOCAB, "hidden_size": WIDTH, "n_layer": LAYERS, "n_head": HEADS}, padded=True),
    case("opt", "OPT", {**MODERN, "ffn_dim": HIDDEN, "word_embed_proj_dim": WIDTH}, padded=True),
    case("phi", "Phi", MODERN),
    case("phi3", "Phi3", GROUPED),
    case("falcon-mqa", "Falcon", {**MODERN, "multi_query": True, "new_decoder_architecture": False, "alibi": False}),
    case("falcon", "Falcon", {**MODERN, "new_decoder_architecture": True, "num_kv_heads": 4, "alibi": False}, padded=True),
    case("gemma2", "Gemma2", {**GROUPED, "head_dim": 8, "sliding_window": 8}),
    case("gemma3", "Gemma3Text", {**GROUPED, "head_dim": 8, "sliding_window": 8}),
    case("gpt_bigcode", "GPTBigCode", CLASSIC),
    case("stablelm", "StableLm", GROUPED),
    case("olmo2", "Olmo2", GROUPED, padded=True),
    case("starcoder2", "Starcoder2", GROUPED),
    case("cohere", "Cohere", GROUPED),
    case("mixtral", "Mixtral", EXPERT, kind=EXPERTS, dtype=GROUPED_MM),
    case("mixtral-batched", "Mixtral",
         {**EXPERT, "experts_implementation": "batched_mm"}, kind=EXPERTS),
    case("qwen3_moe", "Qwen3Moe",
         {**GROUPED, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 8},
         kind=EXPERTS, dtype=GROUPED_MM),
    case("gpt_oss", "GptOss",
         {**EXPERT, "head_dim": 8, "sliding_window": 8}, kind=EXPERTS, dtype=GROUPED_MM),
    case("deepseek_v3", "DeepseekV3",
         {**MODERN, "num_key_value_heads": HEADS, "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2,
          "moe_intermediate_size": 32, "q_lora_rank": 32, "kv_lora_rank": 16, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8,
          "v_head_dim": 8, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}, kind=EXPERTS, dtype=GROUPED_MM),
    case("mamba", "Mamba", {"vocab_size": VOCAB, "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "state_size": 8},
         kind=OTHER),
    case("mamba2", "Mamba2", {"vocab_size": VOCAB, "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "state_size": 8,
                              "num_heads": 16, "head_dim": 8, "n_groups": 4, "chunk_size": 8}, kind=OTHER),
]  # fmt: skip
