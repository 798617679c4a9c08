// How states and products decay over the tokens of a chunk. With G_i the sum of log gates up to and including token i:
// row i reads the state before the chunk times e^{G_i}, key j joins that behind it times e^{G_last - G_j}, and row i
// meets key j < i times e^{G_i - G_j}. All exponents are <= 0, so that nothing overflows and what underflows is
// nothing.
#pragma once

#include <cstdint>
#include <memory>

#include "core/scratch.h"
#include "linear/delta_problem.h"
#include "linear/scan_plan.h"

namespace rattention {

// Triangles [n][kChunk], see triangles.h: queries by keys, and keys by earlier keys.
struct ChunkPairs {
  float* reads;
  float* ties;
};

// Where gradients [n][width] are added: those of keys as they read, and as they are read.
struct RowGradients {
  float* queries;
  float* reading_keys;
  float* keys;
};

// What the state gives to gradients of log gates [n][width]: rows that read that before the chunk, keys that join that
// behind it, and [width] what passes the whole chunk.
struct GateTerms {
  float* reading;
  float* joining;
  const float* passing;
};

class ChunkDecay {
 public:
  virtual ~ChunkDecay() = default;

  // Gates of the rows of a head; hidden tokens let everything pass.
  virtual void load(std::int64_t batch, std::int64_t head, KeySpan rows) = 0;
  // rows [n][width] as they read the state before the chunk, and as they join that behind it.
  virtual void since_start(const float* rows, float* out) const = 0;
  virtual void until_end(const float* rows, float* out) const = 0;
  // Products of the rows that see each other, decayed: of queries and keys, and of keys and earlier keys; zero where
  // they do not see. `panel` holds the keys in columns.
  virtual void products(const float* queries, const float* keys, const float* panel, ChunkPairs pairs) = 0;
  // The way back, from gradients of the same form; keeps what of them is the gates'.
  virtual void products_back(ChunkPairs pairs, ChunkPairs grads, const float* queries, const float* keys,
                             const RowGradients& gradients) = 0;
  // What the whole chunk leaves of each row of a state [width], as rates and as it is.
  void decay_state(float* state, std::int64_t columns) const;
  const float* passing() const { return passing_; }
  // Stores the gradients of the log gates, once products_back() was called: a gate takes part in all that passes it.
  // These are sums of just that; differences of larger sums would lose the gradients of gates that let little pass.
  virtual void store_gradient(const GateTerms& terms, float* gradient) = 0;

 protected:
  ChunkDecay(const DeltaProblem& problem, Scratch& scratch);
  static std::int64_t own_floats(const DeltaProblem& problem) { return 3 * Scratch::round_up(problem.width()); }
  // From the sums of log gates of the whole chunk, in rates_.
  void find_rates();

  const DeltaProblem& problem_;
  std::int64_t size_ = 0;
  float* rates_;
  std::int32_t* keeps_;
  float* passing_;
};

std::unique_ptr<ChunkDecay> make_decay(const DeltaProblem& problem, Scratch& scratch);
std::int64_t decay_floats(const DeltaProblem& problem);

namespace detail {
std::unique_ptr<ChunkDecay> decay_of_channels(const DeltaProblem& problem, Scratch& scratch);
std::int64_t channel_decay_floats(const DeltaProblem& problem);
}  // namespace detail

// A log gate so low that it forgets everything: e^kLowestGate is 0 in float32.
constexpr float kLowestGate = -200.0F;

}  // namespace rattention
