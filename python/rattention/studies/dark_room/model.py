"""The transformer that learns an algorithm: from what an agent did and got to what it does next."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import rattention
from rattention._arguments import at_least
from rattention.models.folder import WeightsError
from rattention.nn import Softmax, TransformerEncoder
from rattention.nn.mechanisms import Pattern, as_pattern
from rattention.nn.weights import load_model, load_record, save_model

TURNED_AND_NOT = (Softmax(rope_theta=10_000.0), Softmax())
"""Full attention, with rotary embedding in every other layer: those without find what happened in a state
however long ago it was."""


class HistoryTransformer(nn.Module):
    """A causal transformer over a history of transitions and the state in which an action is asked for.

    Algorithm Distillation (arXiv 2210.14215): trained on what learning agents do next, across their episodes,
    it goes on learning in its context while its weights stay as they are. A transition is one token, the sum
    of embeddings of its state, action, reward and next state; the query is the last token. The two states of
    a transition share an embedding and have a linear map each.

    Parameters
    ----------
    states, actions:
        How many there are of each.
    context:
        The most transitions that a history may have.
    columns:
        Where states are places on a grid with so many columns, ``row * columns + column``: their embedding is
        the sum of one for the row and one for the column, so that what is learned of one goal holds for
        others. By default every state has an embedding of its own.
    dim, heads, kv_heads, depth, pattern, mlp_dim, dropout:
        As in `rattention.nn.TransformerEncoder`; by default full attention, with rotary embedding in every
        other layer. See `rattention.nn.rattention_pattern`.

    Examples
    --------
    >>> import torch
    >>> from rattention.studies.dark_room import HistoryTransformer
    >>> model = HistoryTransformer(states=81, actions=5, context=200, dim=32, depth=2)
    >>> seven = torch.zeros(1, 7, dtype=torch.int64)
    >>> model(seven, seven, seven.float(), seven, torch.tensor([40])).shape
    torch.Size([1, 5])
    """

    def __init__(
        self,
        states: int,
        actions: int,
        context: int,
        *,
        columns: int | None = None,
        dim: int = 64,
        heads: int = 4,
        depth: int = 4,
        kv_heads: int | None = None,
        pattern: Pattern = TURNED_AND_NOT,
        mlp_dim: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        sizes = {"states": states, "actions": actions, "context": context, "dim": dim, "depth": depth}
        for name, value in sizes.items():
            at_least(name, value, 1)
        layers: dict[str, Any] = {"kv_heads": kv_heads, "mlp_dim": mlp_dim, "dropout": dropout}
        kinds = [kind.as_dict() for kind in as_pattern(pattern)]
        self.config: dict[str, Any] = sizes | layers | {"columns": columns, "heads": heads, "pattern": kinds}
        self.record: dict[str, Any] = {}
        """Where the weights come from; kept in the file among its metadata."""
        self.place = _Places(states, columns, dim)
        self.state, self.next_state = (nn.Linear(dim, dim, bias=False) for _ in range(2))
        self.action, self.reward = nn.Embedding(actions, dim), nn.Linear(1, dim, bias=False)
        self.query = nn.Parameter(torch.empty(dim))
        self.encoder = TransformerEncoder(dim, heads, depth, pattern=pattern, causal=True, **layers)
        self.head = nn.Linear(dim, actions)
        for linear in (self.state, self.next_state):
            nn.init.orthogonal_(linear.weight)
        for weight in (self.action.weight, self.reward.weight, self.query):
            nn.init.normal_(weight, std=dim**-0.5)

    def forward(
        self, states: Tensor, actions: Tensor, rewards: Tensor, next_states: Tensor, query_state: Tensor
    ) -> Tensor:
        """Logits of the next action.

        Parameters
        ----------
        states, actions, rewards, next_states:
            A history ``[batch, history]``, oldest first; integers but for the float32 rewards, and
            ``0 <= history <= context``.
        query_state:
            Where the agent stands, ``[batch]``.

        Returns
        -------
        ``[batch, actions]``.
        """
        self._check(query_state, states, actions, rewards, next_states)
        transitions = self._transitions(states, actions, rewards, next_states)
        tokens = torch.cat([transitions, self._queries(query_state)[:, None]], dim=1)
        logits: Tensor = self.head(self.encoder(tokens)[:, -1])
        return logits

    def predict(
        self, states: Tensor, actions: Tensor, rewards: Tensor, next_states: Tensor, lengths: Tensor
    ) -> Tensor:
        """Logits of the next action at every place of a batch, ``[batch, history, actions]``: for training.

        Row b asks in state ``states[b, lengths[b]]``: the query is its token there, which sees what `forward`
        is given, the transitions before. At those, logits are of the action in the next state.
        """
        tokens = self._transitions(states, actions, rewards, next_states)
        places = torch.arange(states.shape[1]) == lengths[:, None]
        queries = self._queries(states.gather(1, lengths[:, None]))
        logits: Tensor = self.head(self.encoder(torch.where(places[..., None], queries, tokens)))
        return logits

    def _transitions(self, states: Tensor, actions: Tensor, rewards: Tensor, next_states: Tensor) -> Tensor:
        places = self.state(self.place(states)) + self.next_state(self.place(next_states))
        tokens: Tensor = places + self.action(actions) + self.reward(rewards[..., None])
        return tokens

    def _queries(self, states: Tensor) -> Tensor:
        """The agent stands where a transition may just have led it: the state is embedded like a next one."""
        tokens: Tensor = self.next_state(self.place(states)) + self.query
        return tokens

    def _check(self, query_state: Tensor, *history: Tensor) -> None:
        shapes = [tuple(tensor.shape) for tensor in history]
        if len(shapes[0]) != 2 or len(set(shapes)) > 1 or query_state.shape != shapes[0][:1]:
            raise ValueError(
                "states, actions, rewards and next_states must be [batch, history] alike and query_state "
                f"[batch], got {shapes} and {tuple(query_state.shape)}"
            )
        if shapes[0][1] > self.config["context"]:
            raise ValueError(
                f"the history may have {self.config['context']} transitions at most, got {shapes[0][1]}"
            )
        states, actions, _, next_states = history
        given = {"states": states, "actions": actions, "next_states": next_states, "query_state": query_state}
        for name, tensor in given.items():
            limit = self.config["actions" if name == "actions" else "states"]
            if tensor.numel() and not 0 <= int(tensor.min()) <= int(tensor.max()) < limit:
                raise ValueError(f"{name} must be between 0 and {limit - 1}")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write weights, configuration and record to a safetensors file, whole or not at all."""
        save_model(self, self.config, path, record=self.record)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> HistoryTransformer:
        """The model in a file that `save` wrote.

        `rattention.models.WeightsError` names the fault of a file that is not there, is something
        else, is damaged, or holds weights that are no numbers.
        """
        model = load_model(cls, path)
        broken = [name for name, weight in model.state_dict().items() if not weight.isfinite().all()]
        if broken:
            raise WeightsError(f"{path} holds NaN or infinity in {', '.join(broken[:8])}")
        model.record = load_record(path)
        return model


class _Places(nn.Module):
    """Embeddings of states, or of the rows and columns that they are in."""

    def __init__(self, states: int, columns: int | None, dim: int) -> None:
        super().__init__()
        if columns is not None and (columns < 1 or states % columns != 0):
            raise ValueError(f"columns must divide states, got columns={columns} and states={states}")
        self.columns = columns
        counts = [states] if columns is None else [states // columns, columns]
        self.embeddings = nn.ModuleList(nn.Embedding(count, dim) for count in counts)
        for weight in self.embeddings.parameters():
            nn.init.normal_(weight, std=(len(counts) * dim) ** -0.5)

    def forward(self, states: Tensor) -> Tensor:
        """``[...]`` to ``[..., dim]``."""
        if self.columns is None:
            embedded: Tensor = self.embeddings[0](states)
        else:
            embedded = self.embeddings[0](states // self.columns) + self.embeddings[1](states % self.columns)
        return embedded


def example_checkpoint() -> Path:
    """The `HistoryTransformer` that comes with the package, trained in dark rooms of 9 x 9; ``rattention ad
    train`` makes it again."""
    return Path(rattention.__file__).parent / "data" / "dark_room.safetensors"
