// Routing over unequal cards, simulated: core/routing.hpp as it is, with speeds that it learns, against the usual
// policies. A card serves up to four streams; b of them run at b^(0.65-1) of a lone one's speed. Card speeds are
// assumed, not measured. "Least connections" takes ties in turn, as HAProxy's leastconn does.
#include <algorithm>
#include <cstdio>
#include <deque>
#include <limits>
#include <string>
#include <vector>

#include "base/file.hpp"
#include "core/routing.hpp"
#include "sim/random.hpp"

namespace {

using namespace aiv;

constexpr int kSlots = 4;
struct Card {
  double decode, prefill;  // tokens/s of a lone stream
};
using Cards = std::vector<Card>;

struct Mix {
  const char* name;
  const char* what;
  Cards cards;
};
const Mix kMixes[] = {
    {"lab", "eight unequal cards", {{110, 3500}, {45, 900}, {40, 1100}, {55, 1200}, {60, 1300}, {70, 1000}, {45, 1000}, {25, 350}}},
    {"two", "two fast cards, six at a quarter of their speed", {{100, 3000}, {25, 750}, {25, 750}, {25, 750}, {25, 750}, {25, 750}, {25, 750}, {100, 3000}}},
    {"equal", "eight equal cards", {{50, 1000}, {50, 1000}, {50, 1000}, {50, 1000}, {50, 1000}, {50, 1000}, {50, 1000}, {50, 1000}}},
    {"small", "three cards", {{25, 350}, {60, 1300}, {110, 3500}}},
};

struct Job {
  double arrived = 0, prompt = 0, tokens = 0;  // s, tokens
};

enum class Policy { kRoundRobin, kLeastConnections, kConnectionsPerSpeed, kExpectedFinish };

struct Stream {
  std::size_t job = 0;
  double prefill_left = 0, decode_left = 0;  // s at a lone stream's speed
  double began = 0, first = -1;
  int batch = 1;
  SlotLease lease;
};

struct Lane {
  std::vector<Stream> running;
  std::deque<std::size_t> queued;  // bound on arrival
  SlotLedger ledger{kSlots};
  SpeedEstimate speed;
};

class Run {
 public:
  Run(const std::vector<Job>& jobs, const Cards& cards, Policy policy)
      : jobs_(jobs), cards_(cards), policy_(policy), random_(1), lanes_(cards.size()) {
    for (std::size_t i = 0; i < cards_.size(); ++i) {
      lanes_[i].speed = SpeedEstimate(0.6 * cards_[i].prefill, 0.6 * cards_[i].decode);  // seeds off by that much
    }
  }
  std::vector<double> latencies() {
    std::size_t next = 0;
    while (out_.size() < jobs_.size()) {
      const double done = next_change();
      const bool arrival = next < jobs_.size() && jobs_[next].arrived <= done;
      advance(arrival ? jobs_[next].arrived : done);
      if (arrival) take(next++);
      else finish();
      while (policy_ == Policy::kExpectedFinish && !waiting_.empty() && bind()) {
      }
    }
    return out_;
  }

 private:
  static double left(const Stream& s) { return s.prefill_left > 0 ? s.prefill_left : s.decode_left; }
  double next_change() const {
    double soonest = std::numeric_limits<double>::infinity();
    for (const Lane& lane : lanes_) {
      const double pace = batch_factor(static_cast<int>(lane.running.size()));
      for (const Stream& s : lane.running) soonest = std::min(soonest, now_ + left(s) / pace);
    }
    return soonest;
  }
  void advance(double to) {
    for (Lane& lane : lanes_) {
      const double work = (to - now_) * batch_factor(static_cast<int>(lane.running.size()));
      for (Stream& s : lane.running) {
        if (s.prefill_left > 0) s.prefill_left -= work;
        else s.decode_left -= work;
        if (s.prefill_left <= 1e-9 && s.first < 0) {
          s.prefill_left = 0;
          s.first = to;
        }
      }
    }
    now_ = to;
  }
  void begin(std::size_t lane, std::size_t job, double finish_ms) {
    Stream s;
    s.job = job;
    s.prefill_left = std::max(1e-6, jobs_[job].prompt / cards_[lane].prefill);
    s.decode_left = jobs_[job].tokens / cards_[lane].decode;
    s.began = now_;
    const auto ms = static_cast<std::int64_t>(now_ * 1000);
    s.lease = lanes_[lane].ledger.take(ms, ms + static_cast<std::int64_t>(finish_ms), 0);
    lanes_[lane].running.push_back(s);
    for (Stream& each : lanes_[lane].running) each.batch = std::max(each.batch, static_cast<int>(lanes_[lane].running.size()));
  }
  void take(std::size_t job) {
    if (policy_ == Policy::kExpectedFinish) {
      waiting_.push_back(job);
      return;
    }
    const std::size_t turn = next_lane_++ % cards_.size();
    std::size_t best = turn;
    if (policy_ != Policy::kRoundRobin) {
      double least = std::numeric_limits<double>::infinity();
      for (std::size_t k = 0; k < cards_.size(); ++k) {
        const std::size_t i = (turn + k) % cards_.size();
        const auto open = static_cast<double>(lanes_[i].running.size() + lanes_[i].queued.size());
        const double score = policy_ == Policy::kLeastConnections ? open : (open + 1) / cards_[i].decode;
        if (score < least) {
          least = score;
          best = i;
        }
      }
    }
    if (lanes_[best].running.size() < kSlots) begin(best, job, 0);
    else lanes_[best].queued.push_back(job);
  }
  bool bind() {
    std::vector<RouteOption> options;
    const auto ms = static_cast<std::int64_t>(now_ * 1000);
    for (const Lane& lane : lanes_) {
      RouteOption option;
      option.slots = kSlots;
      option.busy = lane.ledger.busy();
      option.wait_ms = lane.ledger.wait_ms(ms);
      option.prefill_per_s = lane.speed.prefill_per_s();
      option.decode_per_s = lane.speed.decode_per_s();
      options.push_back(option);
    }
    std::vector<RouteTerms> terms(options.size());
    RouteAsk ask;
    ask.prompt_tokens = jobs_[waiting_.front()].prompt;
    ask.output_tokens = output_.value();
    ask.now_ms = ms;
    ask.random = random_.bits();
    ask.waiting = static_cast<int>(waiting_.size()) - 1;
    const RouteDecision decision = route(ask, options, terms);
    if (decision.outcome != RouteOutcome::kChosen) return false;
    const std::size_t job = waiting_.front();
    waiting_.pop_front();
    begin(static_cast<std::size_t>(decision.index), job, decision.finish_ms);
    return true;
  }
  void finish() {
    for (std::size_t i = 0; i < cards_.size(); ++i) {
      Lane& lane = lanes_[i];
      for (std::size_t k = 0; k < lane.running.size();) {
        const Stream s = lane.running[k];
        if (s.prefill_left > 0 || s.decode_left > 1e-9) {
          ++k;
          continue;
        }
        const Job& job = jobs_[s.job];
        out_.push_back(now_ - job.arrived);
        lane.ledger.release(s.lease.ticket);
        lane.speed.observe_prefill(static_cast<std::int64_t>(job.prompt), (s.first - s.began) * 1000);
        lane.speed.observe_decode(static_cast<std::int64_t>(job.tokens), (now_ - s.first) * 1000, s.batch);
        output_.observe(job.tokens);
        lane.running.erase(lane.running.begin() + static_cast<std::ptrdiff_t>(k));
        if (lane.queued.empty()) continue;
        begin(i, lane.queued.front(), 0);
        lane.queued.pop_front();
      }
    }
  }

  const std::vector<Job>& jobs_;
  const Cards& cards_;
  Policy policy_;
  sim::Random random_;
  std::vector<Lane> lanes_;
  std::deque<std::size_t> waiting_;
  RunningMean output_{200};
  std::vector<double> out_;
  double now_ = 0;
  std::size_t next_lane_ = 0;
};

// AzurePublicDataset's columns; the time of day in seconds.
std::vector<Job> read_trace(const std::string& path) {
  std::vector<Job> jobs;
  const auto text = read_file(path, 64U << 20U);
  if (!text) return jobs;
  for (std::size_t from = text->find('\n'); from != std::string::npos; from = text->find('\n', from + 1)) {
    int year = 0, month = 0, day = 0, hour = 0, minute = 0;
    double second = 0;
    Job job;
    if (std::sscanf(text->c_str() + from + 1, "%d-%d-%d %d:%d:%lf,%lf,%lf", &year, &month, &day, &hour, &minute, &second, &job.prompt, &job.tokens) != 8) continue;
    job.arrived = hour * 3600.0 + minute * 60.0 + second;
    jobs.push_back(job);
  }
  return jobs;
}

std::vector<Job> synthetic() {
  sim::Random random(1);
  std::vector<Job> jobs(20'000);
  double at = 0;
  for (Job& job : jobs) {
    at += random.exponential(0.18);
    job.arrived = at;
    job.prompt = 1 + random.exponential(1155);
    job.tokens = 1 + random.exponential(211);
  }
  return jobs;
}

void table(const std::vector<Job>& base, const Mix& mix) {
  double prompt = 0, tokens = 0;
  for (const Job& job : base) {
    prompt += job.prompt / static_cast<double>(base.size());
    tokens += job.tokens / static_cast<double>(base.size());
  }
  double capacity = 0;
  for (const Card& card : mix.cards) capacity += kSlots * batch_factor(kSlots) / (prompt / card.prefill + tokens / card.decode);
  std::printf("%s (%s); mean / p99 latency in s\n", mix.name, mix.what);
  std::printf("| load | round robin | least connections | connections / speed | core/routing |\n| --- | --- | --- | --- | --- |\n");
  const double span = base.back().arrived - base.front().arrived;
  for (const double load : {0.3, 0.5, 0.7, 0.85, 0.95}) {
    const double stretch = static_cast<double>(base.size()) / span / (load * capacity);
    std::vector<Job> jobs = base;
    for (Job& job : jobs) job.arrived = (job.arrived - base.front().arrived) * stretch;
    std::printf("| %.2f |", load);
    for (const Policy policy : {Policy::kRoundRobin, Policy::kLeastConnections, Policy::kConnectionsPerSpeed, Policy::kExpectedFinish}) {
      std::vector<double> all = Run(jobs, mix.cards, policy).latencies();
      std::sort(all.begin(), all.end());
      double sum = 0;
      for (const double each : all) sum += each;
      std::printf(" %.2f / %.1f |", sum / static_cast<double>(all.size()), all[all.size() * 99 / 100]);
      std::fflush(stdout);
    }
    std::printf("\n");
  }
}

}  // namespace

int routing_table(const std::string& trace) {
  const std::vector<Job> base = trace.empty() ? synthetic() : read_trace(trace);
  if (base.empty()) {
    std::fprintf(stderr, "experiments_bench: %s holds no requests\n", trace.c_str());
    return 1;
  }
  std::printf("simulated; %zu requests (%s), seed 1\n", base.size(), trace.empty() ? "synthetic, Poisson" : (trace + ", stretched").c_str());
  for (const Mix& mix : kMixes) table(base, mix);
  return 0;
}
