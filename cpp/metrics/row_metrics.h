// Metrics of every row of attention, streamed while the forward pass runs. Definitions: rattention._metrics in Python.
#pragma once

#include <cstdint>
#include <memory>

#include "metrics/received.h"
#include "softmax/row_observer.h"
#include "softmax/score_tiles.h"

namespace rattention {

struct MetricDistances {
  std::int64_t local_radius = 5;
  std::int64_t long_range_distance = 50;
};

// Where the results go: contiguous [batch, heads, row_count] each.
struct RowMetricOutputs {
  float* entropy;
  float* local_concentration;
  float* long_range;
  float* retention;
  float* context_mean;
  float* context_std;
  float* recent_distant_ratio;
  float* max_weight;
  std::int64_t* max_position;
};

class RowMetrics : public RowObserverFactory {
 public:
  // `received`, where given, is told of every row too.
  RowMetrics(const ScoreProblem& problem, MetricDistances distances, RowMetricOutputs outputs,
             ReceivedInPassing* received = nullptr)
      : problem_(problem), distances_(distances), outputs_(outputs), received_(received) {}

  std::unique_ptr<RowObserver> make() const override;

 private:
  const ScoreProblem& problem_;
  MetricDistances distances_;
  RowMetricOutputs outputs_;
  ReceivedInPassing* received_;
};

}  // namespace rattention
