"""What kind of model an object is, and models in evaluation mode for a while."""

from __future__ import annotations

import contextlib

from tests.extras import needs

needs("torch")

import torch
from rattention._models import evaluating, kind_of
from rattention.models import Bert
from rattention.nn import SelfAttention

from tests.bert_folder import write_folder
from tests.processes import run_python


def test_kinds(tmp_path):
    assert kind_of(SelfAttention(8, 2)) == kind_of(torch.nn.Linear(2, 2)) == "torch"
    assert kind_of(Bert.from_pretrained(write_folder(tmp_path))) == "bert"
    assert kind_of("a model") is kind_of(None) is None
    needs("hf")
    import transformers

    assert kind_of(transformers.BertModel(transformers.BertConfig(num_hidden_layers=0))) == "transformers"


def test_asking_loads_no_library():
    code = """
import sys
from rattention._models import kind_of
print(kind_of(3), "torch" in sys.modules, "transformers" in sys.modules, "rattention.models" in sys.modules)
"""
    assert run_python(code) == "None False False False\n"


def test_every_part_returns_to_its_own_mode():
    """A part that is frozen in evaluation mode stays so, also where the block fails."""
    model = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.BatchNorm1d(2))
    model[1].eval()
    seen = []
    with contextlib.suppress(KeyError), evaluating(model):
        seen += [torch.is_grad_enabled(), *(part.training for part in model.modules())]
        raise KeyError
    assert seen == [False] * 4
    assert [part.training for part in model.modules()] == [True, True, False]
    assert torch.is_grad_enabled()
