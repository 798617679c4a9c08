// The gradients of the gated delta rule, chunk by chunk from the last to the first; see delta_chunk.h for the names.
//
// With g the gradients of outputs and R that of the state behind a chunk, updates receive sum_{i >= j} reads_ij g_i +
// joining_j R; the triangular system, solved from the last row to the first, makes of them the gradients of errors, and
// those are the gradients of values.
#include <algorithm>
#include <memory>

#include "core/threads.h"
#include "kernels/row_kernels.h"
#include "kernels/rows.h"
#include "linear/delta_chunk.h"
#include "linear/delta_rule.h"
#include "linear/delta_states.h"
#include "linear/feature_map.h"
#include "linear/scan_plan.h"
#include "linear/triangles.h"

namespace rattention {
namespace {

class DeltaBackward {
 public:
  DeltaBackward(const DeltaProblem& problem, const DeltaSaved& saved, const DeltaGradients& gradients, Scratch& scratch)
      : problem_(problem),
        saved_(saved),
        gradients_(gradients),
        width_(problem.width()),
        columns_(problem.columns()),
        chunk_(problem, scratch),
        state_(scratch.take(problem.state_size())),
        gradient_(scratch.take(problem.state_size())),
        state_columns_(scratch.take(problem.state_size())),
        gradient_columns_(scratch.take(problem.state_size())),
        update_rows_(scratch.take(kChunk * columns_)),
        update_columns_(scratch.take(columns_ * kChunk)),
        grads_(scratch.take(kChunk * columns_)),
        grad_updates_(scratch.take(kChunk * columns_)),
        grad_errors_(scratch.take(kChunk * columns_)),
        grad_pairs_{scratch.take(kChunk * kChunk), scratch.take(kChunk * kChunk)},
        rows_{scratch.take(kChunk * width_), scratch.take(kChunk * width_), scratch.take(kChunk * width_)},
        reading_(scratch.take(kChunk * width_)),
        joining_(scratch.take(kChunk * width_)),
        passing_(scratch.take(width_)),
        gates_(scratch.take(kChunk * width_)) {}

  static std::int64_t floats(const DeltaProblem& problem) {
    const auto up = Scratch::round_up;
    return DeltaChunk::floats(problem) + 4 * up(problem.state_size()) + 5 * up(kChunk * problem.columns()) +
           2 * kChunk * kChunk + 6 * up(kChunk * problem.width()) + up(problem.width());
  }

  // All gradients of a head; `states` are those before its chunks.
  void run(std::int64_t index, const SavedStates& states) {
    index_ = index;
    for (float* state : {state_, gradient_}) std::fill_n(state, problem_.state_size(), 0.0F);
    const std::vector<DeltaSequence> sequences = delta_sequences(problem_, batch());
    for (auto at = sequences.rbegin(); at != sequences.rend(); ++at) {
      const auto& [sequence, seeing] = *at;
      start_gradient(at == sequences.rbegin());
      for (std::int64_t i = ceil_div(sequence.size(), kChunk) - 1; i >= 0; --i) {
        stop_if_asked();
        const std::int64_t first = sequence.first + i * kChunk;
        if (i == 0) {
          load_initial(problem_, index_, sequence, state_);
        } else {
          states.load(first, state_);
        }
        run_chunk({first, std::min(sequence.last, first + kChunk)}, seeing);
      }
      if (sequence.first == 0 && gradients_.initial_state != nullptr) add_initial_gradient();
    }
  }

 private:
  std::int64_t batch() const { return index_ / problem_.query.heads(); }
  std::int64_t head() const { return index_ % problem_.query.heads(); }
  std::int64_t kv_index() const { return batch() * problem_.key.heads() + head() / problem_.group(); }

  // Nothing lies behind a sequence, but the final state behind the last.
  void start_gradient(bool last) {
    std::fill_n(gradient_, problem_.state_size(), 0.0F);
    behind_ = last && saved_.grad_state != nullptr && problem_.owns_state(index_);
    if (!behind_) return;
    const float* own = saved_.grad_state + problem_.state_at(index_);
    load_state(own, problem_.key.dim(), problem_.value.dim(), gradient_);
  }

  void add_initial_gradient() {
    const std::int64_t columns = problem_.value.dim();
    float* sum = gradients_.initial_state + problem_.state_at(index_);
    for (std::int64_t f = 0; f < problem_.key.dim(); ++f) {
      tile_kernels().add(sum + f * columns, gradient_ + f * columns_, columns);
    }
  }

  // With state_ before the chunk and gradient_ of that behind it.
  void run_chunk(KeySpan tokens, std::int64_t seeing) {
    tokens_ = tokens;
    chunk_.load(batch(), head(), tokens, seeing);
    chunk_.solve(state_);
    load_grads();
    solve_back();
    product_gradients();
    gate_terms();
    pair_gradients();
    gate_gradients();
    store_gradients();
    state_gradient();
    behind_ = true;
  }

  std::int64_t size() const { return tokens_.size(); }

  void load_grads() {
    for (std::int64_t i = 0; i < size(); ++i) {
      load_row(saved_.grad_output, batch(), head(), tokens_.first + i, grads_ + i * columns_, columns_);
    }
    std::fill_n(grads_, chunk_.unseeing() * columns_, 0.0F);
  }

  // Gradients of updates, then of errors; without correction they are the same.
  void solve_back() {
    const TileKernels& kernels = tile_kernels();
    std::fill_n(grad_updates_, size() * columns_, 0.0F);
    add_upper_rows(chunk_.reads(), size(), FiniteRows(grads_, size(), columns_), grad_updates_);
    if (behind_) {
      kernels.multiply_add({chunk_.joining_keys(), width_}, size(), problem_.key.dim(), gradient_, columns_, columns_,
                           grad_updates_, columns_);
    }
    if (!problem_.corrects()) {
      std::copy_n(grad_updates_, size() * columns_, grad_errors_);
      return;
    }
    for (std::int64_t first = (size() - 1) / kernels.block * kernels.block; first >= 0; first -= kernels.block) {
      const std::int64_t last = std::min(size(), first + kernels.block);
      float* updates = grad_updates_ + first * columns_;
      const float* ties = chunk_.ties() + first;
      kernels.multiply_add({ties + last * kChunk, kChunk, true}, last - first, size() - last,
                           grad_errors_ + last * columns_, columns_, columns_, updates, columns_);
      row_kernels().substitute_back(ties + first * kChunk, kChunk, chunk_.beta() + first, last - first, columns_,
                                    updates, grad_errors_ + first * columns_);
    }
  }

  // Gradients of queries and keys as they read the state and join it, without their pairs: rows_.
  void product_gradients() {
    const TileKernels& kernels = tile_kernels();
    const RowKernels& rows = row_kernels();
    rows.transpose(state_, columns_, width_, columns_, state_columns_, width_);
    for (float* gradient : {rows_.queries, rows_.reading_keys, rows_.keys}) {
      std::fill_n(gradient, size() * width_, 0.0F);
    }
    const std::int64_t depth = problem_.value.dim();
    kernels.multiply_add({grads_, columns_}, size(), depth, state_columns_, width_, width_, rows_.queries, width_);
    chunk_.decay().since_start(rows_.queries, rows_.queries);
    if (problem_.corrects()) {
      kernels.multiply_add({grad_errors_, columns_}, size(), depth, state_columns_, width_, width_, rows_.reading_keys,
                           width_);
      chunk_.decay().since_start(rows_.reading_keys, rows_.reading_keys);
      kernels.scale(rows_.reading_keys, size() * width_, -1.0F);
    }
    if (!behind_) return;
    rows.transpose(gradient_, columns_, width_, columns_, gradient_columns_, width_);
    kernels.multiply_add({chunk_.updates(), columns_}, size(), depth, gradient_columns_, width_, width_, rows_.keys,
                         width_);
    chunk_.decay().until_end(rows_.keys, rows_.keys);
  }

  void pair_gradients() {
    const std::int64_t depth = problem_.value.dim();
    const float* updates = updates_in_columns();
    lower_product({grads_, columns_}, updates, size(), depth, grad_pairs_.reads);
    clear_upper(grad_pairs_.reads, size(), Diagonal::in);
    if (problem_.corrects()) {
      lower_product({grad_errors_, columns_}, updates, size(), depth, grad_pairs_.ties);
      tile_kernels().scale(grad_pairs_.ties, size() * kChunk, -1.0F);
      clear_upper(grad_pairs_.ties, size(), Diagonal::out);
    }
    chunk_.decay().products_back(chunk_.pairs(), grad_pairs_, chunk_.queries(), chunk_.keys(), rows_);
  }

  const float* updates_in_columns() {
    const std::int64_t whole = padded(size());
    std::copy_n(chunk_.updates(), size() * columns_, update_rows_);
    std::fill_n(update_rows_ + size() * columns_, (whole - size()) * columns_, 0.0F);
    row_kernels().transpose(update_rows_, columns_, whole, columns_, update_columns_, kChunk);
    return update_columns_;
  }

  void gate_terms() {
    for (std::int64_t i = 0; i < size() * width_; ++i) {
      reading_[i] = chunk_.queries()[i] * rows_.queries[i];
      if (problem_.corrects()) reading_[i] += chunk_.keys()[i] * rows_.reading_keys[i];
      joining_[i] = chunk_.keys()[i] * rows_.keys[i];
    }
    const float* passing = chunk_.decay().passing();
    std::fill_n(passing_, width_, 0.0F);
    for (std::int64_t f = 0; behind_ && f < problem_.key.dim(); ++f) {
      passing_[f] = passing[f] * tile_kernels().dot(state_ + f * columns_, gradient_ + f * columns_, columns_);
    }
  }

  void gate_gradients() {
    chunk_.decay().store_gradient({reading_, joining_, passing_}, gates_);
    row_kernels().sum(rows_.keys, rows_.reading_keys, size() * width_, rows_.keys);
  }

  // Of this head's token i among all heads' tokens.
  std::int64_t token(std::int64_t i) const { return index_ * problem_.query.length() + tokens_.first + i; }

  void store_gradients() {
    const TileKernels& kernels = tile_kernels();
    const std::int64_t gates = problem_.gates();
    for (std::int64_t i = 0; i < size(); ++i) {
      if (i >= chunk_.unseeing()) {
        float* query = rows_.queries + i * width_;
        unnormalize(chunk_.queries() + i * width_, chunk_.query_factors(), i, problem_.scale, query);
        std::copy_n(query, problem_.query.dim(), gradients_.query + token(i) * problem_.query.dim());
      }
      if (chunk_.hidden(i)) continue;
      kernels.add(gradients_.log_gate + problem_.gate_at(index_, tokens_.first + i), gates_ + i * gates, gates);
      float* key = rows_.keys + i * width_;
      unnormalize(chunk_.keys() + i * width_, chunk_.key_factors(), i, 1.0F, key);
      const std::int64_t at = kv_index() * problem_.key.length() + tokens_.first + i;
      kernels.add(gradients_.key + at * problem_.key.dim(), key, problem_.key.dim());
      kernels.add(gradients_.value + at * problem_.value.dim(), grad_errors_ + i * columns_, problem_.value.dim());
      if (!problem_.corrects()) continue;
      gradients_.beta[token(i)] =
          kernels.dot(grad_updates_ + i * columns_, chunk_.errors() + i * columns_, problem_.value.dim());
    }
  }

  // From the gradient of scale * x / |x|, given that vector.
  void unnormalize(const float* unit, const float* factors, std::int64_t i, float scale, float* gradient) const {
    const TileKernels& kernels = tile_kernels();
    if (problem_.normalize && scale != 0.0F) {
      const float along = kernels.dot(unit, gradient, width_) / scale / scale;
      for (std::int64_t c = 0; c < width_; ++c) gradient[c] -= along * unit[c];
    }
    kernels.scale(gradient, width_, scale * factors[i]);
  }

  void state_gradient() {
    const TileKernels& kernels = tile_kernels();
    const std::int64_t dim = problem_.key.dim();
    chunk_.decay().decay_state(gradient_, columns_);
    kernels.multiply_add({chunk_.reading_queries(), width_, true}, dim, size(), grads_, columns_, columns_, gradient_,
                         columns_);
    if (!problem_.corrects()) return;
    kernels.multiply_add({chunk_.reading_keys(), width_, true}, dim, size(), grad_errors_, columns_, columns_,
                         gradient_, columns_);
  }

  const DeltaProblem& problem_;
  const DeltaSaved& saved_;
  const DeltaGradients& gradients_;
  const std::int64_t width_;
  const std::int64_t columns_;
  std::int64_t index_ = 0;
  KeySpan tokens_;
  bool behind_ = false;  // gradient_ is not zero
  DeltaChunk chunk_;
  float* state_;
  float* gradient_;
  float* state_columns_;
  float* gradient_columns_;
  float* update_rows_;
  float* update_columns_;
  float* grads_;
  float* grad_updates_;
  float* grad_errors_;
  ChunkPairs grad_pairs_;
  RowGradients rows_;
  float* reading_;  // see GateTerms
  float* joining_;
  float* passing_;
  float* gates_;  // gradients of the log gates [n][gates]
};

void run_kv_head(const DeltaProblem& problem, const DeltaSaved& saved, const DeltaGradients& gradients,
                 std::int64_t kv_index) {
  const std::int64_t heads = problem.query.heads();
  const std::int64_t floats = SavedStates::floats(problem);
  std::unique_ptr<float[]> own;
  if (saved.states == nullptr) own.reset(new float[static_cast<std::size_t>(floats)]);
  for (std::int64_t g = 0; g < problem.group(); ++g) {
    const std::int64_t index =
        kv_index / problem.key.heads() * heads + kv_index % problem.key.heads() * problem.group() + g;
    float* states = own ? own.get() : const_cast<float*>(saved.states) + index * floats;
    if (own) save_states(problem, index, states);
    Scratch& scratch = thread_scratch();
    scratch.reset(DeltaBackward::floats(problem));
    DeltaBackward(problem, saved, gradients, scratch).run(index, SavedStates(problem, states));
  }
}

}  // namespace

void delta_backward(const DeltaProblem& problem, const DeltaSaved& saved, const DeltaGradients& gradients) {
  parallel_for(problem.key.batch() * problem.key.heads(),
               [&](std::int64_t kv_index) { run_kv_head(problem, saved, gradients, kv_index); });
}

}  // namespace rattention
