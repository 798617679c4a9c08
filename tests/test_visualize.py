"""rattention visualize: what it writes and says, for models of text, and for every kind of bad input."""

from __future__ import annotations

import csv
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from tests.extras import needs

needs("demo")

from rattention.inspect import Rules, Sample
from rattention.inspect.statistics import MapOptions
from rattention.inspect.visualize import Drawing, visualize

from tests.bert_folder import WORDS, write_folder
from tests.processes import run_python
from tests.visualized import figure_names, files_in, visualized

TEXT = " ".join(np.random.default_rng(0).choice([w for w in WORDS if w.isalpha()], 200))


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("model") / "bert")


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT, "utf-8")
    return path


@pytest.fixture
def arguments(bert, text, tmp_path):
    sizes = ["--samples", "1", "--length", "20", "--dpi", "40", "--layer", "1"]
    return ["visualize", "--model", str(bert), "--text", str(text), *sizes, "--out", str(tmp_path / "out")]


def test_everything_for_a_bert(arguments, capsys, tmp_path):
    both = [*arguments, "--layer", "0,1", "--samples", "2"]
    code, out, err = visualized(both, capsys)
    assert (code, err) == (0, "")
    expected = figure_names(1, 2, "png") | {"heads.csv", "report.html", "attention.json"}
    assert files_in(tmp_path / "out") == expected
    for words in ("piece 0", "Layer by layer", "Compression pays most", "recency bias", "7 figures"):
        assert words in out
    data = json.loads((tmp_path / "out" / "attention.json").read_text("utf-8"))
    assert [row["sequence_length"] for row in data["samples"]] == [20, 20]
    assert [row["context_tokens"] for row in data["samples"]] == [19, 19]
    assert (len(data["heads"]), len(data["layers"]), len(data["insights"])) == (2 * 2 * 3, 2, 6)
    assert data["configuration"]["rules"]["recency_ratio"] == 2.0
    assert {"versions", "hardware", "seed", "seconds", "saved"} <= set(data)
    rows = list(csv.DictReader((tmp_path / "out" / "heads.csv").open(encoding="utf-8")))
    assert [float(r["entropy"]) for r in rows] == pytest.approx([r["entropy"] for r in data["heads"]])
    assert [int(r["max_position"]) for r in rows] == [r["max_position"] for r in data["heads"]]
    assert re.search(r"Try [a-z+]+ first|No rule fired", out.split("Samples")[0])  # before all numbers
    assert not re.search(r"\de[+-]\d", out)


def test_the_largest_weight_is_where_it_is_said_to_be(bert):
    from rattention.inspect import capture, examine
    from rattention.models import Bert

    model, sample = Bert.from_pretrained(bert), Sample("one", (np.arange(9)[None] + 5,))
    found = examine(model, [sample])
    with capture(model) as layers:
        sample.run(model)
    rows = found.table()
    expected = [int(head.argmax()) for layer in layers for head in layer.rows([-1])[0, :, 0]]
    assert [row["max_position"] for row in rows] == expected
    (whole,) = found.sample_table()
    counts = [expected.count(position) for position in range(9)]
    assert counts[whole["max_position"]] == max(counts)


def test_the_page_knows_where_episodes_begin(bert):
    from rattention.explorer.explorer import Explorer
    from rattention.explorer.reading import read_sample
    from rattention.models import Bert

    labels = [f"token {n}" for n in range(9)]
    sample = Sample("one", (np.arange(9)[None] + 5,), labels=labels, episodes=(0, 4))
    explorer = Explorer(read_sample(Bert.from_pretrained(bert), sample))
    assert explorer.ask("document")["parts"] == [0, 4]


def test_figures_of_all_samples_where_they_are_asked_for(arguments, capsys, tmp_path):
    code, out, _ = visualized([*arguments, "--samples", "2", "--head", "0", "--all-figures"], capsys)
    assert code == 0
    assert figure_names(2, 2, "png", [1]) <= files_in(tmp_path / "out")
    assert "7 figures" in out


class Page(HTMLParser):
    """Tags that stay open, and everything that a page loads."""

    def __init__(self, text):
        super().__init__()
        self.open, self.sources, self.links, self.ids, self.alts = [], [], [], [], []
        self.folded = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "img"):
            self.open.append(tag)
        found = dict(attributes)
        if tag == "img":
            self.folded.append("details" in self.open and found["loading"] == "lazy")
        self.sources += [found["src"]] if "src" in found else []
        self.links += [found["href"]] if "href" in found else []
        self.ids += [found["id"]] if "id" in found else []
        self.alts += [found["alt"]] if "alt" in found else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_the_report_links_to_the_figures_beside_it(arguments, capsys, tmp_path, kind):
    """Pictures are folded and loaded late; what browsers do not show is a link alone."""
    code, _, _ = visualized([*arguments, "--format", kind, "--head", "0"], capsys)
    assert code == 0
    figures = figure_names(1, 2, kind, [1])
    assert figures <= files_in(tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text("utf-8")
    page = Page(text)
    assert page.open == []
    assert {*page.sources} == (set() if kind == "pdf" else figures)
    assert all(page.folded)
    assert "base64," not in re.sub(r'srcdoc="[^"]*"', "", text)
    assert [link for link in page.links if link.startswith("#")] == [f"#{name}" for name in page.ids]
    assert {link for link in page.links if not link.startswith("#")} == figures
    assert len(page.ids) == 7
    captions = re.findall(r"<figcaption><a href=.*?</a>: (.*?)</figcaption>", text, re.DOTALL)
    assert len({*captions}) == 5
    assert all(caption.endswith(".") and caption.count(" ") > 10 for caption in captions)
    assert not re.search(r"(src|href)=.?https?://", re.sub(r'srcdoc="[^"]*"', "", text))
    for words in (
        "piece 0",
        "sample 0, layer 1, maps:",
        "layers: Left",
        "recency bias",
        "try first",
        "recency_ratio",
        "numpy",
        "processor",
    ):
        assert words in text


def test_names_in_the_report_are_text(bert, tmp_path):
    from rattention.models import Bert

    model, sample = Bert.from_pretrained(bert), Sample("<script>", (np.arange(9)[None] + 5,))
    visualize(model, [sample], tmp_path, name="<b>", layers=[0], heads=[0], drawing=Drawing(dpi=40))
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "<script" not in text
    assert "<b>" not in text
    assert "&lt;script&gt;" in text


def test_choices(arguments, capsys, tmp_path):
    more = ["--head", "0,2", "--layer", "0", "--no-report", "--json", "--rows", "-8:", "--keys", "4:18"]
    more += ["--rules.entropy", "0.001", "--scale", "linear", "--shape", "4,4", "--figsize", "5,4"]
    code, out, _ = visualized([*arguments, *more], capsys)
    assert code == 0
    data = json.loads(out)
    assert {(r["layer"], r["head"]) for r in data["heads"]} == {(0, 0), (0, 2)}
    assert next(i for i in data["insights"] if i["rule"] == "broad attention")["fired"]
    assert "report.html" not in files_in(tmp_path / "out")


BAD = {
    "no samples": (["--samples", "0"], r"--samples must be between 1 and \d+ \(pieces of 18 tokens .* got 0"),
    "too many samples": (["--samples", "900"], r"--samples must be between 1 and \d+ \(pieces of .* got 900"),
    "a layer": (["--layer", "2"], "layers must be numbers from 0 to 1, got \\[2\\]"),
    "a head": (["--head", "0,3"], "heads must be numbers from 0 to 2, got \\[0, 3\\]"),
    "a negative layer": (["--layer", "-1"], "layers must be numbers from 0 to 1, got \\[-1\\]"),
    "no number": (["--layer", "one"], "--layer must be whole numbers separated by commas"),
    "rows outside": (["--rows", "0:21"], "rows 0:21 does not lie within the 20 positions of piece 0"),
    "keys outside": (["--keys", "30:"], "keys 30:20 does not lie within the 20 positions of piece 0"),
    "no span": (["--rows", "5"], "--rows must be positions A:B"),
    "a shape": (["--shape", "0,5"], "--shape must be two numbers >= 1"),
    "a size": (["--figsize", "5"], "--figsize must be width and height in inches"),
    "a negative size": (["--figsize", "-5,3"], "dpi and figsize must be positive"),
    "dpi": (["--dpi", "0"], "dpi and figsize must be positive"),
    "a format": (["--format", "gif"], "gif"),
    "a length": (["--length", "65"], r"--length must be between 3 and 64 \(the model's positions\), got 65"),
    "two models": (["--checkpoint", "a.safetensors"], "--checkpoint and --model exclude each other"),
    "a threshold": (["--rules.entropy", "nan"], "entropy must be finite"),
    "a model": (["--model", "./nowhere"], "neither a folder nor the id of a model"),
    "a text": (["--text", "nowhere.txt"], "nowhere.txt: No such file"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(arguments, capsys, tmp_path, case):
    options, message = BAD[case]
    code, out, err = visualized([*arguments, *options], capsys)
    assert (code, out) == (2, "")
    assert re.search(message, err)
    assert len(err.splitlines()) == 1
    folder = tmp_path / "out"
    assert not folder.exists() or not list(folder.iterdir())


def test_a_folder_that_cannot_be_written(arguments, capsys, tmp_path):
    (tmp_path / "out").write_text("a file", "utf-8")
    code, _, err = visualized(arguments, capsys)
    assert code == 2
    assert "cannot write there" in err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(arguments, capsys, tmp_path):
    (tmp_path / "out").mkdir(mode=0o500)
    code, _, err = visualized(arguments, capsys)
    assert (code, "cannot write there" in err) == (2, True)


def test_no_display_and_no_pyplot(bert, text, tmp_path):
    """Nor PyTorch."""
    run_python(
        f"""
        import sys
        from rattention.cli import main
        where = ["--model", {str(bert)!r}, "--text", {str(text)!r}, "--out", {str(tmp_path / "out")!r}]
        what = ["--samples", "1", "--layer", "0", "--head", "0", "--length", "20", "--dpi", "40"]
        assert main(["visualize", *where, *what]) == 0
        assert not {{"torch", "transformers", "matplotlib.pyplot"}} & {{*sys.modules}}
        """,
        DISPLAY="",
        MPLBACKEND="",
    )
    assert (tmp_path / "out" / "heads.png").is_file()


def test_a_fault_in_the_middle_leaves_whole_files(bert, tmp_path, monkeypatch):
    from matplotlib.figure import Figure
    from rattention.models import Bert

    saved = []

    def savefig(self, target, **options):
        if len(saved) == 3:
            Path(target).write_bytes(b"the beginning")
            raise OSError(28, "No space left on device")
        saved.append(target)
        return original(self, target, **options)

    original = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", savefig)
    with pytest.raises(OSError, match="No space left"):
        visualize(
            Bert.from_pretrained(bert),
            [Sample("one", (np.arange(9)[None] + 5,))],
            tmp_path,
            heads=[0],
            drawing=Drawing(dpi=40),
        )
    assert files_in(tmp_path) == {
        f"sample0_layer{n}_{k}.png" for n, k in ((0, "maps"), (0, "lines"), (1, "maps"))
    }


def test_the_template_is_in_the_package():
    from importlib.resources import files

    assert "{%- macro figure(it) -%}" in (files("rattention.inspect") / "report.html.j2").read_text("utf-8")


def test_options_of_the_function():
    with pytest.raises(ValueError, match="must be one of png, svg, pdf, got 'bmp'"):
        Drawing(format="bmp")
    with pytest.raises(ValueError, match="at least one sample"):
        visualize(None, [], "nowhere")
    assert not Path("nowhere").exists()
    assert (MapOptions().rows, Rules().recency_ratio) == ((None, None), 2.0)


def test_the_text_may_end_early(arguments, capsys):
    """One piece of what there is, where the text is shorter than a piece."""
    options = ["--length", "64", "--head", "0", "--no-report"]
    short = Path(arguments[4])
    short.write_text("the cat sat on a mat", "utf-8")
    code, out, _ = visualized([*arguments, *options, "--json"], capsys)
    assert code == 0
    assert json.loads(out)["samples"][0]["sequence_length"] == 8


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A small random Llama with a tokenizer of its own."""
    needs("hf")
    import tokenizers
    import transformers

    from tests.hf_models import build

    folder = tmp_path_factory.mktemp("llama")
    build("llama").save_pretrained(folder)
    vocabulary = {word: i for i, word in enumerate(["[UNK]", *sorted({*TEXT.split()})])}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
    fast.save_pretrained(folder)
    return folder


def test_a_model_of_transformers(llama, arguments, capsys, tmp_path):
    code, out, _ = visualized([*arguments, "--model", llama, "--samples", "2", "--json"], capsys)
    assert code == 0
    data = json.loads(out)
    assert len(data["heads"]) == 2 * 4
    assert [row["context_tokens"] for row in data["samples"]] == [19, 19]
    assert figure_names(1, 2, "png", [1]) <= files_in(tmp_path / "out")


def test_weights_that_are_nan(llama, arguments, capsys, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "damaged"
    folder.mkdir()
    for path in llama.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if "layers.1" in name and "q_proj" in name)
    tensors[name] = torch.full_like(tensors[name], float("nan"))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    code, _, err = visualized([*arguments, "--model", folder], capsys)
    assert code == 2
    assert re.search(r"layer 1 \(.*\) attends with NaN in piece 0", err)
    assert files_in(tmp_path / "out") == set()


def test_a_folder_without_a_tokenizer(llama, arguments, capsys, tmp_path):
    folder = tmp_path / "mute"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((llama / name).read_bytes())
    code, _, err = visualized([*arguments, "--model", folder], capsys)
    assert code == 2
    assert "holds no tokenizer that Transformers can load" in err
