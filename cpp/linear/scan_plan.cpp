#include "linear/scan_plan.h"

#include <algorithm>

#include "core/threads.h"

namespace rattention {
namespace {

std::int64_t floor_div(std::int64_t a, std::int64_t b) { return a >= 0 ? a / b : -ceil_div(-a, b); }

}  // namespace

std::int64_t segment_end(const std::int64_t* segments, std::int64_t length, std::int64_t b, std::int64_t first) {
  if (segments == nullptr || first >= length) return length;
  const std::int64_t* ids = segments + b * length;
  return std::find_if(ids + first, ids + length, [&](std::int64_t id) { return id != ids[first]; }) - ids;
}

std::int64_t kept_columns(std::int64_t value_dim) {
  constexpr std::int64_t kMostLanes = 16;
  return ceil_div(value_dim, kMostLanes) * kMostLanes;
}

// What the backward pass keeps of a stretch should stay in the second-level cache: 80 KiB per chunk and head of 64.
std::int64_t stretch_chunks(std::int64_t group) {
  constexpr std::int64_t kRows = 384;
  return std::max<std::int64_t>(1, kRows / (kChunk * std::max<std::int64_t>(1, group)));
}

// A stretch that resumes its sequence has a whole one before it. From an initial state all keep theirs: those without
// keys, and what begins or ends between multiples.
std::int64_t most_saved_floats(const LinearProblem& problem) {
  constexpr std::int64_t kBesideWhole = 3;
  const std::int64_t whole = problem.key.length() / (stretch_tokens(problem.group()));
  const std::int64_t states = whole + (problem.initial_state != nullptr ? kBesideWhole : 0);
  const std::int64_t columns = kept_columns(problem.value.dim());
  return problem.key.batch() * problem.key.heads() * states * (2 * problem.key.dim() * columns + kBesideState);
}

Chunk Stretch::chunk(std::int64_t index) const {
  const std::int64_t rows_before = std::min(delay, tokens.size());
  const std::int64_t keys = tokens.size() - rows_before;
  const std::int64_t first = std::max(index * kChunk, -rows_before);
  const std::int64_t last = std::min((index + 1) * kChunk, index < 0 ? 0 : keys);
  const std::int64_t row = tokens.first + rows_before;
  Chunk chunk;
  chunk.rows = {row + first, row + last};
  if (index >= 0) chunk.keys = {tokens.first + first, tokens.first + last};
  return chunk;
}

ScanPlan::ScanPlan(const LinearProblem& problem)
    : kv_heads_(problem.key.heads()), batch_heads_(problem.key.batch() * problem.key.heads()) {
  const std::int64_t chunks = stretch_chunks(problem.group());
  const std::int64_t length = problem.key.length();
  for (std::int64_t b = 0; b < problem.key.batch(); ++b) {
    begins_.push_back(static_cast<std::int64_t>(stretches_.size()));
    for (std::int64_t first = 0, last = 0; first < length; first = last) {
      last = segment_end(problem.segments, length, b, first);
      Stretch sequence;
      sequence.batch = b;
      sequence.tokens = {first, last};
      sequence.initial = first == 0 && problem.initial_state != nullptr;
      sequence.delay = problem.delay();
      std::int64_t shown = first;
      while (shown < last && problem.hidden(b, shown)) ++shown;
      sequence.first_seeing = sequence.initial ? first : std::min(last, shown + std::min(sequence.delay, last - shown));
      cut_sequence(problem, sequence, chunks);
    }
    if (length > 0) stretches_.back().ends = true;
  }
  begins_.push_back(static_cast<std::int64_t>(stretches_.size()));
  cut_sections(chunks * kChunk);
}

// Each section has `rows` rows at least, but for the last of a batch entry.
void ScanPlan::cut_sections(std::int64_t rows) {
  std::int64_t gathered = rows;
  for (std::size_t s = 0; s < stretches_.size(); ++s) {
    Stretch& stretch = stretches_[s];
    if (gathered >= rows || stretches_[s - 1].ends) {
      section_begins_.push_back(static_cast<std::int64_t>(s));
      gathered = 0;
    }
    stretch.section = static_cast<std::int64_t>(section_begins_.size()) - 1;
    gathered += stretch.rows().size();
  }
  section_begins_.push_back(static_cast<std::int64_t>(stretches_.size()));
}

void ScanPlan::cut_sequence(const LinearProblem& problem, Stretch sequence, std::int64_t chunks) {
  const std::int64_t rows_before = std::min(problem.delay(), sequence.tokens.size());
  const std::int64_t first = -ceil_div(rows_before, kChunk);
  const std::int64_t last = ceil_div(sequence.tokens.size() - rows_before, kChunk);
  for (std::int64_t i = floor_div(first, chunks); i * chunks < last; ++i) {
    Stretch stretch = sequence;
    stretch.first_chunk = std::max(first, i * chunks);
    stretch.last_chunk = std::min(last, (i + 1) * chunks);
    stretch.begins = stretch.first_chunk == first;
    stretch.closes = stretch.last_chunk == last;
    stretch.saved = saved_;
    if (stretch.keeps()) ++saved_;
    stretches_.push_back(stretch);
  }
}

bool ScanPlan::split_heads(double extra) const {
  const std::int64_t threads = get_num_threads();
  const auto rounds = static_cast<double>(ceil_div(batch_heads_, threads));
  return pieces() > batch_heads_ &&
         rounds * static_cast<double>(threads) > (1 + extra) * static_cast<double>(batch_heads_);
}

}  // namespace rattention
