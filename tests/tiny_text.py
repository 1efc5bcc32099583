"""Tiny random text models of the real classes, built in memory: a word-level vocabulary, 4 layers, 32 dimensions."""

from __future__ import annotations

from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.base.modules.normalize import Normalize
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    MistralConfig,
    MistralModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2Model,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3Model,
    XLMRobertaConfig,
    XLMRobertaModel,
)

ENCODERS = {"bert": (BertConfig, BertModel), "xlm-roberta": (XLMRobertaConfig, XLMRobertaModel)}
POSITIONS = {"bert": 64, "xlm-roberta": 66}
DECODERS = {
    "qwen2": (Qwen2Config, Qwen2Model),
    "qwen3": (Qwen3Config, Qwen3Model),
    "mistral": (MistralConfig, MistralModel),
}
WORDS = [f"w{i}" for i in range(200)]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def tokenizer(eos_only: bool = False, padding_side: str = "right") -> PreTrainedTokenizerFast:
    """Splits at blanks; words w0..w199 are known. BERT's frame, or an end token only as decoders have."""
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *WORDS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    frame = "$A [SEP]" if eos_only else "[CLS] $A [SEP]"
    core.post_processor = processors.TemplateProcessing(
        single=frame, special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        padding_side=padding_side,
        model_max_length=64,
    )


def qwen_tokenizer(padding_side: str = "right") -> Qwen2Tokenizer:
    """The real class with one token per byte: transformers takes no other tokenizer for a Qwen2 model."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    symbols = [*map(chr, printable), *(chr(256 + i) for i in range(len(others)))]
    vocabulary = {symbol: i for i, symbol in enumerate(symbols)}
    return Qwen2Tokenizer(vocab=vocabulary, merges=[], padding_side=padding_side, model_max_length=64)


def save_backbone(folder: Path, kind: str, seed: int, layers: int, padding_side: str = "right") -> Path:
    torch.manual_seed(seed)
    sizes = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 64}
    if kind in ENCODERS:
        config_class, model_class = ENCODERS[kind]
        model = model_class(
            config_class(
                **sizes,
                num_hidden_layers=layers,
                num_attention_heads=4,
                max_position_embeddings=POSITIONS[kind],
                pad_token_id=0,
            )
        )
    else:
        config_class, model_class = DECODERS[kind]
        config = config_class(
            **sizes,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            sliding_window=None,
            pad_token_id=0,
        )
        model = model_class(config)
    model.save_pretrained(folder)
    text = qwen_tokenizer(padding_side) if kind.startswith("qwen") else tokenizer(kind in DECODERS, padding_side)
    text.save_pretrained(folder)
    return folder


def tiny_model(
    folder: Path,
    kind: str = "bert",
    seed: int = 0,
    layers: int = 4,
    padding_side: str = "right",
    normalize: bool = True,
) -> SentenceTransformer:
    """A whole model with mean pooling (last token for decoders), in evaluation mode, on the CPU."""
    path = save_backbone(folder / f"{kind}-{seed}-{layers}-{padding_side}", kind, seed, layers, padding_side)
    transformer = Transformer(str(path), max_seq_length=32)
    pooling = Pooling(32, "mean" if kind in ENCODERS else "lasttoken")
    modules = [transformer, pooling, Normalize()] if normalize else [transformer, pooling]
    return SentenceTransformer(modules=modules, device="cpu").eval()


def sentences(count: int, seed: int = 0, low: int = 3, high: int = 9) -> list[str]:
    generator = torch.Generator().manual_seed(seed)
    texts = []
    for _ in range(count):
        length = int(torch.randint(low, high, (1,), generator=generator))
        texts.append(" ".join(WORDS[int(i)] for i in torch.randint(0, len(WORDS), (length,), generator=generator)))
    return texts
