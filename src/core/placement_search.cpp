#include "core/placement_search.hpp"

#include <algorithm>
#include <bit>

#include "core/placement_repair.hpp"

namespace aiv::placement {
namespace {

// Steps without a new best before the search returns to the best.
constexpr std::int64_t kIdleMax = 2000;
constexpr std::int64_t kIdleMaxSmall = 6'000;
// Of a Deadline; a step takes 10 us in a lab and up to some 100 in a large cluster, a look at the clock 0.05.
constexpr int kWorkPerStep = 125;
constexpr int kWorkPerStepSmall = 60;
constexpr std::size_t kRuinNodeMax = 24;  // replicas removed from one node
constexpr std::size_t kRestartNodesMax = 12;
// Models tried beside those that lost something, by trial on 20 sites.
constexpr std::uint32_t kWanting = 4;
constexpr std::uint32_t kWantingMedium = 12;

class Searcher {
 public:
  Searcher(State& state, const SearchBudget& budget, Prng& prng)
      : state_(state), problem_(state.problem()), budget_(budget), deadline_(budget.deadline), prng_(prng) {
    for (Index n = 0; n < problem_.nodes.size(); ++n) {
      if (state.open(n) && problem_.nodes[n].device_count > 0) nodes_.push_back(n);
    }
    for (Index m = 0; m < problem_.models.size(); ++m) {
      if (problem_.models[m].smallest_need > 0 && problem_.models[m].max_replicas > 0) models_.push_back(m);
    }
    small_ = problem_.nodes.size() <= kSmallCluster;
    // 0.8 % of the mean value per model in labs, twice that up to 24 nodes; where a step changes a small part
    // of many, and the budget gives each model few steps, nearly none (measured with bench/placement).
    const auto mean = state.value() / static_cast<Score>(std::max<std::size_t>(1, models_.size()));
    medium_ = small_ && nodes_.size() > kRestartNodesMax;
    temperature_start_ = mean / (medium_ ? 60 : small_ ? 125 : 1000);
  }

  SearchResult run() {
    SearchResult result;
    if (nodes_.empty() || models_.empty()) return result;
    best_ = state_.objective();
    state_.forget();
    const std::int64_t idle_max = small_ ? kIdleMaxSmall : kIdleMax;
    std::int64_t idle = 0;
    for (; result.steps < budget_.steps && state_.value() < budget_.value_max; ++result.steps) {
      if (deadline_.over(small_ ? kWorkPerStepSmall : kWorkPerStep)) {
        result.truncated = true;
        break;
      }
      idle = step(result.steps) ? 0 : idle + 1;
      if (idle >= idle_max) {
        state_.rollback(0);
        idle = 0;
      }
    }
    state_.rollback(0);
    return result;
  }

 private:
  // What a step takes away before it builds anew.
  enum class Ruin { kNodes, kModels, kReplicas, kClear, kPair, kEject };

  // True if a new best was found.
  bool step(std::int64_t number) {
    const std::size_t mark = state_.mark();
    const Objective before = state_.objective();
    const std::size_t covered = state_.covered();
    const Score covered_weight = state_.covered_weight();
    touched_models_.clear();
    touched_nodes_.clear();
    ruin();
    rebuild();
    const Objective after = state_.objective();
    const bool uncovers = state_.covered() < covered || state_.covered_weight() < covered_weight;
    if ((uncovers && !small_) || !accept(before, after, number)) {
      state_.rollback(mark);
      return false;
    }
    if (after > best_) {
      best_ = after;
      state_.forget();
      return true;
    }
    return false;
  }

  bool accept(const Objective& before, const Objective& after, std::int64_t number) {
    if (after >= before) return true;
    const Score worse = before.net - after.net;
    if (worse == 0) return prng_.chance(1, 2);
    const Score temperature = temperature_start_ - scale(temperature_start_, number, budget_.steps);
    return worse <= scale(temperature, exponential(), std::int64_t{1} << 16);
  }

  // a * num / den without overflow for any score.
  static Score scale(Score a, std::int64_t num, std::int64_t den) {
    return static_cast<Score>(static_cast<double>(a) * static_cast<double>(num) / static_cast<double>(den));
  }

  // A draw of the exponential distribution with mean 1, in 1/65536: -ln(u) with the logarithm's mantissa
  // taken as linear (off by at most 0.06). Whole numbers only, so that no library decides.
  std::int64_t exponential() {
    const auto u = static_cast<std::uint32_t>(prng_.next() >> 32) | 1U;
    const int zeros = std::countl_zero(u);
    const std::uint32_t mantissa = (u << zeros) & 0x7fffffffU;  // fraction of the leading one
    const std::int64_t log2 = (std::int64_t{zeros + 1} << 16) - (mantissa >> 15);
    return log2 * 45426 / 65536;  // ln 2
  }

  bool removable(Slot slot) const {
    return !state_.fixed(slot) && !(budget_.keep_current && state_.replica(slot).current != kNone);
  }

  void remove(Slot slot) {
    const Replica& replica = state_.replica(slot);
    touched_models_.push_back(replica.model);
    if (std::find(touched_nodes_.begin(), touched_nodes_.end(), replica.node) == touched_nodes_.end()) {
      touched_nodes_.push_back(replica.node);
    }
    state_.remove(slot);
  }

  void ruin_node(Index node) {
    if (std::find(touched_nodes_.begin(), touched_nodes_.end(), node) == touched_nodes_.end()) {
      touched_nodes_.push_back(node);
    }
    list_ = state_.on_node(node);
    while (list_.size() > kRuinNodeMax) {
      list_[prng_.below(static_cast<std::uint32_t>(list_.size()))] = list_.back();
      list_.pop_back();
    }
    for (const Slot slot : list_) {
      if (removable(slot)) remove(slot);
    }
  }

  void ruin_model(Index model) {
    list_ = state_.of_model(model);
    for (const Slot slot : list_) {
      if (removable(slot)) remove(slot);
    }
    touched_models_.push_back(model);
  }

  Index any_node() { return nodes_[prng_.below(static_cast<std::uint32_t>(nodes_.size()))]; }

  // Where prices are known, of two nodes the one whose memory earns less than it is worth.
  Index random_node() {
    const Index one = any_node();
    if (budget_.prices.empty()) return one;
    const Index other = any_node();
    return regret(other) > regret(one) ? other : one;
  }

  // What the node's memory would earn at its prices and does not: what is free, and replicas worth less than
  // they hold.
  double regret(Index node) const {
    const NodeData& data = problem_.nodes[node];
    double sum = 0;
    for (Index d = data.first_device; d < data.first_device + data.device_count; ++d) {
      sum += budget_.prices[d] * static_cast<double>(state_.free(d));
    }
    for (const Slot slot : state_.on_node(node)) {
      const double price = price_at(problem_, budget_.prices, state_.replica(slot));
      sum += std::max(0.0, price - static_cast<double>(loss(state_, slot)));
    }
    return sum;
  }

  Index random_model() { return models_[prng_.below(static_cast<std::uint32_t>(models_.size()))]; }

  // A model that could gain much; kNone if a few draws found none.
  Index wanting_model() {
    Index best = kNone;
    Score best_potential = 0;
    for (int i = 0; i < 6; ++i) {
      const Index m = random_model();
      const Score score = potential(state_, m);
      if (score > best_potential) {
        best_potential = score;
        best = m;
      }
    }
    return best;
  }

  Search random_search() {
    Search search;
    search.prices = budget_.prices;
    search.taste = random_taste(prng_, search);
    search.prng = &prng_;
    search.nodes = touched_nodes_;
    search.tries = 3;
    search.split_first = prng_.chance(1, 8);
    return search;
  }

  void ruin() {
    // A small cluster is now and then built anew from nothing: some optima differ everywhere from what is
    // there.
    if (nodes_.size() <= kRestartNodesMax && prng_.chance(1, 32)) {
      for (const Index n : nodes_) ruin_node(n);
      return;
    }
    // Whole nodes more often where a step looks at every node anyway (measured with bench/placement).
    using enum Ruin;
    static constexpr Ruin kFew[] = {kNodes,  kNodes,    kNodes, kNodes, kNodes,  kNodes, kNodes, kNodes,
                                    kModels, kReplicas, kClear, kPair,  kModels, kEject, kEject, kEject};
    static constexpr Ruin kMany[] = {kNodes, kNodes, kModels, kReplicas, kClear, kPair, kEject, kEject};
    // Between the two an ejection gains less than it costs.
    static constexpr Ruin kMedium[] = {kNodes,  kNodes,  kNodes,  kNodes,  kNodes, kNodes, kNodes,    kNodes,
                                       kModels, kModels, kModels, kModels, kPair,  kPair,  kReplicas, kClear};
    switch (medium_ ? kMedium[prng_.below(16)] : small_ ? kFew[prng_.below(16)] : kMany[prng_.below(8)]) {
      case kNodes:
        for (std::uint32_t n = 1 + prng_.below(3); n > 0; --n) ruin_node(random_node());
        break;
      case kModels:
        for (std::uint32_t n = 2 + prng_.below(4); n > 0; --n) ruin_model(random_model());
        break;
      case kReplicas:
        ruin_replicas(3 + prng_.below(4));
        break;
      case kClear:
        clear_node_for(wanting_model());
        break;
      case kPair:
        ruin_pair();
        break;
      case kEject:
        eject_for(wanting_model());
        break;
    }
  }

  void ruin_replicas(std::uint32_t count) {
    for (; count > 0; --count) {
      const auto& there = state_.on_node(random_node());
      if (there.empty()) continue;
      const Slot slot = there[prng_.below(static_cast<std::uint32_t>(there.size()))];
      if (removable(slot)) remove(slot);
    }
  }

  // One replica on each of two nodes: what an exchange needs.
  void ruin_pair() {
    const Index model = random_model();
    ruin_model(model);
    ruin_replicas(1 + prng_.below(2));
  }

  void clear_node_for(Index model) {
    if (model == kNone) return ruin_node(random_node());
    for (int i = 0; i < 8; ++i) {
      const Index node = random_node();
      if (state_.has(model, node) || !problem_.node_allows(problem_.models[model], node)) continue;
      ruin_node(node);
      const Place place = find_place(state_, model, random_search());
      if (place.found()) state_.add(place.replica);
      return;
    }
  }

  // An ejection chain: the model takes a place, what lay there goes elsewhere.
  void eject_for(Index model) {
    if (model == kNone) return ruin_replicas(3);
    for (int i = 0; i < 4; ++i) {
      const Index node = random_node();
      if (budget_.keep_current && holds_current(node)) continue;
      Search search = random_search();
      if (!force_on_node(state_, model, node, search, touched_models_)) continue;
      touched_nodes_.push_back(node);
      return;
    }
  }

  bool holds_current(Index node) const {
    const auto& there = state_.on_node(node);
    return std::any_of(there.begin(), there.end(),
                       [&](Slot s) { return state_.replica(s).current != kNone; });
  }

  void rebuild() {
    for (std::uint32_t n = 1 + prng_.below(medium_ ? kWantingMedium : kWanting); n > 0; --n) {
      if (const Index m = wanting_model(); m != kNone) touched_models_.push_back(m);
    }
    std::sort(touched_models_.begin(), touched_models_.end());
    touched_models_.erase(std::unique(touched_models_.begin(), touched_models_.end()), touched_models_.end());
    Refill how{.search = random_search(),
               .random_taste = prng_.chance(medium_ ? 2 : 3, 4),
               .noise = prng_.chance(1, 4) ? 0.9 : 0.3};
    refill(state_, touched_models_, how);
  }

  State& state_;
  const Problem& problem_;
  const SearchBudget& budget_;
  Deadline deadline_;
  Prng& prng_;
  std::vector<Index> nodes_;
  std::vector<Index> models_;
  bool small_ = false;   // a step looks at every node
  bool medium_ = false;  // and they are too many to be built anew as a whole
  Score temperature_start_ = 0;
  Objective best_;
  std::vector<Index> touched_models_;
  std::vector<Index> touched_nodes_;
  std::vector<Slot> list_;
};

}  // namespace

SearchResult improve(State& state, const SearchBudget& budget, Prng& prng) {
  return Searcher(state, budget, prng).run();
}

}  // namespace aiv::placement
