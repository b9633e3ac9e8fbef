#include "builders.hpp"
#include "core/placement_greedy.hpp"
#include "core/placement_repair.hpp"
#include "core/placement_search.hpp"
#include "labs.hpp"

namespace aiv::test {
namespace {

using namespace placement;

TEST(StateTest, ARollbackLeavesTheStateEqualInEveryBit) {
  for (std::uint64_t seed = 1; seed <= 30; ++seed) {
    const PlanInput input = random_lab(seed, {.nodes = 5, .load = 1.5, .current = seed % 2 == 0});
    const Problem problem = compile(input);
    State state(problem);
    keep_current(state);
    Deadline none;
    fill_by_density(state, Taste::kBestFit, nullptr, none);
    state.forget();
    const State before = state;
    Prng prng(seed);
    Search search;
    search.prng = &prng;
    search.taste = Taste::kRandom;
    for (int round = 0; round < 20; ++round) {
      const std::size_t mark = state.mark();
      std::vector<Index> touched;
      for (int k = 0; k < 5; ++k) {
        const Index m = prng.below(static_cast<std::uint32_t>(problem.models.size()));
        const Index n = prng.below(static_cast<std::uint32_t>(problem.nodes.size()));
        (void)force_on_node(state, m, n, search, touched);
        const auto there = state.on_node(n);
        if (!there.empty() && !state.fixed(there.front())) state.remove(there.front());
        refill(state, touched, {.search = search, .random_taste = true, .noise = 0.3});
      }
      state.check();
      state.rollback(mark);
      ASSERT_TRUE(state == before) << "seed " << seed;
    }
  }
}

TEST(StateTest, TheSearchNeverLeavesAWorseStateThanItFound) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    const PlanInput input = random_lab(seed, {.nodes = 4, .load = 1.6, .current = true});
    const Problem problem = compile(input);
    State state(problem);
    keep_current(state);
    const Objective before = state.objective();
    Prng prng(seed);
    SearchBudget budget;
    budget.steps = 300;
    budget.value_max = std::numeric_limits<Score>::max();
    improve(state, budget, prng);
    EXPECT_GE(state.objective(), before);
    state.check();
  }
}

TEST(StateTest, GainAndLossAreTheValuesOwnDifferences) {
  const PlanInput input = random_lab(11, {.nodes = 8, .load = 1.2});
  const Problem problem = compile(input);
  State state(problem);
  Deadline none;
  fill_by_phase(state, Taste::kBestFit, nullptr, none);
  for (Slot slot = 0; slot < state.slots(); ++slot) {
    const Replica replica = state.replica(slot);
    const Score expected = loss(state, slot);
    const Score with = state.value();
    const std::size_t mark = state.mark();
    state.remove(slot);
    EXPECT_EQ(with - state.value(), expected);
    EXPECT_EQ(state.gain(replica.model, problem.nodes[replica.node].domain, replica.share), expected);
    EXPECT_GE(potential(state, replica.model), expected);
    state.rollback(mark);
  }
}

TEST(FitIndexTest, AWalkFindsTheIdsOfEnoughSizeSmallestFirst) {
  FitIndex index(5000, 1 << 30);
  for (Index i = 0; i < 5000; ++i) index.set(i, Bytes{1 << 20} * (i % 1000));
  std::vector<Index> seen;
  index.walk(Bytes{1 << 20} * 998, 0, [&](Index i) {
    seen.push_back(i);
    return false;
  });
  EXPECT_EQ(seen.size(), 10U);
  index.erase(998);
  index.set(999, 0);
  std::size_t left = 0;
  index.walk(Bytes{1 << 20} * 998, 4096, [&](Index) { return ++left == 100; });
  EXPECT_EQ(left, 8U);
}

}  // namespace
}  // namespace aiv::test
