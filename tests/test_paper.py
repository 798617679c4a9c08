"""``rattention paper``: cache sizes, the page that it prints, and PDFs sound and broken."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rattention.cli.paper import LOOKS_LIKE_IT
from rattention.studies.paper import page, pdf
from rattention.studies.paper.savings import PRESETS, CacheBytes, CacheModel, cache_bytes

from tests.extras import needs

MODEL_12B = PRESETS["12b"]


def write_pdf(path: Path, pages: list[list[str]]) -> Path:
    """A PDF with one text line per entry."""
    count = len(pages)
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(count))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {count} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for i, lines in enumerate(pages):
        shown = "\n".join(f"({line}) Tj T*" for line in lines)
        text = f"BT /F1 12 Tf 14 TL 50 750 Td\n{shown}\nET"
        objects += [
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents {5 + 2 * i} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>",
            f"<< /Length {len(text)} >>\nstream\n{text}\nendstream",
        ]
    out = "%PDF-1.4\n"
    offsets = []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n"
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    out += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{out.index('xref')}\n%%EOF\n"
    path.write_bytes(out.encode("latin-1"))
    return path


def at_12b(window: int, **changes: Any) -> CacheBytes:
    return cache_bytes(replace(MODEL_12B, window=window, **changes), 4096)


def percent(cache: CacheBytes, design: str) -> float:
    return round(100 * cache.saved(design), 1)


def test_full_cache_per_token() -> None:
    assert cache_bytes(PRESETS["3b"], 1).full == 112 * 1024
    assert cache_bytes(PRESETS["12b"], 1).full == 160 * 1024


def test_savings_of_the_12b_model() -> None:
    """The paper's figure leaves the state out; the others count states of the keys' dtype."""
    assert round(100 * at_12b(1024).saved("sliding_window")) == 56
    cache = at_12b(512, state_dtype="bfloat16")
    assert percent(cache, "sliding_window") == 65.6
    assert percent(cache, "rattention") == 63.3
    assert percent(cache, "rattention_state_per_query_head") == 53.9


@pytest.mark.parametrize(
    ("design", "state_tokens"),
    [("sliding_window", 0), ("rattention", 128), ("rattention_state_per_query_head", 640)],
)
@pytest.mark.parametrize("keys", [512, 1024])
def test_saving_equals_the_closed_form(design: str, state_tokens: int, keys: int) -> None:
    """A window of w + 1 keys and a state that weighs as much as s tokens save 3/4 (1 - (w + 1 + s) / L)."""
    cache = at_12b(keys - 1, state_dtype="bfloat16")
    assert cache.saved(design) == pytest.approx(0.75 * (1 - (keys + state_tokens) / 4096), abs=1e-12)


def test_bytes_are_those_of_the_arrays() -> None:
    """Counted array by array, layer by layer, rather than by the formula."""
    model = CacheModel(layers=6, heads=4, kv_heads=2, head_dim=8, window=3, global_every=3, dtype="float32")
    for length in (1, 3, 4, 5, 100):
        held = 0
        for layer in range(1, model.layers + 1):
            is_global = layer % 3 == 0
            rows = length if is_global else min(length, 4)
            held += 2 * (2 * rows * 8 * 4)
            held += 0 if is_global else 2 * (16 * 8 * 4)
        assert cache_bytes(model, length).rattention == held


def test_short_contexts_may_cost_more() -> None:
    assert cache_bytes(MODEL_12B, 100).saved("rattention") < 0
    assert cache_bytes(MODEL_12B, 100).saved("sliding_window") == 0


def test_all_layers_local_or_global() -> None:
    assert replace(MODEL_12B, global_every=0).global_layers == 0
    every_layer_global = replace(MODEL_12B, global_every=1)
    assert cache_bytes(every_layer_global, 4096).saved("rattention") == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"window": -1}, "window must be at least 0, got -1"),
        ({"kv_heads": 7}, "kv_heads must divide heads, got 7 and 40"),
        ({"dtype": "int8"}, "dtype must be one of float32, bfloat16, float16, got 'int8'"),
    ],
)
def test_impossible_models(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        replace(MODEL_12B, **changes)


def test_sections_of_the_page() -> None:
    by_title = {section.title: section for section in page.sections()}
    assert list(by_title)[1:6] == ["Objectives", "Method", "Results", "Limits", "Outlook"]
    tables = by_title["Results"].tables
    assert [table.place for table in tables] == [
        *("table 1", "table 2", "figure 5", "figure 6", "table 3", "table 4")
    ]
    assert all(len(cells) == len(table.columns) for table in tables for _, cells in table.rows)
    assert all(
        re.fullmatch(r"\d+\.\d\d", cell) for table in tables for _, cells in table.rows for cell in cells
    )
    places = [point for title in ("Objectives", "Method") for point in by_title[title].points]
    assert all(point.endswith(")") for point in places), "each says where it stands"


def test_nothing_of_the_page_is_lost() -> None:
    words = re.findall(r"\w+", re.sub(r"\|-+", "", page.source()))
    parsed = []
    for section in page.sections():
        parsed += [section.title, *section.paragraphs, *section.points]
        for table in section.tables:
            parsed += [
                table.title,
                table.place,
                *table.columns,
                *(" ".join((name, *row)) for name, row in table.rows),
            ]
    assert sorted(words) == sorted(re.findall(r"\w+", " ".join(parsed)))


def test_a_table_needs_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "source", lambda: "# title\n\ncaption\n\n| | a |\n|---|---|\n| b | 1 |")
    with pytest.raises(ValueError, match="place in brackets, got 'caption'"):
        page.sections.__wrapped__()


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("sliding window attention", "a Slid-\ning win-\ndow\nattention layer"),
        ("sliding window attention", "sliding-window attentions"),
        ("local-global", "the local-\nglobal model"),
        ("local-global", "local\u2013global"),
        ("fixed-size state", "a \ufb01xed-size state"),
        ("residual linear attention", "RESIDUAL\nLINEAR  ATTENTION"),
        ("chunk size", "chunk si\u00adzes"),
        ("w+1", "at most w + 1 tokens"),
        ("56%", "about 56 % of it"),
        ("4096", "contexts of 4,096 tokens"),
        ("56.70", "MMLU 56.70."),
        ("400B", "400 B tokens"),
    ],
)
def test_found_across_breaks_and_spellings(expression: str, text: str) -> None:
    assert len(pdf.find([text], [expression])[expression]) == 1


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("RLA", "overlap and RLAX"),
        ("512", "2512, 5120, 512.5 and 1,512"),
        ("56.70", "156.70 and 56.701"),
        ("56%", "0.56% and 56 percent"),
        ("Pareto", "paretological"),
    ],
)
def test_not_found_within_other_words_and_numbers(expression: str, text: str) -> None:
    assert pdf.find([text], [expression])[expression] == []


def test_places_name_the_page_and_the_words_around(tmp_path: Path) -> None:
    needs("pdf")
    path = write_pdf(
        tmp_path / "paper.pdf",
        [
            ["Nothing of the kind."],
            ["Before it, the slid-", "ing window attention", "reached 56.70 at last, twice 56.70."],
        ],
    )
    found = pdf.find(pdf.read_pages(path), ["sliding window attention", "56.70", "RULER"])
    assert [place.page for place in found["sliding window attention"]] == [2]
    assert "the sliding window attention reached" in found["sliding window attention"][0].context
    assert len(found["56.70"]) == 2
    assert found["RULER"] == []


def test_context_holds_nothing_a_terminal_obeys() -> None:
    (place,) = pdf.find(["\x1b[31mred\x07 56%\x9b2J after"], ["56%"])["56%"]
    assert place.context == "[31mred 56%2J after"


def encrypted(path: Path, source: Path, password: str) -> Path:
    needs("pdf")
    import pypdf

    writer = pypdf.PdfWriter(clone_from=source)
    writer.encrypt(user_password=password, owner_password="owner", algorithm="RC4-128")
    writer.write(path)
    return path


def test_a_pdf_with_an_empty_password_opens(tmp_path: Path) -> None:
    plain = write_pdf(tmp_path / "plain.pdf", [["GSM8K 33.74"]])
    locked = encrypted(tmp_path / "locked.pdf", plain, "")
    assert pdf.find(pdf.read_pages(locked), ["33.74"])["33.74"]


def bad_pdfs(folder: Path) -> dict[str, tuple[Path, str]]:
    """File and what must be said about it, by fault."""
    needs("pdf")
    sound = write_pdf(folder / "sound.pdf", [["some text"]] * 3)
    text = folder / "notes.pdf"
    text.write_text("just words")
    empty = folder / "empty.pdf"
    empty.write_bytes(b"")
    header_only = folder / "header.pdf"
    header_only.write_bytes(b"%PDF-1.7\n")
    garbled = folder / "garbled.pdf"
    garbled.write_bytes(sound.read_bytes().replace(b"/Pages", b"/Pagan").replace(b"obj", b"jbo"))
    return {
        "missing": (folder / "absent.pdf", "No such file"),
        "folder": (folder, "directory"),
        "not a PDF": (text, "is not a PDF"),
        "empty": (empty, "is not a PDF"),
        "header only": (header_only, "cannot be read as a PDF"),
        "garbled": (garbled, "cannot be read as a PDF"),
        "locked": (encrypted(folder / "locked.pdf", sound, "secret"), "needs a password"),
        "no text": (write_pdf(folder / "scan.pdf", [[""]]), "holds no text"),
    }


FAULTS = ["missing", "folder", "not a PDF", "empty", "header only", "garbled", "locked", "no text"]


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_pdfs_are_named(fault: str, tmp_path: Path) -> None:
    path, message = bad_pdfs(tmp_path)[fault]
    with pytest.raises(pdf.PdfError, match=message):
        pdf.read_pages(path)


def test_a_pdf_cut_anywhere_is_read_or_refused(tmp_path: Path) -> None:
    needs("pdf")
    whole = write_pdf(tmp_path / "whole.pdf", [["some text"]]).read_bytes()
    cut = tmp_path / "cut.pdf"
    for length in range(0, len(whole), 7):
        cut.write_bytes(whole[:length])
        try:
            found = pdf.find(pdf.read_pages(cut), ["some text"])
        except pdf.PdfError:
            continue
        assert len(found["some text"]) <= 1


def paper(*options: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rattention", "paper", *map(str, options)],
        capture_output=True,
        text=True,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "120"},
        check=False,
        timeout=120,
    )


def test_the_command_prints_page_and_savings() -> None:
    done = paper("--window", "1024", "--lengths", "4096")
    assert done.returncode == 0, done.stderr
    words = " ".join(done.stdout.split())
    assert page.TITLE in words
    assert all(text in words for section in page.sections() for text in (section.title, *section.points))
    row = next(line for line in done.stdout.splitlines() if line.split()[:1] == ["4,096"])
    assert "640.0" in row
    assert "56.2%" in row
    assert "In one sentence: a window of 512 tokens" in done.stdout.split("Objectives")[0]


def test_json_holds_exact_bytes(tmp_path: Path) -> None:
    needs("pdf")
    path = write_pdf(tmp_path / "own.pdf", [["Our copy says 50.80", "and 66.26."]])
    done = paper("--model", "3b", "--layers", "8", "--lengths", "1024,4096", "--json", "--pdf", path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    expected = replace(PRESETS["3b"], layers=8)
    assert [cache["length"] for cache in said["caches"]] == [1024, 4096]
    assert said["caches"][1]["rattention"] == cache_bytes(expected, 4096).rattention
    assert [place["page"] for place in said["pdf"]["found"]["66.26"]] == [1]
    assert said["pdf"]["found"]["56.70"] == []
    assert not said["pdf"]["looks_like_the_paper"]


def test_the_command_lists_places(tmp_path: Path) -> None:
    needs("pdf")
    done = paper("--pdf", write_pdf(tmp_path / "own.pdf", [["", ""], ["RULER gives 66.26 at 8k"]]))
    assert done.returncode == 0, done.stderr
    assert "page 2: RULER gives 66.26 at 8k" in done.stdout
    assert "This does not look like the paper: only 2 of the page's" in done.stdout
    assert "Not in it" not in done.stdout


def test_a_copy_of_the_paper_is_recognised(tmp_path: Path) -> None:
    needs("pdf")
    there = [*page.searchable()]
    some = there[: round(LOOKS_LIKE_IT * len(there)) + 1]
    done = paper("--pdf", write_pdf(tmp_path / "own.pdf", [some]))
    assert done.returncode == 0, done.stderr
    assert f"It has {len(some)} of the page's {len(there)} terms and numbers" in done.stdout
    assert "does not look like" not in done.stdout
    assert there[-1] in done.stdout.split("Not in it")[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lengths", "4k"], "--lengths must be whole numbers"),
        (["--lengths", "0"], "at least 1"),
        (["--kv-heads", "7"], "kv_heads must divide heads"),
        (["--layers", "some"], "layers"),
        (["--dtype", "int8"], "dtype"),
    ],
)
def test_bad_options_exit_with_2(options: list[str], message: str) -> None:
    done = paper(*options)
    assert done.returncode == 2
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_pdfs_exit_with_2(fault: str, tmp_path: Path) -> None:
    path, message = bad_pdfs(tmp_path)[fault]
    done = paper("--pdf", path)
    assert done.returncode == 2
    assert message.lower() in " ".join(done.stderr.lower().split())
    assert "Traceback" not in done.stderr
    assert not done.stdout
