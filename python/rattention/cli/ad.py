"""``rattention ad``: histories of learning agents, and a transformer that goes on learning like them."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from rattention._config import show_config
from rattention._files import save_figure, writable_folder, write_json
from rattention._installed import versions
from rattention.cli import ad_report
from rattention.cli.numbers import whole_numbers
from rattention.cli.terminal import Style, note, progress
from rattention.cli.threads import use_threads

if TYPE_CHECKING:
    from rattention.studies.dark_room import (
        Collection,
        Comparison,
        HistoryTransformer,
        LearningHistories,
        Room,
    )

FOLDER = Path("runs/dark_room")
HISTORIES = "histories.safetensors"

COLLECT_EXAMPLES = (
    "# 2592 histories of the usual room, in seconds",
    "--per-goal 4 --out runs/few",
    "--hard --episodes 150 --out runs/hard",
)
TRAIN_EXAMPLES = (
    "# the checkpoint that comes with the package, made again",
    "--resume            # go on where Ctrl-C stopped",
    "--steps 200 --dim 32 --depth 2 --out runs/quick",
    "--pattern rattention --window 64 --out runs/rattention",
)
EVALUATE_EXAMPLES = (
    "# held-out goals: table, figure, JSON",
    "--episodes 20 --goals 0,8,72,80    # the four corners",
    "--model runs/quick/dark_room.safetensors --temperature 0.5 --json",
)


@dataclass(frozen=True)
class Ad:
    """A transformer that goes on learning while its weights stay as they are.

    Algorithm Distillation in Dark Room: agents learn by Q-learning to find a goal they cannot see (collect),
    a transformer learns to predict what they do next from all they have done (train), and then finds goals it
    was never trained on, better from episode to episode, without any change of its weights (evaluate).
    """


@dataclass(frozen=True)
class Collect:
    """Let Q-learning agents learn in dark rooms and keep their histories.

    Agents learn for every goal of the room; some goals are held out from training, drawn by --seed. Writes
    histories.safetensors into --out and prints how the returns rise.
    """

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = FOLDER
    """Where the histories go."""
    hard: bool = False
    """The hard room: 17 x 17, and the goal gives its reward once an episode. It wants more episodes."""
    size: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Length of a side; 9, and 17 in the hard room."""
    episode_steps: Annotated[int, tyro.conf.arg(metavar="N")] = 20
    """Length of an episode."""
    random_start: bool = False
    """Episodes start anywhere instead of in the centre."""
    episodes: Annotated[int, tyro.conf.arg(metavar="N")] = 40
    """Length of a learning history."""
    per_goal: Annotated[int, tyro.conf.arg(metavar="N")] = 32
    """Histories of each goal."""
    held_out: Annotated[int, tyro.conf.arg(metavar="N")] = 16
    """Goals kept from training."""
    epsilon: Annotated[float, tyro.conf.arg(metavar="P")] = 0.5
    """Probability of a random action in the first episode."""
    annealing: Annotated[int, tyro.conf.arg(metavar="N")] = 20
    """Episodes until there are no random actions any more."""
    optimism: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 0.0
    """First value of every action, as a share of the largest there can be: how long agents explore."""
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Of the split and of the agents."""
    json: bool = False
    """Print JSON on stdout instead of text."""


@dataclass(frozen=True)
class Train:
    """Train a transformer to predict what learning agents do next.

    Reads the histories in --out, and collects the usual ones where there are none. Writes into --out, now and
    then and at the end: dark_room.safetensors (the model), training.json (its record), tensorboard/ (logs)
    and training.pt (the checkpoint). Ctrl-C finishes the step and leaves them up to date; --resume goes on
    with the same result as without a break.
    """

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = FOLDER
    """Where histories are and results go."""
    steps: Annotated[int, tyro.conf.arg(metavar="N")] = 4000
    """Optimizer steps."""
    batch: Annotated[int, tyro.conf.arg(metavar="N")] = 64
    """Windows of histories in a step."""
    every: Annotated[int, tyro.conf.arg(metavar="N")] = 6
    """Leave out episodes of histories, up to all but each so-many-th: a context shows more progress."""
    learning_rate: Annotated[float, tyro.conf.arg(metavar="RATE")] = 3e-3
    """Its peak; after a warm-up half a cosine down."""
    context: Annotated[int, tyro.conf.arg(metavar="N")] = 100
    """Transitions that the model sees: 100 are 5 episodes of 20."""
    dim: Annotated[int, tyro.conf.arg(metavar="N")] = 64
    """Width."""
    heads: Annotated[int, tyro.conf.arg(metavar="N")] = 4
    depth: Annotated[int, tyro.conf.arg(metavar="N")] = 4
    """Layers."""
    pattern: Literal[
        "softmax",
        "sliding_window",
        "rattention",
        "gravitational",
        "multi_timescale",
        "gravitational_multi_timescale",
    ] = "softmax"
    """Attention of the layers. softmax: rotary embedding in every other layer; rattention: three such layers
    to one of full attention."""
    window: Annotated[int, tyro.conf.arg(metavar="N")] = 40
    """Of sliding_window and rattention: a token sees itself and so many before."""
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Of first weights and batches."""
    resume: bool = False
    """Go on from the checkpoint in --out."""
    threads: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Threads to compute with; 0 = one per processor, or OMP_NUM_THREADS."""
    json: bool = False
    """Print JSON on stdout instead of text."""


@dataclass(frozen=True)
class Evaluate:
    """Let a trained model find goals, and compare it with chance, its teachers and an oracle.

    The return of each episode from an empty context on, without any change of weights. Writes evaluation.json
    and the figures returns.png and returns.svg into --out.
    """

    model: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """A model of rattention ad train. By default the one in --out or, where there is none, the one that comes
    with the package."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = FOLDER
    """Where results go."""
    goals: Annotated[str | None, tyro.conf.arg(metavar="N,N,...")] = None
    """States, row * size + column; by default those held out from training."""
    episodes: Annotated[int, tyro.conf.arg(metavar="N")] = 40
    """How many, with one context that slides when it is full."""
    attempts: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Times that each goal is tried, for the mean."""
    temperature: Annotated[float, tyro.conf.arg(metavar="T")] = 1.0
    """Of drawing actions; 0 takes the most likely one."""
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Of drawing actions, and of the agents it is compared with."""
    threads: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Threads to compute with; 0 = one per processor, or OMP_NUM_THREADS."""
    json: bool = False
    """Print JSON on stdout instead of text."""


def collect(options: Collect) -> int:
    """Collect, print and save; ValueError and OSError say what is wrong with the options."""
    from rattention.studies.dark_room import Collection, QLearning

    agent = QLearning(
        episodes=options.episodes,
        epsilon=options.epsilon,
        annealing=options.annealing,
        optimism=options.optimism,
    )
    collection = Collection(
        _room(options), agent, per_goal=options.per_goal, held_out=options.held_out, seed=options.seed
    )
    histories, seconds = _collected(collection, writable_folder(options.out))
    path = options.out / HISTORIES
    if options.json:
        print(json.dumps(_histories_data(histories, path, seconds), allow_nan=False))
    else:
        print(ad_report.of_histories(histories, path, seconds, Style.of()))
    return 0


def train(options: Train) -> int:
    """Train, print and save; ValueError and OSError say what is wrong with the options."""
    from rattention.studies.dark_room import Training, training

    use_threads(options.threads)
    schedule = Training(
        steps=options.steps,
        batch=options.batch,
        every=options.every,
        learning_rate=options.learning_rate,
        seed=options.seed,
    )
    folder = writable_folder(options.out)
    model = training.train(
        _histories(folder),
        folder,
        schedule,
        sizes={
            "context": options.context,
            "dim": options.dim,
            "heads": options.heads,
            "depth": options.depth,
            "pattern": _pattern(options.pattern, options.window),
        },
        resume=options.resume,
    )
    record = training.read_record(folder)
    if options.json:
        print(json.dumps(record | {"versions": versions()}))
    else:
        print(ad_report.of_training(model, folder, record["curve"], Style.of()))
    return 0


def evaluate(options: Evaluate) -> int:
    """Evaluate, print and save; ValueError and OSError say what is wrong with the options."""
    from rattention.studies.dark_room import HistoryTransformer, compare

    use_threads(options.threads)
    goals = None if options.goals is None else whole_numbers("goals", options.goals)
    path = _model_path(options)
    model = HistoryTransformer.load(path)
    folder = writable_folder(options.out)
    began = time.perf_counter()
    result = compare(
        model,
        goals,
        options.episodes,
        attempts=options.attempts,
        temperature=options.temperature,
        seed=options.seed,
        progress=lambda episodes: progress(episodes, "evaluate", "episode"),
    )
    data = _comparison_data(result, model, options, path, time.perf_counter() - began)
    saved = _save(folder, result, data)
    if options.json:
        print(json.dumps(data, allow_nan=False))
    else:
        print(ad_report.of_comparison(result, path.name, Style.of()))
        print(f"Saved in {folder}: {', '.join(saved)}")
    return 0


def _room(options: Collect) -> Room:
    from rattention.studies.dark_room import HARD, Room

    usual = HARD if options.hard else Room()
    return dataclasses.replace(
        usual,
        size=usual.size if options.size is None else options.size,
        steps=options.episode_steps,
        random_start=options.random_start,
    )


def _collected(collection: Collection, folder: Path) -> tuple[LearningHistories, float]:
    """Histories, saved in a folder, and the seconds they took."""
    from rattention.studies.dark_room import collect

    began = time.perf_counter()
    histories = collect(collection, progress=lambda episodes: progress(episodes, "collect", "episode"))
    seconds = time.perf_counter() - began
    histories.save(folder / HISTORIES)
    return histories, seconds


def _histories(folder: Path) -> LearningHistories:
    """Those in a folder; where there are none, the usual ones."""
    from rattention.studies.dark_room import Collection, LearningHistories

    if (folder / HISTORIES).exists():
        return LearningHistories.load(folder / HISTORIES)
    note(f"{folder} has no histories yet: collecting the usual ones")
    return _collected(Collection(), folder)[0]


def _pattern(name: str, window: int) -> Any:
    """The `pattern` of `rattention.nn.TransformerEncoder`."""
    from rattention.nn import SlidingWindow, rattention_pattern
    from rattention.studies.dark_room.model import TURNED_AND_NOT

    patterns = {
        "softmax": TURNED_AND_NOT,
        "rattention": rattention_pattern(window),
        "sliding_window": SlidingWindow(window),
    }
    return patterns.get(name, name)


def _model_path(options: Evaluate) -> Path:
    from rattention.studies.dark_room import example_checkpoint, training

    if options.model is not None:
        if not options.model.is_file():
            raise ValueError(f"{options.model} does not exist: make a model with rattention ad train")
        return options.model
    own = options.out / training.MODEL
    if own.is_file():
        return own
    note(f"{options.out} has no model yet: this is the one that comes with the package")
    return example_checkpoint()


def _histories_data(histories: LearningHistories, path: Path, seconds: float) -> dict[str, Any]:
    train, held_out = histories.collection.split()
    return {
        "histories": len(histories.goals),
        "path": str(path),
        "train_goals": train.tolist(),
        "held_out_goals": held_out.tolist(),
        "returns": histories.returns().mean(axis=0).round(4).tolist(),
        "configuration": dataclasses.asdict(histories.collection),
        "versions": versions(),
        "hardware": show_config(),
        "seconds": round(seconds, 3),
    }


def _comparison_data(
    result: Comparison, model: HistoryTransformer, options: Evaluate, path: Path, seconds: float
) -> dict[str, Any]:
    """All numbers, and everything needed to get them again."""
    configuration = dataclasses.asdict(options) | {"model": path.name, "out": str(options.out)}
    return {
        **result.as_data(),
        "trained": model.record,
        "configuration": configuration,
        "versions": versions(),
        "hardware": show_config(),
        "seconds": round(seconds, 3),
    }


def _save(folder: Path, result: Comparison, data: dict[str, Any]) -> list[str]:
    from rattention.studies.dark_room.figures import returns_figure

    write_json(folder / "evaluation.json", data)
    figure = returns_figure(result)
    for name in ("returns.png", "returns.svg"):
        save_figure(folder / name, figure)
    return ["evaluation.json", "returns.png", "returns.svg"]
