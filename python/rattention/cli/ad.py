"""``rattention ad``: histories of learning agents, and a transformer that goes on learning like them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rattention._files import save_figures, writable_folder, write_json
from rattention.cli import inputs
from rattention.cli.options import Folder, Group, Numbers, Seeded, option
from rattention.cli.text import Style, note, paragraph, progress, table, table_of
from rattention.mechanisms.table import MECHANISMS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from rattention.studies.dark_room import Collection, Comparison, HistoryTransformer, LearningHistories


FOLDER = Path("runs/dark_room")
HISTORIES = "histories.safetensors"
PATTERNS = tuple(name for name in MECHANISMS if name != "residual_linear")
"""Mechanisms that `rattention.nn` has layers of: that one is a branch of RAttention."""


@dataclass(frozen=True)
class Collect(Seeded):
    """Let Q-learning agents learn in dark rooms, and keep their histories.

    Agents learn for every goal of the room; some goals, chosen by --seed, are held out from training. Writes
    histories.safetensors into --out and prints how the returns rise.
    """

    EXAMPLES = (
        "# 2592 histories of the usual room, in seconds",
        "--per-goal 4 --out runs/few",
        "--hard --episodes 150 --out runs/hard",
    )

    out: Folder = option(FOLDER, "Write the histories into this folder.")
    hard: bool = option(False, "Use the hard room: 17 x 17, and the goal rewards once an episode.")
    size: int | None = option(None, "Make rooms N squares long and wide instead of 9 (17 in the hard room).")
    episode_steps: int = option(20, "End an episode after N steps.")
    random_start: bool = option(False, "Begin episodes anywhere instead of in the centre.")
    episodes: int = option(40, "Let each agent learn for N episodes.")
    per_goal: int = option(32, "Collect N histories for each goal.")
    held_out: int = option(16, "Hold N goals out from training.")
    epsilon: float = option(0.5, "Act at random with probability P in the first episode.")
    annealing: int = option(20, "Lower that probability to 0 within N episodes.")
    optimism: float = option(
        0.0, "Begin with values of this share of the largest possible: longer exploring."
    )

    def run(self) -> int:
        """Collect, print and save."""
        from rattention.studies.dark_room import HARD, Collection, QLearning, Room

        usual = HARD if self.hard else Room()
        room = dataclasses.replace(usual, steps=self.episode_steps, **self.given("size", "random_start"))
        agent = QLearning(**self.given("episodes", "epsilon", "annealing", "optimism"))
        collection = Collection(room, agent, **self.given("per_goal", "held_out", "seed"))
        histories, seconds = _collected(collection, writable_folder(self.out))
        train, held_out = histories.collection.split()
        data = {
            **self.circumstances(),
            "histories": len(histories.goals),
            "path": str(self.out / HISTORIES),
            "train_goals": train.tolist(),
            "held_out_goals": held_out.tolist(),
            "returns": histories.returns().mean(axis=0).round(4).tolist(),
            "configuration": dataclasses.asdict(histories.collection),
            "seconds": round(seconds, 3),
        }
        self.show(data, lambda style: _histories_text(histories, self.out / HISTORIES, seconds, style))
        return 0


@dataclass(frozen=True)
class Train(Seeded):
    """Train a transformer to predict what learning agents do next.

    Reads the histories in --out, and collects the usual ones where there are none. Writes into --out, now and
    then and at the end: dark_room.safetensors (the model), training.json (its record), tensorboard/ (logs)
    and training.pt (the checkpoint). Ctrl-C finishes the step and leaves them up to date; --resume goes on
    with the same result as without a break.
    """

    EXAMPLES = (
        "# the checkpoint that comes with the package, made again",
        "--resume            # go on where Ctrl-C stopped",
        "--steps 200 --dim 32 --depth 2 --out runs/quick",
        "--pattern rattention --window 64 --out runs/rattention",
    )

    out: Folder = option(FOLDER, "Read histories from this folder, and write results into it.")
    steps: int = option(4000, "Train for N optimizer steps.")
    batch: int = option(64, "Use N windows of histories in a step.")
    every: int = option(6, "Skip up to all but every Nth episode: a context then shows more progress.")
    learning_rate: float = option(3e-3, "Warm up to this learning rate; then follow half a cosine down.")
    context: int = option(100, "Let the model see N transitions: 100 are 5 episodes of 20.")
    dim: int = option(64, "Make the model N wide.")
    heads: int = option(4, "Give each layer N heads.")
    depth: int = option(4, "Use N layers.")
    pattern: str = option(
        "softmax",
        f"Use this attention: {', '.join(PATTERNS)}. In softmax every other layer has rotary embeddings; in "
        "rattention one layer in four has full attention.",
    )
    window: int = option(40, "See N tokens back, in sliding_window and rattention.")
    resume: bool = option(False, "Go on from the checkpoint in --out.")

    def run(self) -> int:
        """Train, print and save."""
        from rattention.studies.dark_room import Training, training

        self.use_threads()
        if self.pattern not in PATTERNS:
            raise ValueError(f"--pattern must be one of {', '.join(PATTERNS)}, got {self.pattern!r}")
        schedule = Training(**self.given("steps", "batch", "every", "learning_rate", "seed"))
        folder = writable_folder(self.out)
        if self.resume:
            _require_more_steps(folder, self.steps)
        sizes = self.given("context", "dim", "heads", "depth")
        sizes["pattern"] = _pattern(self.pattern, self.window)
        model = training.train(_histories(folder), folder, schedule, sizes=sizes, resume=self.resume)
        record = training.read_record(folder)
        data = self.circumstances() | record
        self.show(data, lambda style: _training_text(model, folder, record["curve"], style))
        return 0


@dataclass(frozen=True)
class Evaluate(Seeded):
    """Let a trained model find goals, and compare it with chance, its teachers and an oracle.

    Measures the return of each episode from an empty context on, without any change of weights. Writes
    evaluation.json and the figures returns.png and returns.svg into --out.
    """

    EXAMPLES = (
        "# held-out goals: table, figure, JSON",
        "--episodes 20 --goals 0,8,72,80    # the four corners",
        "--model runs/quick/dark_room.safetensors --temperature 0.5 --json",
    )

    model: Path | None = option(None, "Evaluate this model; by default that in --out, else the shipped one.")
    out: Folder = option(FOLDER, "Write results into this folder.")
    goals: Numbers = option(None, "Try these goals (row * size + column); by default those held out.")
    episodes: int = option(40, "Play N episodes, with one context that slides when it is full.")
    attempts: int = option(1, "Try each goal N times and take the mean.")
    temperature: float = option(1.0, "Sample actions at this temperature; 0 takes the most likely one.")

    def run(self) -> int:
        """Evaluate, print and save."""
        from rattention.studies.dark_room import compare
        from rattention.studies.dark_room.figures import returns_figure

        self.use_threads()
        model, file = inputs.history_transformer(self._file())
        folder = writable_folder(self.out)
        began = time.perf_counter()
        result = compare(
            model,
            progress=lambda episodes: progress(episodes, "evaluate"),
            **self.given("goals", "episodes", "attempts", "temperature", "seed"),
        )
        data = {
            **result.as_data(),
            "trained": model.record,
            **self.circumstances(),
            "seconds": round(time.perf_counter() - began, 3),
        }
        data["configuration"]["model"] = file.name
        write_json(folder / "evaluation.json", data)
        save_figures(folder, {"returns": returns_figure(result)})
        self.show(data, lambda style: _comparison_text(result, file.name, folder, style))
        return 0

    def _file(self) -> Path | None:
        from rattention.studies.dark_room import training

        own = self.out / training.MODEL
        if self.model is not None or own.is_file():
            return self.model or own
        note(f"{self.out} has no model yet: this is the one that comes with the package")
        return None


def _collected(collection: Collection, folder: Path) -> tuple[LearningHistories, float]:
    """Histories, saved in a folder, and the seconds they took."""
    from rattention.studies.dark_room import collect

    began = time.perf_counter()
    histories = collect(collection, progress=lambda episodes: progress(episodes, "collect"))
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


def _require_more_steps(folder: Path, steps: int) -> None:
    """A training that is finished can only be resumed with more steps."""
    from rattention.studies.dark_room import training

    if not (folder / training.RECORD).is_file():
        return
    record = training.read_record(folder)
    done, planned = record["steps_done"], record["training"]["steps"]
    if done >= planned and steps <= done:
        raise ValueError(
            f"the training in {folder} is finished after {done} steps: give --steps above {done} to go on"
        )


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


SHOWN_EPISODES = 10
"""As many points of a curve are printed at most."""
LEARNED = 0.1
"""A model has learned where it gets this share of what the oracle gets more than chance."""


def _histories_text(found: LearningHistories, path: Path, seconds: float, style: Style) -> str:
    """How the returns of the source agents rise."""
    from rattention.studies.dark_room import oracle_returns

    collection = found.collection
    train, held_out = collection.split()
    oracle = oracle_returns(found.goals, collection.room).mean()
    return style.section(
        "Histories of agents that learn",
        paragraph(
            f"{len(found.goals):,} histories of {collection.agent.episodes} episodes in "
            f"{seconds:.1f} s: {len(train)} goals to train on and {len(held_out)} held out, "
            f"{collection.per_goal} agents each, in a room of side {collection.room.size}."
        ),
        _curve(found.returns().mean(axis=0), float(oracle), style),
        paragraph(f"Knowing the goal gives {oracle:.2f}."),
        f"Saved in {path}",
    )


def _training_text(
    model: HistoryTransformer, folder: Path, curve: Sequence[Mapping[str, float]], style: Style
) -> str:
    """How the losses fell, and where the model is."""
    from rattention.nn import count_parameters

    columns: dict[str, Callable[[Mapping[str, float]], str]] = {
        "steps": "{step:.0f}".format_map,
        "loss": "{query_loss:.3f}".format_map,
        "loss\nheld out": "{held_out_query_loss:.3f}".format_map,
        "accuracy\nheld out": "{held_out_query_accuracy:.0%}".format_map,
    }
    return style.section(
        "Training",
        paragraph(
            f"{count_parameters(model)['total']:,} parameters, {model.record['steps_done']:,} steps in "
            f"{model.record['seconds'] / 60:.1f} minutes; losses in nats."
        ),
        table_of(columns, (curve[i] for i in _some(len(curve))), style),
        paragraph(f"Saved in {folder}; see what it learned with: rattention ad evaluate --out {folder}"),
    )


def _comparison_text(result: Comparison, name: str, folder: Path, style: Style) -> str:
    """The curve of returns, every goal, and whether the model has learned."""
    data = result.as_data()
    mean = data["mean"]
    returns = (result.random, result.first(), result.last(), result.source_last(), result.oracle)
    rows = []
    for i in np.argsort(-result.oracle, kind="stable"):  # the nearest goals first
        row, column = divmod(result.goals[i], result.room.size)
        values = [each[i] for each in returns]
        rows.append((f"({row}, {column})", *(f"{v:.1f}" for v in values), _bar(values, style)))
    rows.append(("all", *(f"{mean[key]:.2f}" for key in mean), _bar([*mean.values()], style)))
    header = (
        "goal\nrow, column",
        "random",
        "model\nfirst",
        f"model\nlast {data['last']}",
        f"teacher\nlast {data['last']}",
        "oracle",
        "model / oracle",
    )
    return style.section(
        f"Returns of {name} without any change of weights",
        _curve(result.returns.mean(axis=0), float(result.oracle.mean()), style) + "\n",
        table(header, rows, style),
        paragraph(_verdict(mean)),
        paragraph(f"Saved in {folder}: evaluation.json, returns.png, returns.svg"),
    )


def _verdict(mean: Mapping[str, float]) -> str:
    """Nothing for a model that has learned."""
    gain, possible = mean["last_episodes"] - mean["random"], mean["oracle"] - mean["random"]
    if possible <= 0 or gain >= LEARNED * possible:
        return ""
    return (
        f"The model has not learned to find goals: {mean['last_episodes']:.2f} at the end, "
        f"{mean['random']:.2f} by random actions. Train longer: rattention ad train --steps N."
    )


def _bar(values: Sequence[float], style: Style) -> str:
    """The model's last return as a share of the oracle's."""
    _, _, last, _, oracle = values
    share = last / oracle if oracle else 0.0
    return f"{style.bar(share)} {share:.0%}"


def _curve(returns: NDArray[np.float64], oracle: float, style: Style) -> str:
    """Mean return of some episodes, with bars."""
    rows = [
        (str(i + 1), f"{returns[i]:.2f}", style.bar(returns[i] / oracle if oracle else 0.0, 30))
        for i in _some(len(returns))
    ]
    return table(("episode", "mean return", "share of the oracle's"), rows, style)


def _some(count: int) -> list[int]:
    """Indices from the first to the last, at even distances."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, SHOWN_EPISODES))})


AD = Group(
    """Train a transformer that goes on learning while its weights stay as they are.

    Algorithm Distillation in Dark Room: agents learn by Q-learning to find a goal they cannot see (collect),
    a transformer learns to predict what they do next from all they have done (train), and then finds goals it
    was never trained on, better from episode to episode, without any change of its weights (evaluate).
    """,
    ("collect     # histories of agents that learn", "train", "evaluate"),
    {"collect": Collect, "train": Train, "evaluate": Evaluate},
)
