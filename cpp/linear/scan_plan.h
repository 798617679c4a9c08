// How the tokens of a state scan are cut. From the smallest to the largest:
//
//   chunk     up to kChunk keys, and the rows that meet them directly; between chunks rows meet keys through the state
//   stretch   consecutive chunks of one sequence. A state is the sum of whole stretches, in order, plus the sum of
//             chunks since the last stretch began: so the state at the start of a stretch can be saved, or summed apart
//             from the others, and results do not depend on which thread takes which stretch
//   sequence  a segment, or all tokens of a batch entry. Sequences are independent; they have stretches of their own
//   section   consecutive stretches of one batch entry, of whole sequences where those are short: work for a task
//   piece     a section and a key/value head
//
// States are saved only where keys of the same sequence came before, so that memory follows the tokens and not the
// sequences.
#pragma once

#include <cstdint>
#include <vector>

#include "core/keys.h"
#include "linear/linear_problem.h"

namespace rattention {

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
  bool begins = false;  // the first of its sequence
  bool closes = false;  // the last of its sequence
  bool ends = false;    // the last of its batch entry
  std::int64_t section = 0;
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
  // Stretches of section i are [section_begin(i), section_begin(i + 1)).
  std::int64_t sections() const { return static_cast<std::int64_t>(section_begins_.size()) - 1; }
  std::int64_t section_begin(std::int64_t i) const { return section_begins_[static_cast<std::size_t>(i)]; }
  // Key/value heads of all batch entries.
  std::int64_t batch_heads() const { return batch_heads_; }
  // Pairs of a section and a key/value head, numbered section by section.
  std::int64_t pieces() const { return sections() * kv_heads_; }
  // States that are kept, and the place of a stretch's among them.
  std::int64_t saved_states() const { return saved_ * kv_heads_; }
  std::int64_t saved_state(const Stretch& stretch, std::int64_t kv_head) const {
    return stretch.saved * kv_heads_ + kv_head;
  }

  // Whether taking pieces rather than heads as tasks pays: it keeps more threads busy but costs `extra` of the work.
  bool split_heads(double extra) const;

 private:
  void cut_sequence(const LinearProblem& problem, Stretch sequence, std::int64_t chunks);
  void cut_sections(std::int64_t rows);

  std::int64_t kv_heads_;
  std::int64_t batch_heads_;
  std::int64_t saved_ = 0;
  std::vector<Stretch> stretches_;
  std::vector<std::int64_t> begins_;
  std::vector<std::int64_t> section_begins_;
};

// One past the end of the segment of batch entry b that starts at `first`; all tokens where `segments` is none.
std::int64_t segment_end(const std::int64_t* segments, std::int64_t length, std::int64_t b, std::int64_t first);

// Columns of a state that is kept for the backward pass: as many on every processor.
std::int64_t kept_columns(std::int64_t value_dim);

// Chunks and tokens per stretch, from the shapes alone: query heads per key/value head.
std::int64_t stretch_chunks(std::int64_t group);
inline std::int64_t stretch_tokens(std::int64_t group) { return stretch_chunks(group) * kChunk; }

// Floats that the states of any plan of these shapes take at most, whatever its segments, map, gates and the vectors'
// lanes: tracers know shapes alone, and have the same formula in Python.
std::int64_t most_saved_floats(const LinearProblem& problem);

}  // namespace rattention
