"""Writes the model as a Hugging Face folder."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from model import Qwen3
from tokenizer import CHAT_TEMPLATE, END_OF_TEXT, IM_END, IM_START


def export(model: Qwen3, tokenizer: Tokenizer, folder: Path) -> None:
    """`config.json`, `generation_config.json`, `model.safetensors` in bf16 and the tokenizer's files."""
    folder.mkdir(parents=True, exist_ok=True)
    c = model.config
    end_of_text, im_end = tokenizer.token_to_id(END_OF_TEXT), tokenizer.token_to_id(IM_END)
    shape = c.to_dict()
    theta = shape.pop("rope_theta")
    _json(
        folder / "config.json",
        {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            **shape,
            "rope_theta": theta,
            "rope_scaling": None,
            "hidden_act": "silu",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "initializer_range": 0.02,
            "tie_word_embeddings": True,
            "use_cache": True,
            "use_sliding_window": False,
            "sliding_window": None,
            "max_window_layers": c.num_hidden_layers,
            "bos_token_id": None,
            "eos_token_id": im_end,
            "pad_token_id": end_of_text,
            "torch_dtype": "bfloat16",
        },
    )
    _json(
        folder / "generation_config.json",
        {
            "do_sample": True,
            "temperature": 0.7,
            "top_p": 0.9,
            "eos_token_id": [im_end, end_of_text],
            "pad_token_id": end_of_text,
        },
    )
    _json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": None,
            "eos_token": IM_END,
            "pad_token": END_OF_TEXT,
            "unk_token": None,
            "additional_special_tokens": [IM_START, IM_END],
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": c.max_position_embeddings,
            "chat_template": CHAT_TEMPLATE,
        },
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    tensors = {
        f"model.{name}": tensor.detach().to("cpu", torch.bfloat16).contiguous()
        for name, tensor in model.named_parameters()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
