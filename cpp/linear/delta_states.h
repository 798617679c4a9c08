// How the tokens of the delta rule are read and cut, and where states are saved. Chunks depend on each other, so a head
// is one task, and a state is saved before each chunk but the first of a sequence.
#pragma once

#include <cstdint>
#include <vector>

#include "core/scratch.h"
#include "linear/delta_problem.h"

namespace rattention {

// A segment, or all tokens of a batch entry, perhaps none; and the first token that sees anything: rows before it are
// 0.
struct DeltaSequence {
  KeySpan tokens;
  std::int64_t seeing;
};
std::vector<DeltaSequence> delta_sequences(const DeltaProblem& problem, std::int64_t batch);

// The saved states of one head, [head_dim][saved_columns] each. Chunks that resume a sequence begin at least kChunk
// tokens after each other: so the token where a chunk begins gives its place, whatever the segments.
class SavedStates {
 public:
  static std::int64_t count(const DeltaProblem& problem);
  static std::int64_t floats(const DeltaProblem& problem);  // of one head

  SavedStates(const DeltaProblem& problem, float* states);
  void store(std::int64_t token, const float* state) const;
  void load(std::int64_t token, float* state) const;

 private:
  float* at(std::int64_t token) const;

  const DeltaProblem& problem_;
  float* states_;
};

// Runs a head for its states alone.
void save_states(const DeltaProblem& problem, std::int64_t index, float* states);

// A head's state at the start of a sequence, [head_dim][columns]: the initial state, which may lie there, or zeros.
void load_initial(const DeltaProblem& problem, std::int64_t index, KeySpan sequence, float* state);

// A row of queries or keys [width] times `scale`, and normalised where the problem says so, by the factor that is
// returned.
float load_delta_row(const DeltaProblem& problem, const TensorView& view, std::int64_t batch, std::int64_t head,
                     std::int64_t i, float scale, float* row);

}  // namespace rattention
