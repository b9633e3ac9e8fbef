#include "core/placement.hpp"

#include <algorithm>

#include "core/placement_bound.hpp"
#include "core/placement_problem.hpp"
#include "core/placement_reasons.hpp"
#include "core/placement_repair.hpp"
#include "core/placement_search.hpp"
#include "core/placement_state.hpp"
#include "core/placement_steps.hpp"

namespace aiv {
namespace {

using namespace placement;

// Shares of a time limit by which a part of the work has to be done (PlanOptions::spent). A first plan that
// took more than kOneFilling is not tried in other ways. The search leaves time for what comes after it:
// kTails times what that took after the first plan, for there is more to undo and to order then, and
// something for the bound.
constexpr double kOneFilling = 0.15;
constexpr double kFirstPlan = 0.6;
constexpr double kSearch = 0.9;
constexpr double kTails = 1.5;
constexpr double kTailGuess = 0.2;  // where even the first plan took so long that it is not tried
constexpr double kQuality = 0.93;
constexpr double kAll = 0.99;
// The share of what reading the input took that the tight bounds need before their first round: they read it
// all again. With less left they are not begun.
constexpr double kBoundOpening = 1.5;

// Makes the bound take about a quarter of the search's time at the most (bench/placement).
constexpr double kBoundWorkPerStep = 450;

// Of market_prices(): few are enough to choose places by (bench/placement).
constexpr int kPriceRounds = 120;
constexpr std::size_t kPricedDevicesMax = 1000;

// The names of the input, for the way back from indices.
struct Names {
  std::vector<std::string> nodes;
  std::vector<std::string> devices;
  std::vector<std::string> models;
  std::vector<std::string> variants;
  std::vector<PlanPlacement> current;

  explicit Names(const PlanInput& input) : current(input.current) {
    for (const PlanNode& node : input.nodes) {
      nodes.push_back(node.id);
      for (const PlanDevice& device : node.devices) devices.push_back(device.id);
    }
    for (const PlanModel& model : input.models) {
      models.push_back(model.id);
      for (const PlanVariant& variant : model.variants) variants.push_back(variant.id);
    }
  }

  [[nodiscard]] std::vector<PlanPart> parts(const Replica& replica) const {
    std::vector<PlanPart> list;
    list.reserve(replica.parts);
    for (std::size_t i = 0; i < replica.parts; ++i)
      list.push_back({devices[replica.device[i]], replica.bytes[i]});
    return list;
  }

  [[nodiscard]] PlanPlacement placement(const Replica& replica) const {
    PlanPlacement out;
    out.model = models[replica.model];
    out.variant = variants[replica.variant];
    out.node = nodes[replica.node];
    out.parts = parts(replica);
    out.keep = replica.current != kNone;
    return out;
  }

  [[nodiscard]] PlanStep step(const Problem& problem, const Step& step,
                              const std::vector<Replica>& planned) const {
    PlanStep out;
    out.action = step.action;
    out.reason = step.reason;
    const Replica* loaded = nullptr;
    if (step.load != kNone) {
      loaded = &planned[step.load];
    } else if (step.spare.model != kNone && !step.from_spare) {
      loaded = &step.spare;
    }
    if (loaded != nullptr) {
      fill(*loaded, problem, out);
      if (step.action == StepAction::kMove) {
        out.from_node =
            step.from_spare ? nodes[step.spare.node] : current[problem.current[step.unload].input].node;
        out.from_parts =
            step.from_spare ? parts(step.spare) : current[problem.current[step.unload].input].parts;
      }
    } else if (step.from_spare) {
      fill(step.spare, problem, out);
    } else {
      const PlanPlacement& was = current[problem.current[step.unload].input];
      out.model = was.model;
      out.variant = was.variant;
      out.node = was.node;
      out.parts = was.parts;
      for (const PlanPart& part : was.parts) out.bytes += part.bytes;
    }
    return out;
  }

  void fill(const Replica& replica, const Problem& problem, PlanStep& out) const {
    out.model = models[replica.model];
    out.variant = variants[replica.variant];
    out.node = nodes[replica.node];
    out.parts = parts(replica);
    out.bytes = problem.variants[replica.variant].bytes;
  }
};

Unplaced name_diagnosis(const Names& names, const State& state, const Diagnosis& diagnosis) {
  Unplaced out;
  const ModelData& model = state.problem().models[diagnosis.model];
  out.model = names.models[diagnosis.model];
  out.reason = diagnosis.reason;
  out.replicas = state.tally(diagnosis.model).replicas;
  out.wanted = std::max(1, model.min_replicas);
  out.needs_bytes = diagnosis.needs;
  out.largest_bytes = diagnosis.largest;
  out.largest_is_device = diagnosis.largest_is_device;
  out.hint.kind = diagnosis.hint;
  if (diagnosis.variant != kNone) out.hint.variant = names.variants[diagnosis.variant];
  if (diagnosis.other_model != kNone) out.hint.other_model = names.models[diagnosis.other_model];
  if (diagnosis.node != kNone) out.hint.node = names.nodes[diagnosis.node];
  if (diagnosis.other_node != kNone) out.hint.other_node = names.nodes[diagnosis.other_node];
  out.hint.bytes = diagnosis.bytes;
  return out;
}

// What exact values need of a model, in the input's own numbers.
struct Wanted {
  double weight = 0;
  double demand_tokens_per_s = 0;
};

// The value as the contract states it, in doubles and in a fixed order; the search's own sums are integers.
double exact_value(const Problem& problem, const std::vector<Wanted>& wanted, const State& state) {
  double value = 0;
  for (Index m = 0; m < problem.models.size(); ++m) {
    const ModelTally& tally = state.tally(m);
    if (tally.replicas == 0) continue;
    double speed = 0;
    for (const Slot slot : state.of_model(m)) {
      const Replica& replica = state.replica(slot);
      double bandwidth = problem.devices[replica.device[0]].bandwidth;
      for (std::size_t i = 1; i < replica.parts; ++i) {
        bandwidth = std::min(bandwidth, problem.devices[replica.device[i]].bandwidth);
      }
      speed += replica_speed(bandwidth, problem.variants[replica.variant].bytes);
    }
    const double demand = wanted[m].demand_tokens_per_s;
    double points = kFirstPoints + kSpeedPoints * (demand > 0 ? std::min(1.0, speed / demand) : 1.0);
    if (tally.domains >= 2) points += static_cast<double>(problem.second_points);
    value += wanted[m].weight * points;
  }
  return value;
}

double quality_of(const Problem& problem, const std::vector<Wanted>& wanted, const State& state) {
  double quality = 0;
  for (Index m = 0; m < problem.models.size(); ++m) {
    std::int64_t lowest = -1;
    for (const Slot slot : state.of_model(m)) {
      const std::int64_t here = problem.variants[state.replica(slot).variant].quality;
      lowest = lowest < 0 ? here : std::min(lowest, here);
    }
    if (lowest > 0) quality += wanted[m].weight * static_cast<double>(lowest) / 1e6;
  }
  return quality;
}

// Ends the rounds of a bound before one that would not be done in time, as long as all rounds take what the
// last one took.
std::function<bool()> bounds_stop(const std::function<double()>& spent, bool& cut) {
  if (!spent) return {};
  return [&spent, &cut, last = spent()]() mutable {
    if (cut) return true;
    const double now = spent();
    const double round = now - last;
    last = now;
    cut = cut || now + round > kAll;
    return cut;
  };
}

}  // namespace

struct Planner::Impl {
  std::vector<Wanted> wanted;
  Problem problem;
  Names names;
  State state;
  double bound = 0;
  bool bound_known = false;
  std::int64_t search_steps = 0;
  bool truncated = false;

  explicit Impl(const PlanInput& in) : problem(compile(in)), names(in), state(problem) {
    AIV_ASSERT(validate(in).has_value());
    wanted.reserve(in.models.size());
    for (const PlanModel& model : in.models) wanted.push_back({model.weight, model.demand_tokens_per_s});
  }

  [[nodiscard]] double upper_bound() {
    if (!bound_known) bound = simple_bound(problem);
    bound_known = true;
    return bound;
  }

  std::vector<double> prices;  // of a byte of each device; empty until a search wants them
  double opening = 0;  // share of the time limit that was gone when the first plan began: the input was read
  double tail = 0;     // share of the time limit that steps and reasons took after the first plan

  void first_plan(const PlanOptions& options);
  void rehearse(const PlanOptions& options);
  void improve_with(const PlanOptions& options);
  void find_prices(const PlanOptions& options);
  void search(const PlanOptions& options, std::int64_t steps, bool keep, Prng& prng);
  [[nodiscard]] Index node_named(std::string_view id) const;
};

void Planner::Impl::first_plan(const PlanOptions& options) {
  if (options.spent) opening = options.spent();
  Deadline deadline(options.spent, kFirstPlan);
  Deadline enough(options.spent, kOneFilling);
  keep_current(state);
  const std::size_t mark = state.mark();
  Prng prng(1);
  std::vector<Replica> best;
  Objective best_objective;
  const auto consider = [&](auto&& fill) {
    fill();
    if (best.empty() || state.objective() > best_objective) {
      best_objective = state.objective();
      best = state.snapshot();
    }
    state.rollback(mark);
  };
  consider([&] { fill_by_phase(state, Taste::kBestFit, nullptr, deadline); });
  if (!enough.over()) consider([&] { fill_by_density(state, Taste::kFastest, &prng, deadline); });
  if (problem.nodes.size() <= 1000) {
    if (!enough.over()) consider([&] { fill_by_phase(state, Taste::kFastest, &prng, deadline); });
    if (!enough.over()) consider([&] { fill_by_density(state, Taste::kBestFit, nullptr, deadline); });
  }
  state.restore(best);
  force_minimums(state, below_minimum(state), prng, deadline);
  raise_quality(state, deadline);
  state.forget();
  truncated = truncated || enough.over() || deadline.over();
}

// Only where a step looks at every place. In larger clusters few places are compared, and the prices took
// longer.
void Planner::Impl::find_prices(const PlanOptions& options) {
  if (!prices.empty() || problem.nodes.size() > kSmallCluster || problem.devices.size() > kPricedDevicesMax)
    return;
  bool cut = false;
  std::function<bool()> stop;
  if (options.spent) {
    stop = [&] {
      cut = cut || options.spent() > kFirstPlan;
      return cut;
    };
  }
  prices = market_prices(problem, kPriceRounds, stop);
  truncated = truncated || cut;
}

void Planner::Impl::search(const PlanOptions& options, std::int64_t steps, bool keep, Prng& prng) {
  SearchBudget budget;
  budget.steps = steps;
  budget.keep_current = keep;
  budget.deadline = Deadline(options.spent, kSearch - kTails * tail);
  find_prices(options);
  budget.prices = prices;
  // What is within a millionth of the bound is not worth a search.
  budget.value_max = static_cast<Score>(upper_bound() * (1 - 1e-6) * problem.scale);
  const SearchResult result = placement::improve(state, budget, prng);
  search_steps += result.steps;
  truncated = truncated || result.truncated;
}

// What comes after the search, done once before it to see how long it takes.
void Planner::Impl::rehearse(const PlanOptions& options) {
  if (!options.spent) return;
  const double before = options.spent();
  tail = kTailGuess;
  if (before > kFirstPlan / 2) return;
  std::vector<Replica> planned = state.snapshot();
  std::sort(planned.begin(), planned.end(), [](const Replica& a, const Replica& b) {
    return a.model != b.model ? a.model < b.model : a.node < b.node;
  });
  (void)diagnose(state);
  if (options.with_steps) (void)order_steps(problem, planned);
  tail = options.spent() - before;
}

void Planner::Impl::improve_with(const PlanOptions& options) {
  Prng prng(options.seed);
  if (state.kept() == 0) {
    search(options, options.steps, false, prng);
  } else {
    search(options, options.steps / 3, true, prng);
    const Objective calm = state.objective();
    const Score calm_kept = state.kept();
    const std::vector<Replica> base = state.snapshot();
    search(options, options.steps - options.steps / 3, false, prng);
    const auto threshold = static_cast<Score>(problem.min_gain * static_cast<double>(state.value()));
    if (state.kept() < calm_kept && state.objective().net - calm.net < threshold) state.restore(base);
  }
  Deadline deadline(options.spent, std::max(kQuality - kTails * tail, 0.5));
  raise_quality(state, deadline);
  truncated = truncated || deadline.over();
  state.forget();
}

Index Planner::Impl::node_named(std::string_view id) const {
  const auto it = std::find(names.nodes.begin(), names.nodes.end(), id);
  return it == names.nodes.end() ? kNone : static_cast<Index>(it - names.nodes.begin());
}

Planner::Planner(const PlanInput& input) : impl_(std::make_unique<Impl>(input)) {}
Planner::~Planner() = default;
Planner::Planner(Planner&&) noexcept = default;
Planner& Planner::operator=(Planner&&) noexcept = default;

void Planner::first_plan(const PlanOptions& options) {
  impl_->first_plan(options);
}
void Planner::improve(const PlanOptions& options) {
  impl_->rehearse(options);
  impl_->improve_with(options);
}
double Planner::value() const {
  return exact_value(impl_->problem, impl_->wanted, impl_->state);
}
double Planner::upper_bound() const {
  return impl_->upper_bound();
}
void Planner::check_invariants() const {
  impl_->state.check();
}

PlanDelta Planner::lose_node(std::string_view id) {
  PlanDelta delta;
  const Index node = impl_->node_named(id);
  if (node == kNone) return delta;
  State& state = impl_->state;
  state.forget();
  std::vector<Index> lost;
  const std::vector<Slot> there = state.on_node(node);
  for (const Slot slot : there) {
    lost.push_back(state.replica(slot).model);
    delta.removed.push_back(impl_->names.placement(state.replica(slot)));
    state.remove(slot);
  }
  state.set_open(node, false);
  state.forget();
  Search search;
  Prng prng(1);
  search.prng = &prng;
  refill(state, lost, {.search = search, .random_taste = false, .noise = 0});
  Deadline none;
  force_minimums(state, lost, prng, none);
  for (const Replica& replica : state.changes(true)) delta.added.push_back(impl_->names.placement(replica));
  for (const Replica& replica : state.changes(false))
    delta.removed.push_back(impl_->names.placement(replica));
  state.forget();
  for (const Index m : lost) {
    if (state.tally(m).replicas < impl_->problem.models[m].min_replicas)
      delta.unplaced.push_back(impl_->names.models[m]);
  }
  return delta;
}

void Planner::return_node(std::string_view id) {
  const Index node = impl_->node_named(id);
  if (node != kNone) impl_->state.set_open(node, true);
}

Plan Planner::result(const PlanOptions& options) const {
  Impl& impl = *impl_;
  Plan plan;
  plan.value = value();
  plan.quality = quality_of(impl.problem, impl.wanted, impl.state);
  plan.search_steps = impl.search_steps;
  plan.truncated = impl.truncated;
  std::vector<Replica> planned;
  for (Index m = 0; m < impl.problem.models.size(); ++m) {
    for (const Slot slot : impl.state.of_model(m)) planned.push_back(impl.state.replica(slot));
  }
  for (const Replica& replica : planned) {
    plan.placements.push_back(impl.names.placement(replica));
    if (replica.current == kNone) plan.bytes_moved += impl.problem.variants[replica.variant].bytes;
  }
  if (options.with_steps) {
    for (const Step& step : order_steps(impl.problem, planned)) {
      plan.steps.push_back(impl.names.step(impl.problem, step, planned));
    }
  }
  // After the steps, which nothing cuts: the search for what would make a model fit ends where the time does.
  for (const Diagnosis& diagnosis : diagnose(impl.state, Deadline(options.spent, kSearch))) {
    plan.unplaced.push_back(name_diagnosis(impl.names, impl.state, diagnosis));
  }
  if (options.with_bound) {
    // The tight bounds take longer than a first plan does; they go with plans that were searched for.
    double bound = impl.upper_bound();
    if (options.steps > 0) {
      const double work = kBoundWorkPerStep * static_cast<double>(options.steps);
      bool cut = options.spent && options.spent() + kBoundOpening * impl.opening > kAll;
      const auto stop = bounds_stop(options.spent, cut);
      if (!cut) bound = std::min(bound, market_bound(impl.problem, plan.value, work, stop));
      if (!cut) bound = std::min(bound, lagrangian_bound(impl.problem, plan.value, stop));
      plan.truncated = plan.truncated || cut;
    }
    plan.upper_bound = std::max(bound, plan.value);
  }
  return plan;
}

std::int64_t steps_for_limit(const PlanInput& input, std::int64_t limit_ms) {
  // Steps per millisecond by number of devices: a fifth to a half of what one idle core does
  // (bench/placement, release build), so that the budget, not the clock, ends the search on a busy machine
  // too.
  std::size_t devices = 0;
  for (const PlanNode& node : input.nodes) devices += node.devices.size();
  const std::int64_t per_ms = devices <= 16 ? 45 : devices <= 48 ? 72 : devices <= 1000 ? 52 : 40;
  return std::max<std::int64_t>(0, limit_ms) * per_ms;
}

Plan plan(const PlanInput& input, const PlanOptions& options) {
  Planner planner(input);
  planner.first_plan(options);
  if (options.steps > 0) planner.improve(options);
  return planner.result(options);
}

std::string unplaced_reason(const Plan& plan, std::string_view model) {
  for (const Unplaced& unplaced : plan.unplaced) {
    if (unplaced.model == model) return describe(unplaced);
  }
  return {};
}

}  // namespace aiv
