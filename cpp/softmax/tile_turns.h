// Lets tasks that add to the same key tiles do so in a fixed order: deterministic sums without atomics on floats.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "softmax/task_plan.h"

namespace rattention {

// Parts of one key/value head add to a tile in the order of their numbers. Parts are started in that order and walk
// over the tiles in ascending order, so a part waits for its predecessor for one tile at most; there is no deadlock,
// because the lowest unfinished part never waits.
class TileTurns {
 public:
  TileTurns(const TaskPlan& plan, std::int64_t tile_keys, std::int64_t key_length);

  // Waits until every earlier part that sees the tile has passed it on, or ends the task as stop_if_asked() does.
  void wait(const Task& task, std::int64_t tile) const;
  void pass(const Task& task, std::int64_t tile);

 private:
  std::int64_t next_part(std::int64_t head, std::int64_t from, std::int64_t tile) const;
  std::size_t slot(const Task& task, std::int64_t tile) const {
    return static_cast<std::size_t>(task.kv_index * tiles_ + tile);
  }

  std::int64_t tile_keys_;
  std::int64_t tiles_;
  std::int64_t parts_;
  std::vector<KeySpan> part_keys_;  // [heads][parts]
  std::vector<std::atomic<std::int64_t>> turns_;
};

}  // namespace rattention
