// The score loop that all mechanisms of the softmax family share: a task walks over the key tiles its rows can see,
// packs each tile once and scores it block by block; a visitor turns the scores into outputs, statistics or gradients.
// Tiles lie on a grid fixed by the key length alone, so results depend neither on tasks nor on threads.
#pragma once

#include "core/threads.h"
#include "softmax/score_tile.h"

namespace rattention {

// Walks over the key tiles of a task. visit.tile(span) is called once per tile, visit.block(tile, block) once per block
// that sees some of it.
template <typename Visitor>
void sweep(const Task& task, ScoreTile& tile, Visitor& visit) {
  for (const QueryBlock& block : task.blocks) tile.load_queries(task.batch, block);
  for (std::int64_t start = task.keys.first / kTileKeys * kTileKeys; start < task.keys.last; start += kTileKeys) {
    stop_if_asked();
    const KeySpan span = tile.whole_panels(task.keys.intersect({start, start + kTileKeys}));
    tile.load_keys(task.batch, task.kv_head, span);
    visit.tile(span);
    for (const QueryBlock& block : task.blocks) {
      if (block.keys.intersect(span).empty()) continue;
      tile.score(task.batch, block);
      visit.block(tile, block);
    }
  }
}

}  // namespace rattention
