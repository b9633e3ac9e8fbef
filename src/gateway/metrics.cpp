#include "gateway/metrics.hpp"

#include <fmt/format.h>

#include <iterator>

namespace aiv::gateway {
namespace {

class Text {
 public:
  void family(std::string_view name, std::string_view type, std::string_view help) {
    fmt::format_to(std::back_inserter(out_), "# HELP aivailable_{} {}\n# TYPE aivailable_{} {}\n", name, help, name, type);
    name_ = name;
  }
  template <class Value>
  void sample(std::string_view labels, Value value) {
    if (labels.empty()) {
      fmt::format_to(std::back_inserter(out_), "aivailable_{} {}\n", name_, value);
    } else {
      fmt::format_to(std::back_inserter(out_), "aivailable_{}{{{}}} {}\n", name_, labels, value);
    }
  }
  std::string& out() { return out_; }

 private:
  std::string out_;
  std::string name_;
};

std::string model_label(std::string_view model) { return "model=\"" + escape_label(model) + "\""; }

template <class Member>
void write_histogram(Text& text, const Metrics& metrics, std::string_view name, std::string_view help, Member member) {
  text.family(name, "histogram", help);
  for (const auto& [model, counts] : metrics.models) (counts.*member).write(text.out(), name, model_label(model));
}

void write_models(Text& text, const Metrics& metrics) {
  write_histogram(text, metrics, "time_to_first_token_seconds", "From the request's arrival to its first token.",
                  &ModelMetrics::time_to_first_token);
  write_histogram(text, metrics, "e2e_request_latency_seconds", "From the request's arrival to the end of its answer.",
                  &ModelMetrics::e2e_request_latency);
  write_histogram(text, metrics, "request_queue_time_seconds", "Time spent waiting for a slot.", &ModelMetrics::queue_time);
  write_histogram(text, metrics, "inter_token_latency_seconds", "Mean time between the tokens of an answer.",
                  &ModelMetrics::inter_token_latency);
  text.family("prompt_tokens_total", "counter", "Prompt tokens, cached ones included.");
  for (const auto& [model, m] : metrics.models) text.sample(model_label(model), m.prompt_tokens);
  text.family("generation_tokens_total", "counter", "Generated tokens.");
  for (const auto& [model, m] : metrics.models) text.sample(model_label(model), m.generation_tokens);
  text.family("request_success_total", "counter", "Answers that ended by themselves.");
  for (const auto& [model, m] : metrics.models) {
    for (const auto& [reason, n] : m.success_by_finish_reason) {
      text.sample(model_label(model) + ",finish_reason=\"" + escape_label(reason) + "\"", n);
    }
  }
  text.family("request_failure_total", "counter", "Requests for a model that were answered with an error.");
  for (const auto& [model, m] : metrics.models) {
    for (const auto& [code, n] : m.failures_by_code) {
      text.sample(model_label(model) + ",code=\"" + escape_label(code) + "\"", n);
    }
  }
  text.family("request_cancelled_total", "counter", "Requests whose client left before the end.");
  for (const auto& [model, m] : metrics.models) text.sample(model_label(model), m.cancelled);
  text.family("failovers_total", "counter", "Replicas that failed under a request, by where it was and what came of it.");
  for (const auto& [model, m] : metrics.models) {
    text.sample(model_label(model) + ",phase=\"prefill\",result=\"recovered\"", m.failovers_recovered);
    text.sample(model_label(model) + ",phase=\"prefill\",result=\"failed\"", m.failovers_failed);
    text.sample(model_label(model) + ",phase=\"decode\",result=\"recovered\"", m.resumes_recovered);
    text.sample(model_label(model) + ",phase=\"decode\",result=\"failed\"", m.streams_broken);
  }
  text.family("resumes_total", "counter", "Continuations of a broken stream on another replica; an answer may need several.");
  for (const auto& [model, m] : metrics.models) text.sample(model_label(model), m.resumes);
}

void write_dispatch(Text& text, const Dispatcher& dispatcher) {
  text.family("requests_running", "gauge", "Requests that hold a slot.");
  for (const auto& [name, model] : dispatcher.models()) text.sample(model_label(name), model->running);
  text.family("requests_waiting", "gauge", "Requests that wait for a slot.");
  for (const auto& [name, model] : dispatcher.models()) text.sample(model_label(name), model->queue.size());
  const auto each = [&](auto&& visit) {
    for (const auto& [name, model] : dispatcher.models()) {
      for (const ReplicaPtr& replica : model->replicas) {
        visit(*replica, model_label(name) + ",replica=\"" + escape_label(replica->id) + "\",node=\"" +
                            escape_label(replica->node) + "\"");
      }
    }
  };
  text.family("replica_slots", "gauge", "Slots of a replica.");
  each([&](const Replica& r, const std::string& labels) { text.sample(labels, r.ledger.slots()); });
  text.family("replica_slots_busy", "gauge", "Slots that this gateway has in use.");
  each([&](const Replica& r, const std::string& labels) { text.sample(labels, r.ledger.busy()); });
  text.family("replica_decode_tokens_per_second", "gauge", "Measured speed of a lone stream.");
  each([&](const Replica& r, const std::string& labels) { text.sample(labels, r.speed.decode_per_s()); });
  text.family("replica_prefill_tokens_per_second", "gauge", "Measured speed of prompt processing.");
  each([&](const Replica& r, const std::string& labels) { text.sample(labels, r.speed.prefill_per_s()); });
  text.family("replica_requests_total", "counter", "Requests sent to a replica.");
  each([&](const Replica& r, const std::string& labels) { text.sample(labels, r.requests); });
  text.family("replica_failures_total", "counter", "Requests that a replica failed.");
  each([&](const Replica& r, const std::string& labels) { text.sample(labels, r.failures); });
}

}  // namespace

template <std::size_t N>
void Histogram<N>::write(std::string& out, std::string_view name, std::string_view labels) const {
  std::uint64_t total = 0;
  for (std::size_t i = 0; i <= N; ++i) {
    total += counts_[i];
    const std::string bound = i < N ? fmt::format("{}", bounds_[i]) : "+Inf";
    fmt::format_to(std::back_inserter(out), "aivailable_{}_bucket{{{},le=\"{}\"}} {}\n", name, labels, bound, total);
  }
  fmt::format_to(std::back_inserter(out), "aivailable_{}_sum{{{}}} {}\n", name, labels, sum_);
  fmt::format_to(std::back_inserter(out), "aivailable_{}_count{{{}}} {}\n", name, labels, total);
}

std::string escape_label(std::string_view value) {
  std::string out;
  for (const char c : value) {
    if (c == '\\' || c == '"') out += '\\';
    if (c == '\n') {
      out += "\\n";
    } else {
      out += c;
    }
  }
  return out;
}

std::string metrics_text(const Metrics& metrics, const MetricsContext& context) {
  Text text;
  text.family("build_info", "gauge", "Version of the gateway.");
  text.sample("version=\"" AIV_VERSION "\"", 1);
  write_dispatch(text, context.dispatcher);
  write_models(text, metrics);
  text.family("http_responses_total", "counter", "Answers on the public port by status.");
  for (const auto& [status, n] : metrics.responses_by_status) text.sample(fmt::format("status=\"{}\"", status), n);
  text.family("http_connections", "gauge", "Open connections on the public port.");
  text.sample("", context.connections);
  text.family("node_up", "gauge", "1 for a node whose link is up.");
  for (const std::string& node : context.nodes_up) text.sample("node=\"" + escape_label(node) + "\"", 1);
  text.family("controller_stale", "gauge", "1 while no controller is connected; requests are served all the same.");
  text.sample("", context.stale ? 1 : 0);
  return std::move(text.out());
}

}  // namespace aiv::gateway
