// What a state scan is asked to do, and how its tokens are cut.
//
// Row t reads the state of the keys up to t - window - 1. Sequences (contiguous segments) are independent. Their keys
// are cut into chunks: within a chunk rows meet keys directly, between chunks through the state. Chunks form stretches:
// a state is the sum of whole stretches, in order, plus the sum of chunks since the last stretch began. So the state at
// the start of a stretch can be saved, or summed apart from the others, and results do not depend on which thread takes
// which stretch. Short sequences have many stretches and few keys: tasks are groups of stretches, and states are saved
// only where keys of the same sequence came before, so that memory follows the tokens and not the sequences.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/keys.h"
#include "core/tensor.h"
#include "linear/feature_map.h"

namespace rattention {

struct LinearProblem {
  TensorView query;
  TensorView key;
  TensorView value;
  FeatureMap feature_map = FeatureMap::softmax;
  std::int64_t window = -1;              // from -1 (a row sees its own key) to the length
  const float* initial_state = nullptr;  // contiguous [batch, state_heads, 2 head_dim, value_dim], or none
  // What rounding has added to it (see RowKernels::add_compensated), in the same form; none = 0.
  const float* initial_excess = nullptr;
  std::int64_t state_heads = 0;  // as many as key/value heads, or as query heads
  std::optional<PaddingMask> padding;
  const std::int64_t* segments = nullptr;  // contiguous [batch, length]

  std::int64_t group() const { return key.heads() == 0 ? 1 : query.heads() / key.heads(); }
  std::int64_t delay() const { return window + 1; }
  bool state_per_query_head() const { return initial_state != nullptr && state_heads != key.heads(); }
  // Heads of the final state: one per key/value head unless the initial state has more.
  std::int64_t final_heads() const { return state_per_query_head() ? query.heads() : key.heads(); }
  std::int64_t user_state_size() const { return 2 * key.dim() * value.dim(); }
  // Sizes in working memory.
  std::int64_t features() const { return rattention::features(key.dim()); }
  // Rows of features that are made in place of the inputs they come from, see load_columns().
  std::int64_t feature_rows() const { return key.dim() + padded(key.dim()); }
  std::int64_t columns() const { return padded(value.dim()); }
  std::int64_t state_size() const { return features() * columns(); }
  bool hidden(std::int64_t b, std::int64_t j) const {
    return padding && padding->data[b * padding->strides[0] + j * padding->strides[1]] == std::byte{0};
  }
};

// Keys and rows per chunk. More of them mean fewer passes over the state (32 KiB for heads of 64) but more products of
// pairs; a multiple of the kernels' 6 rows and of the vectors' lanes.
constexpr std::int64_t kChunk = 48;

// Key keys.first + i is seen by row rows.first + i and those after it. The first rows of a sequence have no keys.
struct Chunk {
  KeySpan keys;
  KeySpan rows;
};

struct Stretch {
  std::int64_t batch = 0;
  KeySpan tokens;                 // of the whole sequence
  bool initial = false;           // the sequence starts from the initial state
  std::int64_t first_seeing = 0;  // the first row that sees anything
  std::int64_t delay = 0;
  std::int64_t first_chunk = 0;  // negative where rows have no keys
  std::int64_t last_chunk = 0;
  bool begins = false;     // the first of its sequence
  bool closes = false;     // the last of its sequence
  bool ends = false;       // the last of its batch entry
  std::int64_t group = 0;  // of stretches that are one task
  std::int64_t saved = 0;  // see ScanPlan::saved_states, where it keeps any

  // Keys of its sequence came before it; until then the state is what the sequence starts from.
  bool resumes() const { return first_chunk > 0; }
  bool has_keys() const { return last_chunk > 0; }
  // Whether states at its start are kept: the gradient of an initial state flows through all stretches.
  bool keeps() const { return resumes() || initial; }

  Chunk chunk(std::int64_t index) const;
  KeySpan rows() const { return {chunk(first_chunk).rows.first, chunk(last_chunk - 1).rows.last}; }
};

class ScanPlan {
 public:
  explicit ScanPlan(const LinearProblem& problem);

  // Stretches of batch entry b are [begin(b), begin(b + 1)), in order.
  std::int64_t begin(std::int64_t b) const { return begins_[static_cast<std::size_t>(b)]; }
  const Stretch& stretch(std::int64_t index) const { return stretches_[static_cast<std::size_t>(index)]; }
  // Consecutive stretches of one batch entry, [group_begin(g), group_begin(g + 1)).
  std::int64_t groups() const { return static_cast<std::int64_t>(group_begins_.size()) - 1; }
  std::int64_t group_begin(std::int64_t g) const { return group_begins_[static_cast<std::size_t>(g)]; }
  // Key/value heads of the whole batch.
  std::int64_t lanes() const { return lanes_; }
  // Pairs of a group and a key/value head, numbered group by group.
  std::int64_t pieces() const { return groups() * kv_heads_; }
  // States that are kept, and the place of a stretch's among them.
  std::int64_t saved_states() const { return saved_ * kv_heads_; }
  std::int64_t saved_state(const Stretch& stretch, std::int64_t kv_head) const {
    return stretch.saved * kv_heads_ + kv_head;
  }

  // Whether taking pieces rather than lanes as tasks pays: it keeps more threads busy but costs `extra` of the work.
  bool split_lanes(double extra) const;

 private:
  void cut_sequence(const LinearProblem& problem, Stretch sequence, std::int64_t chunks);
  void group_stretches(std::int64_t rows);

  std::int64_t kv_heads_;
  std::int64_t lanes_;
  std::int64_t saved_ = 0;
  std::vector<Stretch> stretches_;
  std::vector<std::int64_t> begins_;
  std::vector<std::int64_t> group_begins_;
};

// Chunks per stretch, from the shapes alone.
std::int64_t stretch_chunks(const LinearProblem& problem);

}  // namespace rattention
