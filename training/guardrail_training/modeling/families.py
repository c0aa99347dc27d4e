"""Causal and encoder-decoder models behind one face: pad prompts, read responses, continue token by token.

Prompts and responses lie on the CPU; what a model reads goes to its device, and its states lie there. The
model's trunk and its head are called apart, so that logits exist only where they are wanted. Not every
architecture's logits are its head's product, so ``family_of`` compares the two once and refuses the others.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from guardrail.errors import ConfigError
from guardrail_training.modeling.caches import can_join, join_left_padded, with_room
from guardrail_training.modeling.passes import parts_by_cost

__all__ = ["Continuation", "Family", "Prompts", "family_of"]


@dataclass(frozen=True, slots=True, eq=False)
class Prompts:
    """Padded prompts: ``ids`` ``(rows, time)`` int64 and ``mask``, true if an id belongs to a prompt."""

    ids: Tensor
    mask: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, rows: Tensor) -> Prompts:
        """Some of the prompts, without the columns that are padding in all of them."""
        mask = self.mask[rows]
        used = mask.any(dim=0)
        return Prompts(ids=self.ids[rows][:, used], mask=mask[:, used])

    def to(self, device: torch.device) -> Prompts:
        """The same on a device."""
        return Prompts(ids=self.ids.to(device), mask=self.mask.to(device))

    def distinct(self) -> tuple[Prompts, Tensor]:
        """Each prompt once, and for every row ``(rows,)`` the place of its own among them.

        Several responses to one prompt are the rule, and their prompt need not be read more than once.
        """
        keys = torch.where(self.mask, self.ids, -1)  # an id stands in the padding too
        _, groups = torch.unique(keys, dim=0, return_inverse=True)
        rows = torch.arange(len(self), device=groups.device)
        firsts = torch.full_like(rows, len(self)).scatter_reduce(0, groups, rows, "amin")[groups]
        kept = torch.unique(firsts)  # in the order of the rows
        return Prompts(ids=self.ids[kept], mask=self.mask[kept]), torch.searchsorted(kept, firsts)


class Continuation(Protocol):
    """Responses under way: what the model remembers of each row, and its ``states`` after the last token."""

    states: Tensor  # (rows, width)

    def keep(self, rows: Tensor) -> None:
        """Forgets all rows but these."""
        ...

    def advance(self, tokens: Tensor) -> None:
        """Reads one more token ``(rows,)`` in each row."""
        ...


class Family(Protocol):
    """What differs between model families.

    ``states`` reads whole responses ``(rows, time)``, padded on the right, and gives the states
    ``(rows, time, width)`` *before* each token: the first one's too, which follows from the prompt alone.
    """

    def pad(self, prompts: Sequence[Sequence[int]]) -> Prompts: ...
    def states(self, prompts: Prompts, responses: Tensor) -> Tensor: ...
    def begin(self, prompts: Prompts) -> Continuation: ...
    def head(self, states: Tensor) -> Tensor: ...


def family_of(model: Any, *, pad_id: int, pass_cost: int | None = None) -> Family:
    """The family of a transformers model; ConfigError where its logits are not its head's product alone.

    ``pass_cost`` is what a pass costs before its first token, in tokens: prompts whose padding would cost
    more are read apart. None reads all of them at once.
    """
    kind = EncoderDecoder if model.config.is_encoder_decoder else Causal
    family: Family = kind(model, pad_id=pad_id, pass_cost=pass_cost)
    ids = torch.arange(2, 5, device=model.device)[None] % model.config.vocab_size
    inputs: dict[str, Tensor] = {"input_ids": ids}
    if isinstance(family, EncoderDecoder):
        inputs["decoder_input_ids"] = torch.tensor([[family.start]], device=model.device)
    with torch.no_grad():
        expected = model(**inputs).logits[:, -1].float()
        found = family.head(family.begin(family.pad(ids.tolist())).states).float()
    if not torch.allclose(expected, found, atol=1e-2, rtol=1e-2):
        raise ConfigError(
            f"{type(model).__name__} changes its logits after its output layer, which this trainer does not "
            "follow; choose a base such as Llama, GPT-2, Phi, BLOOM, T5 or BART"
        )
    return family


class Causal:
    """Decoder-only models: prompts padded on the left, so that every response begins in the same column."""

    def __init__(self, model: Any, *, pad_id: int, pass_cost: int | None = None) -> None:
        self._trunk, self._output = model.base_model, model.get_output_embeddings()
        self._pad_id, self._device, self._pass_cost = pad_id, model.device, pass_cost
        self._takes_positions = "position_ids" in inspect.signature(self._trunk.forward).parameters

    def pad(self, prompts: Sequence[Sequence[int]]) -> Prompts:
        """Prompts that end in the last column."""
        longest = max(map(len, prompts))
        ids = torch.tensor([[self._pad_id] * (longest - len(row)) + list(row) for row in prompts])
        lengths = torch.tensor([len(row) for row in prompts])
        mask = torch.arange(longest) >= longest - lengths[:, None]
        return Prompts(ids=ids, mask=mask)

    def states(self, prompts: Prompts, responses: Tensor) -> Tensor:
        """``(rows, time, width)``; the last token of a response is not read, nothing follows it."""
        prompts, responses = prompts.to(self._device), responses.to(self._device)
        distinct, places = prompts.distinct()
        if len(distinct) < len(prompts) and responses.shape[1] > 1 and self._may_remember:
            return self._states_after(distinct, places, responses)
        ids = torch.cat([prompts.ids, responses[:, :-1]], dim=1)
        # Padding after a response needs no mask: causal attention keeps it from every earlier position.
        mask = torch.cat([prompts.mask, torch.ones_like(responses[:, :-1], dtype=torch.bool)], dim=1)
        answer = self._read(ids, mask=mask, positions=_positions(mask), use_cache=False)
        states: Tensor = answer.last_hidden_state
        return states[:, prompts.ids.shape[1] - 1 :]

    @property
    def _may_remember(self) -> bool:
        """Whether the trunk keeps what it has read: not if it computes that again in the backward pass."""
        return not self._trunk.training or not any(
            getattr(module, "gradient_checkpointing", False) for module in self._trunk.modules()
        )

    def _states_after(self, distinct: Prompts, places: Tensor, responses: Tensor) -> Tensor:
        """The same, with each prompt read once for all of its responses."""
        begun = self._read(
            distinct.ids, mask=distinct.mask, positions=_positions(distinct.mask), use_cache=True
        )
        cache, first = begun.past_key_values, begun.last_hidden_state[places, -1:]
        cache.batch_select_indices(places)
        ids = responses[:, :-1]
        mask = torch.cat([distinct.mask[places], torch.ones_like(ids, dtype=torch.bool)], dim=1)
        positions = _positions(mask)[:, -ids.shape[1] :]
        following = self._read(ids, mask=mask, positions=positions, past_key_values=cache, use_cache=True)
        return torch.cat([first, following.last_hidden_state], dim=1)

    def begin(self, prompts: Prompts) -> Continuation:
        """Reads the prompts, each distinct one once."""
        return _CausalContinuation(self, prompts.to(self._device))

    def head(self, states: Tensor) -> Tensor:
        """Logits of states."""
        logits: Tensor = self._output(states)
        return logits

    def _prefill(self, prompts: Prompts) -> tuple[Any, Tensor]:
        mask = prompts.mask
        answer = self._read(prompts.ids, mask=mask, positions=_positions(mask), use_cache=True)
        return answer.past_key_values, answer.last_hidden_state[:, -1]

    def _read(self, ids: Tensor, *, mask: Tensor, positions: Tensor, **cache: Any) -> Any:
        where = {"position_ids": positions} if self._takes_positions else {}
        return self._trunk(input_ids=ids, attention_mask=mask.long(), **where, **cache)


class _CausalContinuation:
    states: Tensor

    def __init__(self, family: Causal, prompts: Prompts) -> None:
        distinct, places = prompts.distinct()
        self._family, self._mask = family, distinct.mask
        self._positions = distinct.mask.sum(dim=1) - 1
        self._cache, self.states = self._begun(distinct)
        self._cache = with_room(self._cache)
        self.keep(places)

    def _begun(self, prompts: Prompts) -> tuple[Any, Tensor]:
        """What is remembered of prompts, and the states after them."""
        parts = _parts(prompts, pass_cost=self._family._pass_cost)
        if len(parts) == 1:
            return self._family._prefill(prompts)
        read = [self._family._prefill(prompts.select(parts[0]))]
        if not can_join(read[0][0]):
            return self._family._prefill(prompts)
        read += [self._family._prefill(prompts.select(rows)) for rows in parts[1:]]
        cache = join_left_padded([cache for cache, _ in read], time=prompts.ids.shape[1])
        back = _back(parts)
        cache.batch_select_indices(back)
        return cache, torch.cat([states for _, states in read])[back]

    def keep(self, rows: Tensor) -> None:
        rows = rows.to(self._mask.device)
        self._cache.batch_select_indices(rows)
        self._mask, self._positions, self.states = self._mask[rows], self._positions[rows], self.states[rows]

    def advance(self, tokens: Tensor) -> None:
        tokens = tokens.to(self._mask.device)
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
        self._positions = self._positions + 1
        self._read(tokens[:, None], self._positions[:, None])

    def _read(self, ids: Tensor, positions: Tensor) -> None:
        answer = self._family._read(
            ids, mask=self._mask, positions=positions, past_key_values=self._cache, use_cache=True
        )
        self._cache, self.states = answer.past_key_values, answer.last_hidden_state[:, -1]


class EncoderDecoder:
    """T5, BART and their kin: prompts padded on the right go through the encoder.

    The decoder reads its start token and then the response, so position t predicts token t, the first one
    included.
    """

    def __init__(self, model: Any, *, pad_id: int, pass_cost: int | None = None) -> None:
        self._encoder, self._decoder = model.get_encoder(), model.get_decoder()
        self._output = model.get_output_embeddings()
        self._bias: Tensor | None = getattr(model, "final_logits_bias", None)  # BART's
        # T5 with tied embeddings scales the decoder's states (Mesh TensorFlow does).
        is_scaled = getattr(model.config, "scale_decoder_outputs", False)
        self._scale: float = model.config.d_model**-0.5 if is_scaled else 1.0
        self._pad_id, self._device, self._pass_cost = pad_id, model.device, pass_cost
        self.start: int = model.config.decoder_start_token_id

    def pad(self, prompts: Sequence[Sequence[int]]) -> Prompts:
        """Prompts that begin in the first column."""
        longest = max(map(len, prompts))
        ids = torch.tensor([list(row) + [self._pad_id] * (longest - len(row)) for row in prompts])
        lengths = torch.tensor([len(row) for row in prompts])
        mask = torch.arange(longest) < lengths[:, None]
        return Prompts(ids=ids, mask=mask)

    def states(self, prompts: Prompts, responses: Tensor) -> Tensor:
        """``(rows, time, width)``: of the start token and of every token but the last."""
        prompts, responses = prompts.to(self._device), responses.to(self._device)
        read = torch.cat([self.start_column(len(prompts)), responses[:, :-1]], dim=1)
        answer = self._decode(read, self.encode(prompts), prompts.mask, use_cache=False)
        states: Tensor = answer.last_hidden_state
        return states

    def begin(self, prompts: Prompts) -> Continuation:
        """Encodes the prompts and reads the decoder's start token."""
        return _DecoderContinuation(self, prompts.to(self._device))

    def head(self, states: Tensor) -> Tensor:
        """Logits of states."""
        logits: Tensor = self._output(states * self._scale)
        return logits if self._bias is None else logits + self._bias[0]

    def encode(self, prompts: Prompts) -> Tensor:
        """The encoder's states ``(rows, time, width)``; each distinct prompt is read once."""
        distinct, places = prompts.distinct()
        parts = _parts(distinct, pass_cost=self._pass_cost)
        if len(parts) == 1:
            states = self._encode(distinct)
        else:
            read = [self._encode(distinct.select(rows)) for rows in parts]
            time = distinct.ids.shape[1]
            padded = [functional.pad(part, (0, 0, 0, time - part.shape[1])) for part in read]
            states = torch.cat(padded)[_back(parts)]
        return states if len(distinct) == len(prompts) else states[places]

    def _encode(self, prompts: Prompts) -> Tensor:
        answer = self._encoder(input_ids=prompts.ids, attention_mask=prompts.mask.long())
        states: Tensor = answer.last_hidden_state
        return states

    def start_column(self, rows: int) -> Tensor:
        """The decoder's start token ``(rows, 1)``."""
        return torch.full((rows, 1), self.start, device=self._device)

    def _decode(self, ids: Tensor, encoded: Tensor, mask: Tensor, **cache: Any) -> Any:
        return self._decoder(
            input_ids=ids, encoder_hidden_states=encoded, encoder_attention_mask=mask.long(), **cache
        )


class _DecoderContinuation:
    states: Tensor

    def __init__(self, family: EncoderDecoder, prompts: Prompts) -> None:
        self._family, self._mask = family, prompts.mask
        self._encoded = family.encode(prompts)
        self._cache: Any = None
        self._read(family.start_column(len(prompts)))
        self._cache = with_room(self._cache)

    def keep(self, rows: Tensor) -> None:
        rows = rows.to(self._mask.device)
        self._cache.batch_select_indices(rows)
        self._mask, self._encoded, self.states = self._mask[rows], self._encoded[rows], self.states[rows]

    def advance(self, tokens: Tensor) -> None:
        self._read(tokens.to(self._mask.device)[:, None])

    def _read(self, ids: Tensor) -> None:
        answer = self._family._decode(
            ids, self._encoded, self._mask, past_key_values=self._cache, use_cache=True
        )
        self._cache, self.states = answer.past_key_values, answer.last_hidden_state[:, -1]


def _parts(prompts: Prompts, *, pass_cost: int | None) -> tuple[Tensor, ...]:
    """Rows that are cheaper to read apart."""
    if pass_cost is None:
        return (torch.arange(len(prompts)),)
    return parts_by_cost(prompts.mask.sum(dim=1).tolist(), size=len(prompts), pass_cost=pass_cost)


def _back(parts: Sequence[Tensor]) -> Tensor:
    """Where each row stands among those of the parts, one below the other."""
    return torch.cat(list(parts)).argsort()


def _positions(mask: Tensor) -> Tensor:
    # Counted from a row's first real id, as in a batch without padding.
    return (mask.long().cumsum(dim=1) - 1).clamp(min=0)
