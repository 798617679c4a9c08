"""Dark rooms: the rules, one implementation for one room and for many, and agents that learn in them."""

from __future__ import annotations

import numpy as np
import pytest

from tests.extras import needs

needs("studies")

import gymnasium
from gymnasium.utils.env_checker import check_env
from rattention.studies.dark_room import (
    ACTIONS,
    HARD,
    Collection,
    DarkRoom,
    DarkRooms,
    History,
    LearningHistories,
    QLearning,
    Room,
    collect,
    learn,
    oracle_returns,
    random_returns,
)

ROOMS = {
    "usual": Room(),
    "hard": HARD,
    "random start": Room(random_start=True),
    "small": Room(size=4, steps=7),
    "one cell": Room(size=1, steps=3, reward_once=True),
}
by_room = pytest.mark.parametrize("room", ROOMS.values(), ids=ROOMS)
SMALL = Collection(Room(size=3, steps=6), QLearning(episodes=5), per_goal=2, held_out=3)


class TestRules:
    @pytest.mark.filterwarnings("ignore:.*render modes")
    @by_room
    def test_gymnasium_accepts_it(self, room: Room) -> None:
        """`check_env` raises where a rule is broken."""
        env = DarkRoom(room=room)
        check_env(env)
        state, _ = env.reset(seed=0)
        assert env.observation_space.contains(state)

    def test_spaces_are_those_of_the_paper(self) -> None:
        env = DarkRoom()
        assert env.observation_space == gymnasium.spaces.Discrete(81)
        assert env.action_space == gymnasium.spaces.Discrete(5)

    @by_room
    def test_many_rooms_are_single_ones_step_for_step(self, room: Room) -> None:
        goals = np.random.default_rng(0).integers(room.states, size=5)
        actions = np.random.default_rng(1).integers(len(ACTIONS), size=(2 * room.steps, len(goals)))
        rooms, envs = DarkRooms(goals, room), [DarkRoom(int(goal), room) for goal in goals]
        for step, row in enumerate(actions):
            if step % room.steps == 0:
                starts = rooms.reset()
                for i, env in enumerate(envs):
                    env.reset(seed=step)
                    if room.random_start:
                        env._rooms.states[:] = starts[i]
            states, rewards, over = rooms.step(row)
            single = [env.step(int(action)) for env, action in zip(envs, row, strict=True)]
            assert [s[0] for s in single] == states.tolist()
            assert [s[1] for s in single] == rewards.tolist()
            assert {s[3] for s in single} == {over}
            assert not any(s[2] for s in single)

    @pytest.mark.parametrize(
        ("name", "reached"), list(zip(ACTIONS, (12, 11, 13, 7, 17), strict=True)), ids=ACTIONS
    )
    def test_actions_move(self, name: str, reached: int) -> None:
        assert Room(size=5).next_states()[12, ACTIONS.index(name)] == reached

    def test_walls_stop(self) -> None:
        corner = Room(size=3).next_states()[0]
        assert corner.tolist() == [0, 0, 1, 0, 3]

    @pytest.mark.parametrize(("once", "expected"), [(False, [1, 1, 0, 1]), (True, [1, 0, 0, 0])])
    def test_reward_at_the_goal(self, once: bool, expected: list[int]) -> None:
        rooms = DarkRooms([13], Room(size=5, reward_once=once))
        for _ in range(2):  # an episode forgets that there was a reward
            rooms.reset()
            assert [rooms.step([a])[1][0] for a in (2, 0, 2, 1)] == expected

    def test_an_episode_ends(self) -> None:
        env = DarkRoom(goal=0)
        with pytest.raises(gymnasium.error.ResetNeeded):
            env.step(0)
        env.reset()
        assert [env.step(0)[3] for _ in range(20)] == [False] * 19 + [True]
        with pytest.raises(ValueError, match="reset"):
            env.step(0)

    def test_a_goal_stays_until_a_seed_or_an_option_changes_it(self) -> None:
        env = DarkRoom()
        env.reset(seed=3)
        drawn = env.goal
        env.reset()
        assert env.goal == drawn
        env.reset(options={"goal": 7})
        assert env.goal == 7
        goals = set()
        for seed in range(20):
            env.reset(seed=seed)
            goals.add(env.goal)
        assert len(goals) > 5
        given = DarkRoom(goal=5)
        given.reset(seed=3)
        assert given.goal == 5

    @pytest.mark.parametrize(
        ("call", "said"),
        [
            (lambda: DarkRoom(goal=81), "between 0 and 80"),
            (lambda: DarkRooms([0, -1, 99]), "got -1, 99"),
            (lambda: DarkRooms([]), "at least one"),
            (lambda: DarkRoom().reset(options={"goal": 81}), "between 0 and 80"),
            (lambda: Room(size=0), "size must be between 1 and 100, got 0"),
            (lambda: Room(steps=0), "steps must be between"),
            (lambda: QLearning(epsilon=1.5), "epsilon must be between 0 and 1, got 1.5"),
            (lambda: QLearning(rate=float("nan")), "rate must be finite in float32, got nan"),
            (lambda: QLearning(discount=1.0), "discount must be below 1"),
            (lambda: QLearning(episodes=0), "episodes must be >= 1, got 0"),
            (lambda: Collection(held_out=81), "held_out must be between 1 and 80"),
            (lambda: Collection(per_goal=0), "per_goal must be >= 1"),
            (lambda: Collection(seed=-1), "seed must be >= 0"),
        ],
    )
    def test_mistakes_are_named(self, call, said: str) -> None:
        with pytest.raises(ValueError, match=said):
            call()

    @pytest.mark.parametrize(
        "call", [lambda: Room(size=9.0), lambda: DarkRooms([1.5]), lambda: QLearning(episodes=True)]
    )
    def test_wrong_kinds(self, call) -> None:
        with pytest.raises(TypeError):
            call()

    @pytest.mark.parametrize("actions", [[5], [-1], [0, 0], 0])
    def test_actions_are_checked(self, actions) -> None:
        rooms = DarkRooms([3])
        rooms.reset()
        with pytest.raises(ValueError, match="actions must be 1 numbers between 0 and 4"):
            rooms.step(actions)


class TestBaselines:
    def test_oracle_of_the_usual_room(self) -> None:
        """Arrival counts: 20 steps at a distance d give 21 - d, and 20 where the agent stands already."""
        mean = oracle_returns(np.arange(81)).mean()
        assert mean == pytest.approx(21 - 360 / 81 - 1 / 81)
        assert round(mean, 2) == 16.54

    @by_room
    def test_oracle_is_what_walking_there_gives(self, room: Room) -> None:
        """An agent that follows the distances, row first."""
        goals = np.arange(0, room.states, max(1, room.states // 9))
        rooms, total = DarkRooms(goals, room, generator=np.random.default_rng(2)), np.zeros(len(goals))
        episodes = 300 if room.random_start else 1
        for _ in range(episodes):
            states, over = rooms.reset(), False
            while not over:
                (row, column), (to_row, to_column) = (np.divmod(s, room.size) for s in (states, goals))
                sideways = np.where(to_column > column, 2, np.where(to_column < column, 1, 0))
                actions = np.where(to_row > row, 4, np.where(to_row < row, 3, sideways))
                states, rewards, over = rooms.step(actions)
                total += rewards
        tolerance = 0.6 if room.random_start else 1e-12
        np.testing.assert_allclose(total / episodes, oracle_returns(goals, room), atol=tolerance)

    @by_room
    def test_random_is_what_chance_gives(self, room: Room) -> None:
        goal = room.centre
        rooms = DarkRooms(np.full(4000, goal), room, generator=np.random.default_rng(3))
        rooms.reset()
        generator = np.random.default_rng(4)
        total = sum(rooms.step(generator.integers(5, size=4000))[1] for _ in range(room.steps))
        assert np.mean(total) == pytest.approx(random_returns([goal], room)[0], abs=0.15)

    def test_random_over_all_goals(self) -> None:
        """Somewhere the agent is: over all goals a step gives 1 of 81 on average."""
        assert random_returns(np.arange(81)).mean() == pytest.approx(20 / 81)


class TestLearning:
    def test_returns_rise_to_those_of_the_oracle(self) -> None:
        goals = np.arange(81)
        returns = learn(goals, seed=0).rewards.reshape(len(goals), -1, 20).sum(axis=2).mean(axis=0)
        assert returns[0] < 1
        assert 3 < returns[len(returns) // 4] < 11
        assert returns[-5:].mean() > 0.75 * oracle_returns(goals).mean()

    def test_the_hard_room_is_learned(self) -> None:
        goals = np.arange(0, 289, 24)
        rewards = learn(goals, QLearning(episodes=150, replays=5), HARD).rewards
        returns = rewards.reshape(len(goals), -1, 20).sum(axis=2).mean(axis=0)
        assert returns[:5].mean() < 0.3
        assert returns[-5:].mean() > 0.8
        assert returns.max() <= 1

    def test_histories_obey_the_rules(self) -> None:
        """Each transition is one of the room's, and begins where the one before ended, but for resets."""
        room = Room(size=5, steps=6)
        goals = np.arange(25)
        history = learn(goals, QLearning(episodes=7), room)
        assert len(history) == 42
        np.testing.assert_array_equal(
            room.next_states()[history.states, history.actions], history.next_states
        )
        np.testing.assert_array_equal(history.rewards, history.next_states == goals[:, None])
        starts = np.arange(42) % 6 == 0
        assert (history.states[:, starts] == room.centre).all()
        np.testing.assert_array_equal(history.states[:, ~starts], history.next_states[:, :-1][:, ~starts[1:]])

    def test_seeds_decide(self) -> None:
        first, again, other = (learn([3, 60], QLearning(episodes=4), seed=s) for s in (5, 5, 6))
        assert all((a == b).all() for a, b in zip(first.arrays(), again.arrays(), strict=True))
        assert (first.actions != other.actions).any()

    @pytest.mark.parametrize(
        ("settings", "epsilons"),
        [({"epsilon": 0.8, "annealing": 4}, [0.8, 0.6, 0.4, 0.2, 0, 0]), ({"annealing": 0}, [0, 0])],
    )
    def test_epsilon_falls(self, settings: dict[str, float], epsilons: list[float]) -> None:
        agent = QLearning(**settings)
        assert [agent.epsilon_in(i) for i in range(len(epsilons))] == pytest.approx(epsilons)


class TestHistories:
    def test_split_is_seeded_and_complete(self) -> None:
        train, held_out = Collection(seed=3).split()
        assert len(train) == 65
        assert sorted([*train, *held_out]) == list(range(81))
        assert (Collection(seed=3).split()[1] == held_out).all()
        assert (Collection(seed=4).split()[1] != held_out).any()

    def test_file_keeps_everything(self, tmp_path) -> None:
        histories = collect(SMALL)
        histories.save(tmp_path / "h.safetensors")
        loaded = LearningHistories.load(tmp_path / "h.safetensors")
        assert loaded.collection == SMALL
        np.testing.assert_array_equal(loaded.goals, histories.goals)
        for before, after in zip(histories.history.arrays(), loaded.history.arrays(), strict=True):
            assert before.dtype == after.dtype
            np.testing.assert_array_equal(before, after)
        assert [p.name for p in tmp_path.iterdir()] == ["h.safetensors"]

    def test_goals_are_chosen(self) -> None:
        histories = collect(SMALL)
        train, held_out = SMALL.split()
        parts = [histories.of_goals(goals) for goals in (train, held_out)]
        assert [len(part.goals) for part in parts] == [12, 6]
        assert not set(parts[0].goals) & set(parts[1].goals)

    def test_no_file(self, tmp_path) -> None:
        with pytest.raises(ValueError, match="does not exist: make it with rattention ad collect"):
            LearningHistories.load(tmp_path / "none.safetensors")

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda tensors: tensors.pop("goals"), "was not written by save"),
            (lambda tensors: tensors["actions"].fill(5), "actions outside 0 to 4"),
            (lambda tensors: tensors["states"].fill(9), "states outside 0 to 8"),
            (lambda tensors: tensors["rewards"].fill(np.nan), "no numbers"),
            (lambda tensors: tensors["goals"].fill(-1), "between 0 and 8"),
            (lambda tensors: tensors.update(goals=tensors["goals"][1:]), "where its settings say"),
            (lambda tensors: tensors.update(states=tensors["states"][:, 1:]), "alike"),
        ],
    )
    def test_damaged_files_are_named(self, tmp_path, change, said: str) -> None:
        from safetensors import numpy as numpy_files
        from safetensors import safe_open

        path = tmp_path / "h.safetensors"
        collect(SMALL).save(path)
        with safe_open(path, framework="np") as file:
            tensors, metadata = {n: file.get_tensor(n).copy() for n in file.keys()}, file.metadata()  # noqa: SIM118
        change(tensors)
        numpy_files.save_file(tensors, path, metadata)
        with pytest.raises(ValueError, match=said):
            LearningHistories.load(path)
        path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(ValueError, match="cannot be read"):
            LearningHistories.load(path)


class TestHistory:
    HISTORY = learn([1, 2], QLearning(episodes=2), Room(size=3, steps=3))

    @pytest.mark.parametrize("indices", [[0, 4], [-1], [], [[0, 1], [2, 3]]])
    def test_select(self, indices) -> None:
        chosen = self.HISTORY.select(indices)
        for before, after in zip(self.HISTORY.arrays(), chosen.arrays(), strict=True):
            for row in range(2):
                rows = indices[row] if indices and isinstance(indices[0], list) else indices
                assert after[row].tolist() == [before[row, i] for i in rows]

    @pytest.mark.parametrize(
        ("indices", "error"), [([6], IndexError), ([[0]], ValueError), (3, ValueError), ([[[0]]], ValueError)]
    )
    def test_wrong_indices(self, indices, error: type[Exception]) -> None:
        with pytest.raises(error):
            self.HISTORY.select(indices)

    def test_append_and_last(self) -> None:
        history = History.empty(2)
        for i in range(4):
            history = history.append([i, i], [1, 2], [0.5, 1], [3, 4])
        assert len(history) == 4
        assert history.last(3).states.tolist() == [[1, 2, 3], [1, 2, 3]]
        assert len(history.last(9)) == 4
        assert history.rewards.dtype == np.float32

    def test_arrays_must_belong_together(self) -> None:
        whole = np.zeros((2, 3), np.int64)
        with pytest.raises(ValueError, match="alike"):
            History(whole, whole, np.zeros((2, 2), np.float32), whole)
