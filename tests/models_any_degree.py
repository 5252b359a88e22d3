"""A model file for tests: decoders from transformers with any numbers of heads, KV heads, columns and tokens."""

import torch
from torch import nn
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM


class Loss(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, labels):
        return self.model(input_ids=input_ids, labels=labels).loss


class Convolutions(nn.Module):
    """Seven channels."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 7, 3, padding=1), nn.Conv2d(7, 7, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(7), nn.Linear(7, 5)

    def forward(self, input_ids, labels):
        y = F.relu(self.norm(self.second(F.relu(self.first(input_ids)))))
        return F.cross_entropy(self.head(y.mean((2, 3))), labels)


def build_model(kind="qwen2", heads=14, kv=2, hidden=56, ffn=152, vocab=512, layers=1):
    if kind == "convolutions":
        return Convolutions()
    if kind == "gpt2":
        off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}
        config = GPT2Config(n_embd=hidden, n_layer=layers, n_head=heads, vocab_size=vocab, n_positions=64, **off)
        return Loss(GPT2LMHeadModel(config))
    config, model = {"qwen2": (Qwen2Config, Qwen2ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}[kind]
    return Loss(
        model(
            config(
                hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv,
                intermediate_size=ffn, vocab_size=vocab, use_cache=False,
            )
        )
    )  # fmt: skip


def example_inputs(kind="qwen2", vocab=512):
    generator = torch.Generator().manual_seed(0)
    if kind == "convolutions":
        return {"input_ids": torch.randn(4, 3, 8, 8, generator=generator), "labels": torch.tensor([0, 1, 2, 3])}
    ids = torch.randint(vocab, (2, 16), generator=generator)
    return {"input_ids": ids, "labels": ids.clone()}
