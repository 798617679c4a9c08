// Both branches of RAttention, run side by side over the same rows: a few hundred rows of the sliding window are
// finished, then the state scan goes over them, and each pair of rows is handed out while both are in cache.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "kernels/rotary.h"
#include "linear/end_states.h"
#include "linear/state_scan.h"
#include "rattention/kept.h"
#include "rattention/rattention_problem.h"
#include "softmax/score_problem.h"

namespace rattention {

// A row of either branch before the norms, padded with zeros to whole vectors. Both may be changed.
struct BranchRow {
  std::int64_t batch;
  std::int64_t head;
  std::int64_t row;
  float* local;
  float* linear;
};

// What is wanted besides the rows.
struct BranchWants {
  const RAttentionKept* kept = nullptr;  // filled, rows before they are visited
  FinalStates final;
};

class Branches {
 public:
  using Visit = std::function<void(const BranchRow&)>;

  explicit Branches(const RAttentionProblem& problem);
  Branches(const Branches&) = delete;
  Branches& operator=(const Branches&) = delete;

  const ScanPlan& plan() const { return plan_; }
  const ScoreProblem& score() const { return score_; }
  // A window of -1 leaves the sliding window no keys.
  bool has_local() const { return problem_.window() >= 0; }

  // Visits every row once, from several threads; the rows of one section and head in order.
  void run(const BranchWants& want, const Visit& visit) const;

 private:
  // Consecutive stretches.
  struct Range {
    std::int64_t first;
    std::int64_t last;
  };

  std::vector<Range> tasks() const;
  // `states`: those of stretches, to be read where they are `summed` and else to be written; or none.
  template <typename Update>
  void run_stretches(const Range& range, std::int64_t kv_head, bool summed, float* states, const BranchWants& want,
                     const Visit& visit) const;
  template <typename Update>
  void run_range(const Range& range, std::int64_t kv_head, bool summed, float* states, const BranchWants& want,
                 const Visit& visit, StateScan<Update>& scan) const;
  template <typename Update>
  void run_all(const BranchWants& want, const Visit& visit) const;
  template <typename Update>
  void run_pieces(float* states, const BranchWants& want, const Visit& visit) const;
  template <typename Update>
  void run_heads(float* states, const BranchWants& want, const Visit& visit) const;
  void keep(const RAttentionKept& kept, const BranchRow& row) const;

  const RAttentionProblem& problem_;
  const LinearProblem& linear_;
  ScanPlan plan_;
  std::optional<Rotary> rotary_;
  ScoreProblem score_;
};

}  // namespace rattention
