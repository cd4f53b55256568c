"""Tiny random models of the architectures that transformers knows, each built from its own config.

The weights are float32 and always the same. A model is built in well under a second: four layers of
width 256, a vocabulary of 512, and sliding windows of 64 tokens, which a test's prompts exceed.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from quantchat.wire.messages import LoadModel

VOCABULARY = 512
WINDOW = 64
"""Tokens of a sliding window, and of a chunk of chunked attention."""

_BASE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 8192,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "initializer_range": 0.06,
    "tie_word_embeddings": False,
}
_MOE: dict[str, Any] = {
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 128,
    "shared_expert_intermediate_size": 128,
    "moe_k": 2,
    "top_k": 2,
}
_MLA: dict[str, Any] = {
    "num_key_value_heads": 4,
    "q_lora_rank": 64,
    "kv_lora_rank": 64,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 32,
    "v_head_dim": 64,
    "head_dim": 32,
}
_LIN: dict[str, Any] = {
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "linear_num_key_heads": 4,
    "linear_num_value_heads": 8,
}
_MAMBA: dict[str, Any] = {
    "mamba_d_state": 16,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_d_head": 32,
    "mamba_n_heads": 16,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 64,
}


@dataclass(frozen=True)
class Architecture:
    """One of the architectures in transformers."""

    model_type: str
    models: str
    """Published models that have it."""
    settings: dict[str, Any]
    """What of its config differs from `_BASE`."""
    text_type: str = ""
    """Of a model that also sees or hears: the `model_type` of its language model, to which
    `settings` belong."""
    beside: Mapping[str, Any] = field(default_factory=dict)
    """The other keys of the config of such a model: vision or audio tower, special tokens."""


ARCHITECTURES = {
    "llama": Architecture("llama", "Llama 2/3", {}),
    "llama3_rope": Architecture(
        "llama",
        "Llama 3.1/3.2",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 2048,
            }
        },
    ),
    "llama_tied": Architecture("llama", "Llama 3.2 1B", {"tie_word_embeddings": True}),
    "mistral": Architecture("mistral", "Mistral 7B v0.3, Nemo", {"sliding_window": None}),
    "mistral_swa": Architecture("mistral", "Mistral 7B v0.1", {"sliding_window": WINDOW}),
    "mixtral": Architecture(
        "mixtral", "Mixtral 8x7B", {"num_local_experts": 4, "num_experts_per_tok": 2}
    ),
    "qwen2": Architecture("qwen2", "Qwen2.5", {"tie_word_embeddings": True}),
    "qwen2_swa": Architecture(
        "qwen2",
        "Qwen2 w. SWA",
        {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 2},
    ),
    "qwen2_moe": Architecture("qwen2_moe", "Qwen1.5-MoE", {**_MOE}),
    "qwen3": Architecture("qwen3", "Qwen3 0.6B-32B", {"tie_word_embeddings": True}),
    "qwen3_moe": Architecture("qwen3_moe", "Qwen3-30B-A3B", {**_MOE}),
    "qwen3_next": Architecture("qwen3_next", "Qwen3-Next, Qwen3-Coder-Next", {**_MOE, **_LIN}),
    "qwen3_5_text": Architecture("qwen3_5_text", "Qwen3.5 text", {**_LIN}),
    "gemma": Architecture("gemma", "Gemma 1", {"tie_word_embeddings": True}),
    "gemma2": Architecture(
        "gemma2",
        "Gemma 2",
        {"tie_word_embeddings": True, "sliding_window": WINDOW, "query_pre_attn_scalar": 64},
    ),
    "gemma3_text": Architecture(
        "gemma3_text",
        "Gemma 3 1B/270M",
        {
            "tie_word_embeddings": True,
            "sliding_window": WINDOW,
            "num_hidden_layers": 6,
            "query_pre_attn_scalar": 64,
        },
    ),
    "gemma3n_text": Architecture(
        "gemma3n_text",
        "Gemma 3n text",
        {
            "tie_word_embeddings": True,
            "sliding_window": WINDOW,
            "num_hidden_layers": 10,
            "num_kv_shared_layers": 5,
            "vocab_size_per_layer_input": VOCABULARY,
            "hidden_size_per_layer_input": 64,
            "laurel_rank": 16,
        },
    ),
    "gemma4_text": Architecture(
        "gemma4_text",
        "Gemma 4 text",
        {
            "global_head_dim": 128,
            "tie_word_embeddings": True,
            "sliding_window": WINDOW,
            "num_hidden_layers": 6,
            "layer_types": [
                "sliding_attention",
                "full_attention",
                "sliding_attention",
                "full_attention",
                "sliding_attention",
                "full_attention",
            ],
            "num_kv_shared_layers": 2,
            "vocab_size_per_layer_input": VOCABULARY,
            "hidden_size_per_layer_input": 64,
        },
    ),
    "phi": Architecture("phi", "Phi-1.5/2", {"num_key_value_heads": 4}),
    "phi3": Architecture("phi3", "Phi-3/4", {}),
    "phi3_swa": Architecture(
        "phi3", "Phi-3-mini 4k (sliding_window 2047)", {"sliding_window": WINDOW}
    ),
    "phi3_longrope": Architecture(
        "phi3",
        "Phi-3.5/Phi-4-mini 128k",
        {
            "max_position_embeddings": 4096,
            "original_max_position_embeddings": 512,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "short_factor": [
                    1.0,
                    1.0,
                    1.0,
                    1.0,
                    1.0,
                    1.0,
                    1.0,
                    1.0,
                    1.0,
                    1.0,
                    1.0,
                    1.0,
                    1.0,
                    1.0,
                    1.0,
                    1.0,
                    1.0,
                    1.0,
                    1.0,
                    1.0,
                    1.0,
                    1.0,
                    1.0,
                    1.0,
                    1.0,
                    1.0,
                    1.0,
                    1.0,
                    1.0,
                    1.0,
                    1.0,
                    1.0,
                ],
                "long_factor": [
                    2.0,
                    2.0,
                    2.0,
                    2.0,
                    2.0,
                    2.0,
                    2.0,
                    2.0,
                    2.0,
                    2.0,
                    2.0,
                    2.0,
                    2.0,
                    2.0,
                    2.0,
                    2.0,
                    2.0,
                    2.0,
                    2.0,
                    2.0,
                    2.0,
                    2.0,
                    2.0,
                    2.0,
                    2.0,
                    2.0,
                    2.0,
                    2.0,
                    2.0,
                    2.0,
                    2.0,
                    2.0,
                ],
                "original_max_position_embeddings": 512,
            },
        },
    ),
    "phimoe": Architecture("phimoe", "Phi-3.5-MoE", {**_MOE}),
    "gpt2": Architecture(
        "gpt2", "GPT-2", {"n_embd": 256, "n_layer": 4, "n_head": 4, "n_positions": 2048}
    ),
    "gpt_neo": Architecture(
        "gpt_neo",
        "GPT-Neo",
        {
            "hidden_size": 256,
            "num_layers": 4,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 2]],
            "window_size": WINDOW,
            "max_position_embeddings": 2048,
        },
    ),
    "gpt_neox": Architecture("gpt_neox", "Pythia", {"num_attention_heads": 4}),
    "gptj": Architecture(
        "gptj",
        "GPT-J",
        {"n_embd": 256, "n_layer": 4, "n_head": 4, "n_positions": 2048, "rotary_dim": 32},
    ),
    "opt": Architecture(
        "opt", "OPT", {"ffn_dim": 512, "word_embed_proj_dim": 256, "max_position_embeddings": 2048}
    ),
    "bloom": Architecture("bloom", "BLOOM", {"n_layer": 4, "n_head": 4}),
    "mpt": Architecture(
        "mpt", "MPT", {"d_model": 256, "n_layers": 4, "n_heads": 4, "max_seq_len": 2048}
    ),
    "falcon": Architecture(
        "falcon",
        "Falcon 7B",
        {"multi_query": True, "parallel_attn": True, "bias": False, "alibi": False},
    ),
    "falcon_new": Architecture(
        "falcon",
        "Falcon 40B, Falcon2",
        {"new_decoder_architecture": True, "num_kv_heads": 2, "parallel_attn": True, "bias": False},
    ),
    "falcon_h1": Architecture("falcon_h1", "Falcon-H1", {**_MAMBA, "mamba_d_ssm": 512}),
    "falcon_mamba": Architecture("falcon_mamba", "Falcon-Mamba", {"state_size": 16}),
    "mamba": Architecture("mamba", "Mamba", {"state_size": 16}),
    "mamba2": Architecture(
        "mamba2",
        "Mamba-2, Codestral Mamba",
        {"state_size": 16, "num_heads": 16, "head_dim": 32, "n_groups": 1, "chunk_size": 64},
    ),
    "jamba": Architecture(
        "jamba",
        "Jamba",
        {
            **_MOE,
            "mamba_d_state": 16,
            "mamba_dt_rank": 16,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "use_mamba_kernels": False,
        },
    ),
    "bamba": Architecture("bamba", "Bamba", {**_MAMBA, "attn_layer_indices": [1, 3]}),
    "zamba2": Architecture(
        "zamba2",
        "Zamba2",
        {
            "mamba_d_state": 16,
            "mamba_headdim": 32,
            "n_mamba_heads": 16,
            "mamba_ngroups": 1,
            "chunk_size": 64,
            "num_hidden_layers": 6,
            "layer_types": ["mamba", "mamba", "hybrid", "mamba", "mamba", "hybrid"],
            "hybrid_layer_ids": [2, 5],
            "num_mem_blocks": 1,
            "attention_head_dim": 128,
            "attention_hidden_size": 512,
            "num_key_value_heads": 4,
            "adapter_rank": 16,
        },
    ),
    "recurrent_gemma": Architecture(
        "recurrent_gemma",
        "RecurrentGemma",
        {
            "attention_window_size": WINDOW,
            "num_hidden_layers": 3,
            "lru_width": 256,
            "tie_word_embeddings": True,
        },
    ),
    "granite": Architecture(
        "granite",
        "Granite 3.x",
        {
            "embedding_multiplier": 12.0,
            "logits_scaling": 8.0,
            "attention_multiplier": 0.015625,
            "residual_multiplier": 0.22,
        },
    ),
    "granitemoe": Architecture(
        "granitemoe", "Granite 3 MoE", {"num_local_experts": 4, "num_experts_per_tok": 2}
    ),
    "granitemoehybrid": Architecture(
        "granitemoehybrid",
        "Granite 4 H",
        {
            **_MAMBA,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "shared_intermediate_size": 256,
            "layer_types": ["mamba", "attention", "mamba", "attention"],
        },
    ),
    "lfm2": Architecture(
        "lfm2",
        "LFM2",
        {
            "layer_types": ["conv", "full_attention", "conv", "full_attention"],
            "block_auto_adjust_ff_dim": False,
        },
    ),
    "lfm2_moe": Architecture(
        "lfm2_moe",
        "LFM2-8B-A1B",
        {
            **_MOE,
            "layer_types": ["conv", "full_attention", "conv", "full_attention"],
            "num_dense_layers": 1,
        },
    ),
    "olmo": Architecture("olmo", "OLMo 1", {}),
    "olmo2": Architecture("olmo2", "OLMo 2", {}),
    "olmo3": Architecture("olmo3", "OLMo 3", {"sliding_window": WINDOW}),
    "olmoe": Architecture("olmoe", "OLMoE", {"num_experts": 4, "num_experts_per_tok": 2}),
    "olmo_hybrid": Architecture("olmo_hybrid", "OLMo hybrid", {**_LIN}),
    "deepseek_v2": Architecture(
        "deepseek_v2",
        "DeepSeek-V2-Lite",
        {
            **_MOE,
            **_MLA,
            "n_group": 1,
            "topk_group": 1,
            "n_shared_experts": 1,
            "first_k_dense_replace": 1,
            "topk_method": "greedy",
        },
    ),
    "deepseek_v3": Architecture(
        "deepseek_v3",
        "DeepSeek-V3/R1, Kimi K2, Moonlight",
        {
            **_MOE,
            **_MLA,
            "n_group": 1,
            "topk_group": 1,
            "n_shared_experts": 1,
            "first_k_dense_replace": 1,
        },
    ),
    "deepseek_v32": Architecture(
        "deepseek_v32",
        "DeepSeek-V3.2",
        {
            **_MOE,
            **_MLA,
            "n_group": 1,
            "topk_group": 1,
            "n_shared_experts": 1,
            "first_k_dense_replace": 1,
            "index_topk": 32,
            "index_head_dim": 64,
            "index_n_heads": 4,
        },
    ),
    "deepseek_v4": Architecture("deepseek_v4", "DeepSeek-V4", {**_MOE}),
    "glm": Architecture("glm", "GLM-4-9B", {}),
    "glm4": Architecture("glm4", "GLM-4-0414", {}),
    "glm4_moe": Architecture(
        "glm4_moe",
        "GLM-4.5/4.6/4.7",
        {**_MOE, "n_group": 1, "topk_group": 1, "n_shared_experts": 1, "first_k_dense_replace": 1},
    ),
    "glm4_moe_lite": Architecture(
        "glm4_moe_lite",
        "GLM-4.7-Flash",
        {
            **_MOE,
            **_MLA,
            "n_group": 1,
            "topk_group": 1,
            "n_shared_experts": 1,
            "first_k_dense_replace": 1,
        },
    ),
    "glm_moe_dsa": Architecture(
        "glm_moe_dsa",
        "GLM-5",
        {
            **_MOE,
            **_MLA,
            "n_group": 1,
            "topk_group": 1,
            "n_shared_experts": 1,
            "first_k_dense_replace": 1,
            "index_topk": 32,
            "index_head_dim": 64,
            "index_n_heads": 4,
        },
    ),
    "gpt_oss": Architecture(
        "gpt_oss",
        "gpt-oss",
        {
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "intermediate_size": 256,
            "sliding_window": WINDOW,
            "layer_types": [
                "sliding_attention",
                "full_attention",
                "sliding_attention",
                "full_attention",
            ],
        },
    ),
    "smollm3": Architecture("smollm3", "SmolLM3", {"tie_word_embeddings": True}),
    "starcoder2": Architecture("starcoder2", "StarCoder2", {"sliding_window": WINDOW}),
    "gpt_bigcode": Architecture(
        "gpt_bigcode",
        "StarCoder",
        {"n_embd": 256, "n_layer": 4, "n_head": 4, "n_positions": 2048, "n_inner": 512},
    ),
    "stablelm": Architecture("stablelm", "StableLM 2", {}),
    "cohere": Architecture("cohere", "Command-R", {"tie_word_embeddings": True}),
    "cohere2": Architecture(
        "cohere2", "Command-R7B, Command-A", {"tie_word_embeddings": True, "sliding_window": WINDOW}
    ),
    "ministral": Architecture("ministral", "Ministral 8B 2410", {"sliding_window": WINDOW}),
    "ministral3": Architecture("ministral3", "Ministral 3 text", {}),
    "llama4_text": Architecture(
        "llama4_text",
        "Llama 4 text",
        {
            "num_local_experts": 4,
            "intermediate_size": 256,
            "intermediate_size_mlp": 512,
            "attention_chunk_size": WINDOW,
            "layer_types": [
                "chunked_attention",
                "chunked_attention",
                "chunked_attention",
                "full_attention",
            ],
            "no_rope_layers": [1, 1, 1, 0],
        },
    ),
    "minimax": Architecture(
        "minimax",
        "MiniMax-Text-01/M1",
        {
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "layer_types": [
                "full_attention",
                "linear_attention",
                "full_attention",
                "linear_attention",
            ],
            "block_size": 64,
        },
    ),
    "minimax_m2": Architecture(
        "minimax_m2", "MiniMax-M2", {"num_local_experts": 4, "num_experts_per_tok": 2}
    ),
    "kimi_linear": Architecture(
        "kimi_linear",
        "Kimi-Linear",
        {
            **_MOE,
            **_MLA,
            "linear_head_dim": 32,
            "linear_num_heads": 4,
            "layer_types": [
                "linear_attention",
                "full_attention",
                "linear_attention",
                "full_attention",
            ],
        },
    ),
    "nemotron": Architecture("nemotron", "Minitron, Nemotron-4", {}),
    "nemotron_h": Architecture(
        "nemotron_h",
        "Nemotron-H / Nemotron 3 Nano",
        {
            **_MOE,
            "mamba_num_heads": 16,
            "mamba_head_dim": 32,
            "ssm_state_size": 16,
            "n_groups": 1,
            "chunk_size": 64,
            "hybrid_override_pattern": "M*E-",
            "n_group": 1,
            "topk_group": 1,
            "moe_shared_expert_intermediate_size": 128,
        },
    ),
    "ernie4_5": Architecture("ernie4_5", "ERNIE 4.5 0.3B", {}),
    "ernie4_5_moe": Architecture("ernie4_5_moe", "ERNIE 4.5 21B-A3B", {**_MOE}),
    "hunyuan_v1_dense": Architecture("hunyuan_v1_dense", "Hunyuan dense", {}),
    "hunyuan_v1_moe": Architecture("hunyuan_v1_moe", "Hunyuan A13B", {**_MOE, "moe_topk": 2}),
    "seed_oss": Architecture("seed_oss", "Seed-OSS-36B", {}),
    "exaone4": Architecture(
        "exaone4", "EXAONE 4", {"sliding_window": WINDOW, "sliding_window_pattern": 4}
    ),
    "apertus": Architecture("apertus", "Apertus", {}),
    "dots1": Architecture(
        "dots1",
        "dots.llm1",
        {**_MOE, "n_group": 1, "topk_group": 1, "n_shared_experts": 1, "first_k_dense_replace": 1},
    ),
    "arcee": Architecture("arcee", "AFM-4.5B", {}),
    "afmoe": Architecture("afmoe", "Trinity", {**_MOE, "sliding_window": WINDOW}),
    "mimo_v2_flash": Architecture(
        "mimo_v2_flash",
        "MiMo-V2-Flash",
        {**_MOE, "sliding_window": WINDOW, "n_group": 1, "topk_group": 1},
    ),
    "minicpm3": Architecture("minicpm3", "MiniCPM3", {**_MLA}),
    "helium": Architecture("helium", "Helium", {}),
    "solar_open": Architecture(
        "solar_open", "Solar Open", {**_MOE, "n_group": 1, "topk_group": 1, "n_shared_experts": 1}
    ),
    "internlm3": Architecture("internlm3", "InternLM3", {}),
    "laguna": Architecture("laguna", "Laguna", {**_MOE}),
    "vaultgemma": Architecture(
        "vaultgemma", "VaultGemma", {"sliding_window": WINDOW, "query_pre_attn_scalar": 64}
    ),
    "longcat_flash": Architecture(
        "longcat_flash",
        "LongCat-Flash",
        {
            **_MLA,
            "n_routed_experts": 4,
            "zero_expert_num": 2,
            "moe_topk": 2,
            "expert_ffn_hidden_size": 128,
            "ffn_hidden_size": 512,
            "num_layers": 2,
            "num_hidden_layers": 4,
        },
    ),
    "hy_v3": Architecture("hy_v3", "Hunyuan v3", {**_MOE}),
    "dbrx": Architecture(
        "dbrx",
        "DBRX",
        {
            "d_model": 256,
            "n_heads": 4,
            "n_layers": 4,
            "max_seq_len": 2048,
            "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 500000.0},
            "ffn_config": {
                "ffn_hidden_size": 256,
                "moe_num_experts": 4,
                "moe_top_k": 2,
                "hidden_size": 256,
            },
        },
    ),
    "bitnet_arch": Architecture("bitnet", "BitNet b1.58 (bf16 master)", {}),
    "modernbert_decoder": Architecture(
        "modernbert-decoder", "Ettin decoder", {"local_attention": WINDOW}
    ),
    "rwkv": Architecture("rwkv", "RWKV-4", {"attention_hidden_size": 256}),
    "xlstm": Architecture("xlstm", "xLSTM 7B", {"num_heads": 4}),
    "nanochat": Architecture("nanochat", "nanochat", {}),
    "persimmon": Architecture("persimmon", "Persimmon", {}),
    "codegen": Architecture(
        "codegen",
        "CodeGen",
        {
            "n_embd": 256,
            "n_layer": 4,
            "n_head": 4,
            "n_positions": 2048,
            "n_ctx": 2048,
            "rotary_dim": 32,
        },
    ),
}

_VISION = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
}
_QWEN_VISION = {
    "depth": 2,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_heads": 2,
    "out_hidden_size": 256,
}
_QWEN_TOKENS = {
    "image_token_id": 500,
    "video_token_id": 501,
    "vision_start_token_id": 502,
    "vision_end_token_id": 503,
}


def _qwen_rope(*sections: int) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": 1e6, "mrope_section": list(sections)}


# Models that also see or hear, of which quantchat uses the language model.
ARCHITECTURES |= {
    "qwen2_5_vl": Architecture(
        "qwen2_5_vl",
        "Qwen2.5-VL",
        {"rope_parameters": _qwen_rope(8, 12, 12)},
        "qwen2_5_vl_text",
        {"vision_config": {**_QWEN_VISION, "fullatt_block_indexes": [1]}, **_QWEN_TOKENS},
    ),
    "qwen3_vl": Architecture(
        "qwen3_vl",
        "Qwen3-VL",
        {"rope_parameters": {**_qwen_rope(12, 10, 10), "mrope_interleaved": True}},
        "qwen3_vl_text",
        {"vision_config": {**_QWEN_VISION, "deepstack_visual_indexes": [0]}, **_QWEN_TOKENS},
    ),
    "gemma3": Architecture(
        "gemma3",
        "Gemma 3 4B-27B",
        {"tie_word_embeddings": True, "sliding_window": WINDOW, "query_pre_attn_scalar": 64},
        "gemma3_text",
        {
            "vision_config": {**_VISION, "model_type": "siglip_vision_model"},
            "mm_tokens_per_image": 4,
            "image_token_index": 500,
            "boi_token_index": 501,
            "eoi_token_index": 502,
        },
    ),
    "mistral3": Architecture(
        "mistral3",
        "Mistral Small 3.1/3.2, Devstral",
        {"sliding_window": None},
        "mistral",
        {
            "vision_config": {**_VISION, "model_type": "pixtral", "head_dim": 32},
            "image_token_index": 10,
            "tie_word_embeddings": False,
        },
    ),
    "ministral3_mm": Architecture(
        "mistral3",
        "Ministral 3",
        {},
        "ministral3",
        {
            "vision_config": {**_VISION, "model_type": "pixtral", "head_dim": 32},
            "image_token_index": 10,
            "tie_word_embeddings": False,
        },
    ),
    "llava": Architecture(
        "llava",
        "LLaVA 1.5",
        {},
        "llama",
        {
            "vision_config": {**_VISION, "model_type": "clip_vision_model"},
            "image_token_index": 500,
        },
    ),
    "internvl": Architecture(
        "internvl",
        "InternVL3",
        {},
        "qwen2",
        {
            "vision_config": {**_VISION, "image_size": [56, 56], "patch_size": [14, 14]},
            "image_token_id": 500,
        },
    ),
    "smolvlm": Architecture(
        "smolvlm",
        "SmolVLM",
        {},
        "llama",
        {
            "vision_config": {**_VISION, "model_type": "smolvlm_vision"},
            "image_token_id": 500,
            "scale_factor": 2,
        },
    ),
    "paligemma": Architecture(
        "paligemma",
        "PaliGemma",
        {},
        "gemma",
        {
            "vision_config": {
                **_VISION,
                "model_type": "siglip_vision_model",
                "projection_dim": 256,
            },
            "image_token_index": 500,
            "projection_dim": 256,
            "hidden_size": 256,
        },
    ),
    "voxtral": Architecture(
        "voxtral",
        "Voxtral",
        {},
        "llama",
        {
            "audio_config": {
                "hidden_size": 64,
                "intermediate_size": 256,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
            },
            "audio_token_id": 24,
        },
    ),
}

_OWN_NAMES = ("gpt2", "gptj", "mpt", "dbrx", "gpt_bigcode", "codegen")
"""Model types whose configs have names of their own for sizes."""
_NO_HEAD_DIM = (
    *("bloom", "rwkv", "mamba", "mamba2", "falcon_mamba", "falcon", "gpt_neox", "gpt_neo", "opt"),
    *("phi", "stablelm", "xlstm", "persimmon"),
)
"""Model types that work out the head's size."""


def tiny_model(name: str, **more: Any) -> Any:
    """Return the model `ARCHITECTURES[name]`, of the class that a worker loads.

    Raises what transformers raises. `more` goes to the model's config.
    """
    import torch

    from quantchat.worker.model.loaded import auto_class

    torch.manual_seed(0)
    config = tiny_config(name, **more)
    loader = auto_class(LoadModel("transformers", "", {}), config)
    return loader.from_config(config, dtype=torch.float32).eval()


def tiny_config(name: str, **more: Any) -> Any:
    """Its config, with nothing in it that it does not know."""
    from transformers import CONFIG_MAPPING

    architecture = ARCHITECTURES[name]
    if architecture.text_type:
        text = {**_BASE, "model_type": architecture.text_type, **architecture.settings, **more}
        whole = CONFIG_MAPPING[architecture.model_type]
        return whole(text_config=text, **architecture.beside)
    kind = architecture.model_type
    base = dict(_BASE)
    if kind in _OWN_NAMES:
        names = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id", "initializer_range")
        base = {name: _BASE[name] for name in names}
    elif kind in _NO_HEAD_DIM:
        del base["head_dim"]
    config = CONFIG_MAPPING[kind]
    known: set[str] = {
        *inspect.signature(config.__init__).parameters,
        *getattr(config, "__dataclass_fields__", ()),
        *getattr(config, "attribute_map", ()),
        *("initializer_range", "rope_parameters", "hybrid_override_pattern"),
        *("sliding_window_pattern", "hybrid_layer_ids"),
    }
    own = {**architecture.settings, **more}
    if "kwargs" in known:
        known |= own.keys()
    return config(**{key: value for key, value in {**base, **own}.items() if key in known})
