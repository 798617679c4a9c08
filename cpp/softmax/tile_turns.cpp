#include "softmax/tile_turns.h"

#include <thread>

#include "core/threads.h"

namespace rattention {

TileTurns::TileTurns(const TaskPlan& plan, std::int64_t tile_keys, std::int64_t key_length)
    : tile_keys_(tile_keys),
      tiles_((key_length + tile_keys - 1) / tile_keys),
      parts_(plan.parts()),
      part_keys_(static_cast<std::size_t>(plan.count())),
      turns_(static_cast<std::size_t>(plan.heads() * tiles_)) {
  for (std::int64_t index = 0; index < plan.count(); ++index) {
    const Task task = plan.task(index);
    part_keys_[static_cast<std::size_t>(task.kv_index * parts_ + task.part)] = task.keys;
  }
  for (std::int64_t head = 0; head < plan.heads(); ++head) {
    for (std::int64_t tile = 0; tile < tiles_; ++tile) {
      turns_[static_cast<std::size_t>(head * tiles_ + tile)] = next_part(head, 0, tile);
    }
  }
}

std::int64_t TileTurns::next_part(std::int64_t head, std::int64_t from, std::int64_t tile) const {
  const KeySpan keys{tile * tile_keys_, (tile + 1) * tile_keys_};
  while (from < parts_ && part_keys_[static_cast<std::size_t>(head * parts_ + from)].intersect(keys).empty()) ++from;
  return from;
}

void TileTurns::wait(const Task& task, std::int64_t tile) const {
  while (turns_[slot(task, tile)].load(std::memory_order_acquire) != task.part) {
    stop_if_asked();  // a part that has failed never passes
    std::this_thread::yield();
  }
}

void TileTurns::pass(const Task& task, std::int64_t tile) {
  turns_[slot(task, tile)].store(next_part(task.kv_index, task.part + 1, tile), std::memory_order_release);
}

}  // namespace rattention
