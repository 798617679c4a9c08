// Metrics of every row of attention, streamed while the forward pass runs. Definitions: rattention._metrics in Python.
#pragma once

#include <cstdint>

#include "metrics/received.h"
#include "softmax/row_observer.h"

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

// `received`, where given, is told of every row too. Both it and the problem must outlive the forward pass.
MakeRowObserver row_metrics(const ScoreProblem& problem, MetricDistances distances, RowMetricOutputs outputs,
                            ReceivedInPassing* received = nullptr);

}  // namespace rattention
