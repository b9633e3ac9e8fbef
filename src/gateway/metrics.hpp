// What the gateway counts, as Prometheus text: vLLM's vocabulary with our prefix, base units, no colon in names.
// Labels hold names of models, nodes and states, never a prompt, a key or a user agent.
#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "gateway/dispatcher.hpp"

namespace aiv::gateway {

// Seconds; the last bucket is +Inf. A fixed layout, so an observation is a few comparisons.
template <std::size_t N>
class Histogram {
 public:
  explicit constexpr Histogram(const std::array<double, N>& bounds) : bounds_(bounds) {}
  void observe(double value) {
    std::size_t i = 0;
    while (i < N && value > bounds_[i]) ++i;
    counts_[i] += 1;
    sum_ += value;
  }
  void write(std::string& out, std::string_view name, std::string_view labels) const;

 private:
  const std::array<double, N>& bounds_;
  std::array<std::uint64_t, N + 1> counts_{};
  double sum_ = 0;
};

inline constexpr std::array kLatencyBounds{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0};
inline constexpr std::array kTokenBounds{0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.0, 2.5, 10.0};

struct ModelMetrics {
  Histogram<kLatencyBounds.size()> time_to_first_token{kLatencyBounds};
  Histogram<kLatencyBounds.size()> e2e_request_latency{kLatencyBounds};
  Histogram<kLatencyBounds.size()> queue_time{kLatencyBounds};
  Histogram<kTokenBounds.size()> inter_token_latency{kTokenBounds};
  std::uint64_t prompt_tokens = 0;
  std::uint64_t generation_tokens = 0;
  std::map<std::string, std::uint64_t, std::less<>> success_by_finish_reason;
  std::map<std::string, std::uint64_t, std::less<>> failures_by_code;
  std::uint64_t failovers_recovered = 0;  // failed before the first byte, answered by another replica
  std::uint64_t failovers_failed = 0;
  std::uint64_t streams_broken = 0;  // ended by an error event
  std::uint64_t resumes = 0;         // continuations begun; an answer may need several
  std::uint64_t resumes_recovered = 0;  // answers that were continued and came to their end
  std::uint64_t resumes_failed = 0;
  std::uint64_t cancelled = 0;       // the client left
};

struct Metrics {
  std::map<std::string, ModelMetrics, std::less<>> models;
  std::map<int, std::uint64_t> responses_by_status;
  std::uint64_t requests = 0;

  ModelMetrics& model(const std::string& name) { return models[name]; }
};

struct MetricsContext {
  const Dispatcher& dispatcher;
  std::size_t connections = 0;
  const std::vector<std::string>& nodes_up;
  bool stale = false;
};

std::string metrics_text(const Metrics& metrics, const MetricsContext& context);
// A label's value with backslash, quote and newline escaped.
std::string escape_label(std::string_view value);

}  // namespace aiv::gateway
