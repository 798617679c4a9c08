"""``python -m tests.sweep``: run the sweep, and write docs/models.md."""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from tests.sweep.checks import Result, check
from tests.sweep.models import build, classes
from tests.sweep.page import page


def _child(pipe: Any, name: str, kind: str, model_type: str) -> None:
    pipe.send(check(name, kind, model_type).as_dict())


def run(name: str, kind: str, model_type: str, seconds: float) -> dict[str, Any]:
    """The checks of one class in a process of its own."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(theirs, name, kind, model_type), daemon=True)
    process.start()
    theirs.close()
    try:
        if ours.poll(seconds):
            return ours.recv()
        reason = f"no result after {seconds:g} seconds"
    except EOFError:
        reason = "the process ended"
    finally:
        process.kill()
        process.join()
    return Result(name, kind, "error", reason).as_dict()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.sweep", description=__doc__)
    parser.add_argument("names", nargs="*", help="classes, such as LlamaForCausalLM; all by default")
    parser.add_argument("--workers", type=int, default=2, help="classes at a time (default: 2)")
    parser.add_argument("--seconds", type=float, default=60, help="at most, for one class (default: 60)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table, such as docs/models.md")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results")
    arguments = parser.parse_args()
    known = classes()
    if unknown := set(arguments.names) - set(known):
        parser.error(f"no such classes: {', '.join(sorted(unknown))}")
    chosen = arguments.names or list(known)
    torch.set_num_threads(1)
    build("LlamaForCausalLM", "llama", "causal")  # what every process would import
    results = []
    with ThreadPoolExecutor(arguments.workers) as pool:
        for result in pool.map(lambda name: run(name, *known[name], arguments.seconds), chosen):
            results.append(result)
            print(f"{result['status']:13}{result['name']:45}{result['reason'][:160]}", flush=True)
    print(dict(Counter(result["status"] for result in results)))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1), "utf-8")
    if arguments.write:
        arguments.write.write_text(page(results), "utf-8")


if __name__ == "__main__":
    main()
