"""Pretrained models from their Hugging Face files, run by the C++ core without PyTorch."""

from __future__ import annotations

from rattention.models.bert import Bert, BertOutput
from rattention.models.bert_config import BertConfig
from rattention.models.folder import WeightsError
from rattention.models.tokens import Encoding

__all__ = ["Bert", "BertConfig", "BertOutput", "Encoding", "WeightsError"]
