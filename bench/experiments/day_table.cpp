// Six hours of requests on random labs, simulated: the four numbers of utilisation, for static placements and for engines
// that load on demand (B3, as Ollama behind HAProxy does). Requests are the same for every system of a lab.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <deque>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/units.hpp"
#include "core/routing.hpp"
#include "sim/random.hpp"
#include "systems.hpp"

namespace {

using namespace aiv;
using namespace aiv::experiments;

constexpr double kHours = 6;
constexpr double kWarmUp = 600;       // s, left out of every number
constexpr double kSampleEvery = 60;   // s between two looks at the memory
constexpr double kServedWithin = 300;  // s: memory that served nobody for longer is not useful
constexpr double kFirstTokenMax = 5;  // s; a request within it, and within the next, is good
constexpr double kPerTokenMax = 0.2;  // s
constexpr double kDemandShare = 0.5;  // mean of the demand the planner was told, in tokens/s
constexpr int kSlots = 4;
constexpr double kPrefillFactor = 15;  // a prompt token costs a fifteenth of one that is generated
constexpr double kLoadBytesPerS = 500e6;
constexpr double kLoadFixed = 2;      // s
constexpr double kKeepAlive = 300;    // s, Ollama's default
constexpr int kPerGpuMax = 3;         // Ollama's default of models a GPU
constexpr double kPatience = 60;      // s in a queue, then the client has left

struct Request {
  double at = 0, prompt = 0, tokens = 0;
  std::size_t model = 0;
};

// Poisson arrivals per model, each with its own phase of a day that is as long as the run.
std::vector<Request> make_requests(const PlanInput& input, std::uint64_t seed) {
  sim::Random random(seed * 977 + 5);
  std::vector<Request> all;
  constexpr double pi = 3.14159265358979323846;
  for (std::size_t m = 0; m < input.models.size(); ++m) {
    const double phase = random.unit() * 2 * pi;
    const double mean_rate = kDemandShare * input.models[m].demand_tokens_per_s / 200;
    for (double at = 0;;) {
      at += random.exponential(1 / (1.8 * mean_rate));  // thinned to the rate of the hour (Lewis and Shedler 1979)
      if (at > kHours * 3600) break;
      if (!random.chance((1 + 0.8 * std::sin(2 * pi * at / (kHours * 3600) + phase)) / 1.8)) continue;
      all.push_back({at, 1 + random.exponential(800), 1 + random.exponential(200), m});
    }
  }
  std::sort(all.begin(), all.end(), [](const Request& a, const Request& b) { return a.at < b.at; });
  return all;
}

struct Stream {
  std::size_t request = 0;
  double prefill_left = 0, decode_left = 0, first = -1;
};

struct Replica {
  std::size_t model = 0, node = 0;
  std::vector<std::pair<std::size_t, Bytes>> parts;  // device, bytes with overhead
  Bytes bytes = 0;
  double speed = 1;     // tokens/s of a lone stream
  double ready_at = 0, last_used = 0, last_served = -1e9;
  std::vector<Stream> running;
  std::deque<std::size_t> queued;
  bool cold = false;  // loaded on demand
  [[nodiscard]] std::size_t open() const { return running.size() + queued.size(); }
};

struct Numbers {
  double allocated = 0, useful = 0, coverage = 0, goodput = 0, good = 0;
};

struct Device {
  std::size_t node = 0;
  Bytes free = 0, overhead = 0;
  double bandwidth = 0;
};

class Day {
 public:
  Day(const PlanInput& input, const std::vector<Request>& requests) : input_(input), requests_(requests) {
    for (std::size_t n = 0; n < input.nodes.size(); ++n) {
      for (const PlanDevice& device : input.nodes[n].devices) {
        index_[device.id] = devices_.size();
        devices_.push_back({n, device.free_bytes, device.overhead_bytes, device.bandwidth_bytes_per_s});
        total_ += static_cast<double>(device.vram_bytes);
      }
    }
  }

  Numbers run_static(const std::vector<PlanPlacement>& placements) {
    for (const PlanPlacement& placement : placements) {
      std::vector<std::pair<std::size_t, Bytes>> parts;
      for (const PlanPart& part : placement.parts) parts.emplace_back(index_.at(part.device), part.bytes);
      std::size_t model = 0;
      while (input_.models[model].id != placement.model) ++model;
      add(model, parts, 0);
    }
    return run(false);
  }
  Numbers run_on_demand() { return run(true); }

 private:
  Replica& add(std::size_t model, const std::vector<std::pair<std::size_t, Bytes>>& parts, double ready_at) {
    auto replica = std::make_unique<Replica>();
    replica->model = model;
    replica->bytes = input_.models[model].variants.front().bytes;
    replica->ready_at = ready_at;
    double slowest = std::numeric_limits<double>::infinity();
    for (const auto& [device, bytes] : parts) {
      replica->parts.emplace_back(device, bytes + devices_[device].overhead);
      replica->node = devices_[device].node;
      slowest = std::min(slowest, devices_[device].bandwidth);
      devices_[device].free -= bytes + devices_[device].overhead;
    }
    replica->speed = replica_speed(slowest, replica->bytes);
    replicas_.push_back(std::move(replica));
    return *replicas_.back();
  }

  static double left(const Stream& s) { return s.prefill_left > 0 ? s.prefill_left : s.decode_left; }

  double next_change() const {
    double soonest = next_sample_;
    for (const auto& r : replicas_) {
      if (r->ready_at > now_) soonest = std::min(soonest, r->ready_at);
      const double pace = batch_factor(static_cast<int>(r->running.size()));
      for (const Stream& s : r->running) soonest = std::min(soonest, now_ + left(s) / pace);
    }
    return soonest;
  }

  void advance(double to) {
    for (const auto& r : replicas_) {
      const double work = (to - now_) * batch_factor(static_cast<int>(r->running.size()));
      for (Stream& s : r->running) {
        (s.prefill_left > 0 ? s.prefill_left : s.decode_left) -= work;
        if (s.prefill_left <= 1e-9 && s.first < 0) {
          s.prefill_left = 0;
          s.first = to;
        }
      }
    }
    now_ = to;
  }

  void start_queued(Replica& r) {
    while (r.ready_at <= now_ && r.running.size() < kSlots && !r.queued.empty()) {
      const Request& request = requests_[r.queued.front()];
      if (now_ - request.at <= kPatience) {
        r.running.push_back({r.queued.front(), std::max(1e-6, request.prompt / (kPrefillFactor * r.speed)), request.tokens / r.speed, -1});
      }
      r.queued.pop_front();
      r.last_used = now_;
    }
  }

  void finish() {
    for (const auto& r : replicas_) {
      for (std::size_t k = 0; k < r->running.size();) {
        const Stream s = r->running[k];
        if (s.prefill_left > 0 || s.decode_left > 1e-9) {
          ++k;
          continue;
        }
        const Request& request = requests_[s.request];
        const bool good = s.first - request.at <= kFirstTokenMax && (now_ - s.first) / request.tokens <= kPerTokenMax;
        if (good && request.at >= kWarmUp) {
          good_ += 1;
          good_tokens_ += request.tokens;
        }
        r->last_served = r->last_used = now_;
        r->running.erase(r->running.begin() + static_cast<std::ptrdiff_t>(k));
      }
      start_queued(*r);
    }
  }

  // The replica where it is expected to finish first, as core/routing does; null if the model has none.
  Replica* choose(std::size_t model) {
    Replica* best = nullptr;
    double least = 0;
    for (const auto& r : replicas_) {
      if (r->model != model) continue;
      const double cost = static_cast<double>(r->open() + 1) / r->speed;
      if (best == nullptr || cost < least) {
        least = cost;
        best = r.get();
      }
    }
    return best;
  }

  void take(std::size_t index, bool on_demand) {
    const Request& request = requests_[index];
    const bool counts = request.at >= kWarmUp;
    offered_ += counts ? 1 : 0;
    Replica* replica = on_demand ? choose_node(request.model) : choose(request.model);
    if (replica == nullptr) return;
    if (counts && replica->ready_at <= now_) warm_ += 1;
    replica->queued.push_back(index);
    start_queued(*replica);
  }

  // HAProxy's leastconn over the nodes that can hold the model at all; there the model is loaded if it is not.
  Replica* choose_node(std::size_t model) {
    std::size_t best = input_.nodes.size();
    std::size_t least = 0;
    for (std::size_t k = 0; k < input_.nodes.size(); ++k) {
      const std::size_t n = (turn_ + k) % input_.nodes.size();
      if (!could_hold(model, n)) continue;
      std::size_t open = 0;
      for (const auto& r : replicas_) open += r->node == n ? r->open() : 0;
      if (best == input_.nodes.size() || open < least) {
        best = n;
        least = open;
      }
    }
    if (best == input_.nodes.size()) return nullptr;
    turn_ = best + 1;
    for (const auto& r : replicas_) {
      if (r->model == model && r->node == best) return r.get();
    }
    return load(model, best);
  }

  bool could_hold(std::size_t model, std::size_t node) const {
    const Bytes bytes = input_.models[model].variants.front().bytes;
    Bytes room = 0;
    for (const PlanDevice& device : input_.nodes[node].devices) room += device.free_bytes - device.overhead_bytes;
    return room >= bytes;
  }

  // One GPU if one has room, else split over the node's; idle models are evicted, by name (all have one keep-alive),
  // until it fits. Null where those that stay are busy: the request is then lost.
  Replica* load(std::size_t model, std::size_t node) {
    for (;;) {
      if (auto parts = fit(model, node); !parts.empty()) {
        const auto bytes = static_cast<double>(input_.models[model].variants.front().bytes);
        Replica& replica = add(model, parts, now_ + kLoadFixed + bytes / kLoadBytesPerS);
        replica.last_used = now_;
        return &replica;
      }
      const auto victim = std::find_if(replicas_.begin(), replicas_.end(), [&](const auto& r) {
        return r->node == node && r->open() == 0 && r->ready_at <= now_;
      });
      if (victim == replicas_.end()) return nullptr;
      auto least = victim;
      for (auto it = victim; it != replicas_.end(); ++it) {
        if ((*it)->node == node && (*it)->open() == 0 && (*it)->ready_at <= now_ && (*it)->model < (*least)->model) least = it;
      }
      unload(least);
    }
  }

  std::vector<std::pair<std::size_t, Bytes>> fit(std::size_t model, std::size_t node) const {
    const Bytes bytes = input_.models[model].variants.front().bytes;
    std::vector<std::pair<std::size_t, Bytes>> parts;
    std::vector<std::size_t> order;
    for (std::size_t d = 0; d < devices_.size(); ++d) {
      if (devices_[d].node != node) continue;
      int there = 0;
      for (const auto& r : replicas_) {
        for (const auto& part : r->parts) there += part.first == d ? 1 : 0;
      }
      if (there < kPerGpuMax) order.push_back(d);
    }
    std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      return devices_[a].free != devices_[b].free ? devices_[a].free > devices_[b].free : a < b;
    });
    Bytes rest = bytes;
    for (const std::size_t d : order) {
      const Bytes room = devices_[d].free - devices_[d].overhead;
      if (room <= 0 || rest == 0) break;
      parts.emplace_back(d, std::min(room, rest));
      rest -= parts.back().second;
    }
    if (rest > 0) parts.clear();
    return parts;
  }

  void unload(std::vector<std::unique_ptr<Replica>>::iterator it) {
    for (const auto& [device, bytes] : (*it)->parts) devices_[device].free += bytes;
    replicas_.erase(it);
  }

  void sample(bool on_demand) {
    next_sample_ = now_ + kSampleEvery;
    if (on_demand) {
      for (std::size_t i = 0; i < replicas_.size();) {
        const Replica& r = *replicas_[i];
        if (r.open() == 0 && r.ready_at <= now_ && now_ - std::max(r.last_used, r.ready_at) > kKeepAlive) {
          unload(replicas_.begin() + static_cast<std::ptrdiff_t>(i));
        } else {
          ++i;
        }
      }
    }
    if (now_ < kWarmUp) return;
    ++samples_;
    std::vector<int> served(input_.models.size(), 0);
    for (const auto& r : replicas_) {
      allocated_ += static_cast<double>(r->bytes) / total_;
      if (now_ - r->last_served > kServedWithin) continue;
      useful_ += static_cast<double>(r->bytes) / total_;
      served[r->model] += 1;
    }
    // A spare replica that survival of a node's loss needs is useful too: one beside one that served.
    for (const auto& r : replicas_) {
      if (now_ - r->last_served <= kServedWithin || served[r->model] != 1) continue;
      useful_ += static_cast<double>(r->bytes) / total_;
      served[r->model] += 1;
    }
  }

  Numbers run(bool on_demand) {
    std::size_t next = 0;
    const double end = kHours * 3600;
    for (;;) {
      const double change = next_change();
      const bool arrival = next < requests_.size() && requests_[next].at <= change;
      if (!arrival && change > end) break;
      advance(arrival ? requests_[next].at : change);
      if (arrival) take(next++, on_demand);
      finish();
      if (now_ >= next_sample_) sample(on_demand);
    }
    Numbers out;
    out.allocated = allocated_ / samples_;
    out.useful = useful_ / samples_;
    out.coverage = warm_ / offered_;
    out.good = good_ / offered_;
    out.goodput = good_tokens_ / (end - kWarmUp) / (total_ / static_cast<double>(kGiB));
    return out;
  }

  const PlanInput& input_;
  const std::vector<Request>& requests_;
  std::vector<Device> devices_;
  std::map<std::string, std::size_t> index_;
  std::vector<std::unique_ptr<Replica>> replicas_;
  double total_ = 0, now_ = 0, next_sample_ = kSampleEvery;
  double allocated_ = 0, useful_ = 0, samples_ = 0, offered_ = 0, warm_ = 0, good_ = 0, good_tokens_ = 0;
  std::size_t turn_ = 0;
};

// A 95 % interval of the geometric mean of ratios, by the normal on the logarithm.
void print_ratio(const char* name, const std::vector<double>& ours, const std::vector<double>& other) {
  double sum = 0, squares = 0;
  const auto n = static_cast<double>(ours.size());
  for (std::size_t i = 0; i < ours.size(); ++i) {
    const double log = std::log(ours[i] / other[i]);
    sum += log;
    squares += log * log;
  }
  const double mean = sum / n;
  const double error = 1.96 * std::sqrt(std::max(0.0, squares / n - mean * mean) / std::max(1.0, n - 1));
  std::printf(" %s %.2f (%.2f-%.2f);", name, std::exp(mean), std::exp(mean - error), std::exp(mean + error));
}

}  // namespace

void day_table(int labs) {
  std::vector<const char*> names;
  for (const System& system : systems()) names.push_back(system.name);
  names.push_back("B3 Ollama, leastconn");
  std::printf("simulated; six hours, %d random labs of 6 nodes a row, seeds 1-%d; (a) allocated / (b) useful / (c) coverage / good requests / (d) good tokens per s and GiB\n", labs, labs);
  std::printf("| wanted load |");
  for (const char* name : names) std::printf(" %s |", name);
  std::printf("\n| --- |");
  for (std::size_t i = 0; i < names.size(); ++i) std::printf(" --- |");
  std::printf("\n");
  for (const double load : {0.8, 1.3}) {
    std::vector<Numbers> sums(names.size());
    std::vector<std::vector<double>> useful(names.size());
    std::vector<std::vector<double>> goodput(names.size());
    for (int lab = 1; lab <= labs; ++lab) {
      const PlanInput input = make_lab(static_cast<std::uint64_t>(lab), 6, load);
      const std::vector<Request> requests = make_requests(input, static_cast<std::uint64_t>(lab));
      for (std::size_t i = 0; i < names.size(); ++i) {
        const bool on_demand = i == systems().size();
        const Numbers one = on_demand ? Day(input, requests).run_on_demand() : Day(input, requests).run_static(systems()[i].place(input));
        sums[i].allocated += one.allocated / labs;
        sums[i].useful += one.useful / labs;
        sums[i].coverage += one.coverage / labs;
        sums[i].good += one.good / labs;
        sums[i].goodput += one.goodput / labs;
        useful[i].push_back(one.useful);
        goodput[i].push_back(one.goodput);
      }
    }
    std::printf("| %.1f |", load);
    for (const Numbers& n : sums) std::printf(" %.2f/%.2f/%.2f/%.2f/%.2f |", n.allocated, n.useful, n.coverage, n.good, n.goodput);
    std::printf("\n");
    const std::size_t own = 5;
    std::printf("  load %.1f, ours : other, geometric mean over labs (95 %%):\n", load);
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (i == own) continue;
      std::printf("   %s:", names[i]);
      print_ratio("useful", useful[own], useful[i]);
      print_ratio("goodput", goodput[own], goodput[i]);
      std::printf("\n");
    }
    std::fflush(stdout);
  }
}
