"""Masked-autoencoder pre-training of every size of a ladder, on plain texts. Paper 03 (SMAE)."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask

from isometry.encoders.text import Ladder, find_backbone, layer_count
from isometry.encoders.text.exits import layer_states, transformer_layers
from isometry.errors import InputError


class MaskedAutoencoderLoss(nn.Module):
    """mean over sizes (n, d) of half the sum of two guesses at masked tokens.

    The first guess is the masked language model's, from the first d coordinates of layer n. The second has only the
    first position of that layer to go by: put through the head's transform it is d wide no more but full width, stands
    in front of a text masked twice as hard, and one extra layer must restore that text. So the first position of every
    size has to carry the text.

    Args:
        model: a SentenceTransformer over a BERT-like encoder (`embeddings` and `encoder.layer`).
        ladder: its last rung is the model's full size.
        head: a masked-language-model head of transformers (`BertForMaskedLM(...).cls`) to start from; None starts the
            transform as the identity, which is what an encoder without such a head needs.
        encoder_share / decoder_share: shares of the tokens that the encoder and the extra layer do not see; whole
            words, the first set within the second (.2 and .4 in the paper).
        seed: of the masks.

    The extra layer starts as a copy of the first and belongs to this loss, as the head does: neither is saved with the
    model. Every text column is taken as plain text; there are no labels.
    """

    def __init__(
        self,
        model: Any,
        ladder: Ladder,
        head: nn.Module | None = None,
        encoder_share: float = 0.2,
        decoder_share: float = 0.4,
        seed: int = 0,
    ) -> None:
        super().__init__()
        backbone, tokenizer = find_backbone(model), model.tokenizer
        if not hasattr(backbone, "embeddings") or not hasattr(backbone, "encoder"):
            raise InputError(f"masked pre-training takes an encoder such as BERT, not {type(backbone).__name__}")
        if tokenizer.mask_token_id is None:
            raise InputError("the model's tokenizer has no mask token, so nothing can be masked")
        if not 0 < encoder_share <= decoder_share < 1:
            raise InputError(
                f"shares of masked tokens grow and lie within 0 and 1, not {encoder_share}, {decoder_share}"
            )
        width = int(backbone.config.hidden_size)
        ladder.check(layer_count(model), width)
        self.model, self.ladder, self.shares = model, ladder, (encoder_share, decoder_share)
        self.decoder = copy.deepcopy(transformer_layers(backbone)[0])
        self.dense, self.norm = nn.Linear(width, width), nn.LayerNorm(width, eps=backbone.config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(backbone.get_input_embeddings().num_embeddings))
        if head is not None:
            prediction = getattr(head, "predictions", head)
            self.dense.load_state_dict(prediction.transform.dense.state_dict())
            self.norm.load_state_dict(prediction.transform.LayerNorm.state_dict())
            self.bias.data.copy_(prediction.bias.data)
        else:
            nn.init.eye_(self.dense.weight)
            nn.init.zeros_(self.dense.bias)
        self.activation = ACT2FN[backbone.config.hidden_act]
        special = torch.zeros(len(self.bias), dtype=torch.bool)
        special[tokenizer.all_special_ids] = True
        inner = torch.zeros(len(self.bias), dtype=torch.bool)
        inner[[number for token, number in tokenizer.get_vocab().items() if token.startswith("##")]] = True
        self.register_buffer("special", special, persistent=False)
        self.register_buffer("inner", inner, persistent=False)
        self.mask_token = int(tokenizer.mask_token_id)
        self.generator = torch.Generator().manual_seed(seed)

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        return torch.stack([self._column(features) for features in sentence_features]).mean()

    def transform(self, states: Tensor) -> Tensor:
        """The head's transform on states `(…, d)`, d at most the full width: the dense layer's first d inputs."""
        width = states.shape[-1]
        states = F.linear(states, self.dense.weight[:, :width], self.dense.bias)
        return self.norm(self.activation(states))

    def _column(self, features: dict[str, Tensor]) -> Tensor:
        ids, mask = features["input_ids"], features["attention_mask"]
        backbone = find_backbone(self.model)
        hidden, hidden_more = (
            found.to(ids.device) for found in nested_masks(self._words(ids, mask).cpu(), self.shares, self.generator)
        )
        if not bool(hidden.any()):
            raise InputError("a batch of texts too short to mask anything; leave out texts of one word")
        seen = {**features, "input_ids": self._corrupt(ids, hidden)}
        states = layer_states(self.model, seen)
        blurred = backbone.embeddings(input_ids=self._corrupt(ids, hidden_more))
        attention = create_bidirectional_mask(config=backbone.config, inputs_embeds=blurred, attention_mask=mask)
        words = backbone.get_input_embeddings().weight
        total = []
        for size in self.ladder:
            turned = self.transform(states[size.layers][..., : size.dimensions])
            guess = F.cross_entropy(F.linear(turned[hidden], words, self.bias).float(), ids[hidden])
            restored = self.decoder(torch.cat([turned[:, :1], blurred[:, 1:].to(turned.dtype)], dim=1), attention)
            logits = F.linear(self.transform(restored[hidden_more]), words, self.bias)
            total.append(size.weight * (guess + F.cross_entropy(logits.float(), ids[hidden_more])) / 2)
        return torch.stack(total).mean()

    def _words(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Number of the word a token belongs to `(b, t)`; -1 for special tokens and padding."""
        words = (~self.inner[ids]).cumsum(dim=1)
        return words.masked_fill(self.special[ids] | ~mask.bool(), -1)

    def _corrupt(self, ids: Tensor, hidden: Tensor) -> Tensor:
        """Of the hidden tokens 80 % become the mask token, 10 % a random one, 10 % stay."""
        lot = torch.rand(ids.shape, generator=self.generator).to(ids.device)
        other = torch.randint(len(self.bias), ids.shape, generator=self.generator).to(ids.device)
        found = torch.where(hidden & (lot < 0.8), torch.full_like(ids, self.mask_token), ids)
        return torch.where(hidden & (lot >= 0.8) & (lot < 0.9), other, found)

    def get_config_dict(self) -> dict[str, Any]:
        return {
            "sizes": [[size.layers, size.dimensions, size.weight] for size in self.ladder],
            "encoder_share": self.shares[0],
            "decoder_share": self.shares[1],
        }


def nested_masks(words: Tensor, shares: Sequence[float], generator: torch.Generator) -> list[Tensor]:
    """Masks `(b, t)` of whole words, one per share, each within the next, drawn at random.

    Args:
        words: `(b, t)` number of the word each token belongs to, -1 where nothing may be masked.
        shares: ascending. A mask holds round(share * tokens) tokens, and more only to finish its last word.
    """
    free = words >= 0
    lots = torch.rand(len(words), int(words.max()) + 1 if free.any() else 1, generator=generator)
    keys = lots.gather(1, words.clamp(min=0)).masked_fill(~free, 2.0)
    before = (keys.unsqueeze(1) < keys.unsqueeze(2)).sum(dim=2)
    target = torch.tensor(shares)[:, None] * free.sum(dim=1)
    return [free & (before < wanted.round().unsqueeze(1)) for wanted in target]
