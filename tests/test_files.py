"""Files are there whole or not at all."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import pytest
from rattention._files import save_figure, writable_folder, write_csv, write_json, write_text

if TYPE_CHECKING:
    from pathlib import Path


class Spoilt(Exception):
    pass


class SpoiltFigure:
    """Dies halfway."""

    def savefig(self, path: Path, **_options: object) -> None:
        path.write_bytes(b"half")
        raise Spoilt


def spoilt_rows():
    yield (1, 2)
    raise Spoilt


WRITERS = {
    "json": (lambda path: write_json(path, {"a": float("nan")}), ValueError),
    "csv": (lambda path: write_csv(path, ("a", "b"), spoilt_rows()), Spoilt),
    "figure": (lambda path: save_figure(path, SpoiltFigure()), Spoilt),
    "text": (lambda path: write_text(path, "\ud800"), UnicodeEncodeError),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("before", ["old", None])
def test_a_failure_leaves_what_was_there(tmp_path: Path, writer: str, before: str | None) -> None:
    path = tmp_path / "file.png"
    if before is not None:
        path.write_text(before, "utf-8")
    write, error = WRITERS[writer]
    with pytest.raises(error):
        write(path)
    assert [p.name for p in tmp_path.iterdir()] == ([] if before is None else ["file.png"])
    assert before is None or path.read_text("utf-8") == before


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "Aimé", "none": None})
    write_csv(tmp_path / "a.csv", ("x", "y"), [(1.5, None), ("a,b", 2)])
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == {"name": "Aimé", "none": None}
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["x", "y"], ["1.5", ""], ["a,b", "2"]]


def test_folder_is_made_with_its_parents_and_left_empty(tmp_path: Path) -> None:
    folder = writable_folder(tmp_path / "a" / "b")
    assert folder.is_dir()
    assert list(folder.iterdir()) == []
    assert writable_folder(folder) == folder


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_file_in_the_way(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(OSError, match="cannot write there") as caught:
        writable_folder(tmp_path / name)
    assert caught.value.filename == str(tmp_path / name)


def test_a_folder_without_a_name() -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        writable_folder("")
