"""A layer with the delta rule learns to recall: values told of keys, which are asked for afterwards.

The task is multi-query associative recall, "Zoology" (Arora et al., arXiv 2312.04927), section 3, small.
"""

from __future__ import annotations

import pytest

from tests.extras import needs

needs("torch")

import torch
from rattention import nn

KEYS, VALUES, PAIRS = 12, 8, 6
LEARNED = 0.95


def drawn(generator, batch=64):
    """Tokens ``[batch, 4 * PAIRS]``: pairs of key and value, then the keys in another order, a blank after
    each; and the value of each key asked for, ``[batch, PAIRS]``."""
    keys = torch.rand(batch, KEYS, generator=generator).argsort(dim=1)[:, :PAIRS]
    values = torch.randint(VALUES, (batch, PAIRS), generator=generator)
    order = torch.rand(batch, PAIRS, generator=generator).argsort(dim=1)
    told = torch.stack([keys, KEYS + values], dim=2).flatten(1)
    asked = keys.gather(1, order)
    blanks = torch.full_like(asked, KEYS + VALUES)
    return torch.cat([told, torch.stack([asked, blanks], dim=2).flatten(1)], dim=1), values.gather(1, order)


def answers(model, tokens):
    return model(tokens)[:, 2 * PAIRS :: 2, KEYS : KEYS + VALUES]


def trained(mechanism, steps):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    model = nn.LanguageModel(KEYS + VALUES + 1, dim=32, heads=1, depth=1, pattern=mechanism)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        tokens, right = drawn(generator)
        loss = torch.nn.functional.cross_entropy(answers(model, tokens).flatten(0, 1), right.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


@torch.no_grad()
def recalled(model):
    """The share of answers that are right, on texts not seen in training."""
    tokens, right = drawn(torch.Generator().manual_seed(2), batch=256)
    return float((answers(model.eval(), tokens).argmax(dim=2) == right).float().mean())


@pytest.mark.parametrize("mechanism", [nn.GatedDelta()], ids=["gated_delta"])
def test_recall_is_learned(mechanism):
    assert recalled(trained(mechanism, 0)) < 2.5 / VALUES  # by chance 1 / VALUES
    assert recalled(trained(mechanism, 200)) > LEARNED
