"""Text encoders: poolers, attention modes, instruction templates, the multi-exit ladder, situated context."""

from isometry.encoders.text.attention_mode import attention_mode, find_backbone, set_attention_mode
from isometry.encoders.text.attention_pooling import AttentionPooling, CrossAttention
from isometry.encoders.text.chunk_residual import ChunkResidual, residual_pair
from isometry.encoders.text.exits import (
    encode_exits,
    evaluate_grid,
    exit_vectors,
    heat_map,
    layer_count,
    save_truncated,
    truncate,
)
from isometry.encoders.text.ladder import STARBUCKS, Ladder, Size, geometric_widths
from isometry.encoders.text.layer_pooling import MultiLayerPooling, keep_hidden_states
from isometry.encoders.text.load import load_text_model
from isometry.encoders.text.pooling import last_token_pool, mean_pool, weighted_mean_pool, without_prompt
from isometry.encoders.text.situated import (
    CONNECTOR,
    ResidualPair,
    chunk_sentences,
    context_block,
    late_chunks,
    marker_states,
    situate,
)
from isometry.encoders.text.templates import KALM, NV_EMBED, Example, InContextTemplate, InstructionTemplate
from isometry.encoders.trust import refuse_foreign_code

__all__ = [
    "CONNECTOR",
    "KALM",
    "NV_EMBED",
    "STARBUCKS",
    "AttentionPooling",
    "ChunkResidual",
    "CrossAttention",
    "Example",
    "InContextTemplate",
    "InstructionTemplate",
    "Ladder",
    "MultiLayerPooling",
    "ResidualPair",
    "Size",
    "attention_mode",
    "chunk_sentences",
    "context_block",
    "encode_exits",
    "evaluate_grid",
    "exit_vectors",
    "find_backbone",
    "geometric_widths",
    "heat_map",
    "keep_hidden_states",
    "last_token_pool",
    "late_chunks",
    "layer_count",
    "load_text_model",
    "marker_states",
    "mean_pool",
    "refuse_foreign_code",
    "residual_pair",
    "save_truncated",
    "set_attention_mode",
    "situate",
    "truncate",
    "weighted_mean_pool",
    "without_prompt",
]
