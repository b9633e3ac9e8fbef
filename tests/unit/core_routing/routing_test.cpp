#include "core/routing.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <random>
#include <vector>

namespace aiv {
namespace {

RouteOption replica(double decode, int slots = 4, int busy = 0, double wait_ms = 0) {
  return {.slots = slots, .busy = busy, .wait_ms = wait_ms, .prefill_per_s = decode * 20, .decode_per_s = decode};
}

struct Routed {
  RouteDecision decision;
  std::vector<RouteTerms> terms;
};

Routed decide(const std::vector<RouteOption>& options, RouteAsk ask = {.prompt_tokens = 200, .output_tokens = 100}) {
  Routed routed;
  routed.terms.resize(options.size());
  routed.decision = route(ask, options, routed.terms);
  return routed;
}

TEST(Routing, AnIdleClusterSendsToTheFastestCard) {
  const auto r = decide({replica(25), replica(110), replica(60)});
  EXPECT_EQ(r.decision.outcome, RouteOutcome::kChosen);
  EXPECT_EQ(r.decision.index, 1);
  EXPECT_EQ(r.terms[0].verdict, Verdict::kSlower);
  EXPECT_EQ(r.terms[1].verdict, Verdict::kChosen);
}

TEST(Routing, TheFinishIsTheSumOfItsTermsInMilliseconds) {
  const auto r = decide({RouteOption{.slots = 1, .busy = 0, .prefill_per_s = 1000, .decode_per_s = 50}},
                        {.prompt_tokens = 500, .output_tokens = 100});
  EXPECT_DOUBLE_EQ(r.terms[0].prefill_ms, 500);
  EXPECT_DOUBLE_EQ(r.terms[0].decode_ms, 2000);
  EXPECT_DOUBLE_EQ(r.decision.finish_ms, 2500);
}

TEST(Routing, WhatAStreamMoreCostsThoseWhoRunThereCounts) {
  // Alone on the slower card: 200 tokens at 60/s. As the fourth on the faster one it would finish no later, but the
  // three others would, each by 4^0.35 - 3^0.35 of 200 tokens at 100/s.
  const auto r = decide({replica(60), replica(100, 4, 3)}, {.output_tokens = 200});
  EXPECT_LT(r.terms[1].finish_ms, r.terms[0].finish_ms);
  EXPECT_NEAR(r.terms[1].others_ms, 3 * 2000 * (std::pow(4, 0.35) - std::pow(3, 0.35)), 1e-6);
  EXPECT_EQ(r.terms[0].others_ms, 0);
  EXPECT_EQ(r.decision.index, 0);
  EXPECT_DOUBLE_EQ(r.decision.finish_ms, r.terms[0].finish_ms);
}

TEST(Routing, AFreeSlotIsNotLeftIdleWhileOthersWaitBehind) {
  const std::vector<RouteOption> options{replica(10), replica(110, 4, 4, 500)};
  RouteAsk ask{.prompt_tokens = 200, .output_tokens = 200};
  EXPECT_EQ(decide(options, ask).decision.outcome, RouteOutcome::kWait);
  ask.waiting = 1;
  EXPECT_EQ(decide(options, ask).decision.outcome, RouteOutcome::kChosen);
  EXPECT_EQ(decide(options, ask).decision.index, 0);
}

TEST(Routing, CachedTokensCountAsTheTimeTheySave) {
  auto warm = replica(50);
  warm.cached_tokens = 5000;
  const auto r = decide({replica(60), warm}, {.prompt_tokens = 5000, .output_tokens = 100});
  EXPECT_EQ(r.decision.index, 1);
}

TEST(Routing, ABusyFastCardIsWaitedForWhenItStillFinishesAFifthSooner) {
  const auto r = decide({replica(10), replica(110, 4, 4, 500)}, {.prompt_tokens = 200, .output_tokens = 200});
  EXPECT_EQ(r.decision.outcome, RouteOutcome::kWait);
  EXPECT_EQ(r.decision.index, 1);
  EXPECT_EQ(r.terms[1].verdict, Verdict::kWaitFor);
}

TEST(Routing, ABusyFastCardIsNotWaitedForWhenTheGainIsSmall) {
  const auto r = decide({replica(50), replica(60, 1, 1, 2000)});
  EXPECT_EQ(r.decision.outcome, RouteOutcome::kChosen);
  EXPECT_EQ(r.decision.index, 0);
  EXPECT_EQ(r.terms[1].verdict, Verdict::kBusy);
}

TEST(Routing, ASuspectReplicaIsTakenOnlyWhenNoOtherCanBe) {
  auto suspect = replica(110);
  suspect.suspect = true;
  auto r = decide({suspect, replica(10)});
  EXPECT_EQ(r.decision.index, 1);
  EXPECT_EQ(r.terms[0].verdict, Verdict::kSuspect);
  EXPECT_EQ(decide({suspect}).decision.index, 0);
}

TEST(Routing, WithOnlyEjectedReplicasLeftTheOneWhoseTimeEndsFirstIsTried) {
  auto a = replica(110);
  a.ejected_until_ms = 9000;
  auto b = replica(10);
  b.ejected_until_ms = 5000;
  const auto r = decide({a, b}, {.prompt_tokens = 1, .output_tokens = 1, .now_ms = 1000});
  EXPECT_EQ(r.decision.outcome, RouteOutcome::kChosen);
  EXPECT_EQ(r.decision.index, 1);
}

TEST(Routing, AReplicaThatThisRequestAlreadyTriedIsNeverTakenAgain) {
  auto tried = replica(110);
  tried.excluded = true;
  EXPECT_EQ(decide({tried}).decision.outcome, RouteOutcome::kNone);
  auto gone = replica(110);
  gone.reachable = false;
  const auto r = decide({tried, gone, replica(5)});
  EXPECT_EQ(r.decision.index, 2);
  EXPECT_EQ(r.terms[0].verdict, Verdict::kExcluded);
  EXPECT_EQ(r.terms[1].verdict, Verdict::kUnreachable);
}

TEST(Routing, EqualReplicasShareTheRequestsByTheNumberPassedIn) {
  std::array<int, 3> hits{};
  std::mt19937_64 random(7);
  for (int i = 0; i < 3000; ++i) {
    RouteAsk ask{.prompt_tokens = 10, .output_tokens = 10, .random = random()};
    const auto r = decide({replica(50), replica(50.3), replica(50)}, ask);
    hits[static_cast<std::size_t>(r.decision.index)] += 1;
  }
  for (const int h : hits) EXPECT_NEAR(h, 1000, 150);
}

// A generator that covers many more corners than stories would: whatever the options are, the answer keeps the rules.
TEST(Routing, AnyAnswerKeepsSlotsReachabilityAndTheBestTier) {
  std::mt19937_64 random(20240601);
  const auto draw = [&](std::uint64_t n) { return static_cast<int>(random() % n); };
  for (int round = 0; round < 20000; ++round) {
    std::vector<RouteOption> options(static_cast<std::size_t>(draw(9)));
    for (auto& o : options) {
      o.slots = draw(5);
      o.busy = o.slots == 0 ? 0 : draw(static_cast<std::uint64_t>(o.slots) + 2);
      o.wait_ms = draw(20000);
      o.prefill_per_s = draw(4) == 0 ? 0.0 : draw(5000);
      o.decode_per_s = draw(4) == 0 ? 0.0 : draw(120);
      o.cached_tokens = draw(1000);
      o.ejected_until_ms = draw(3) == 0 ? 500 + draw(1000) : 0;
      o.suspect = draw(3) == 0;
      o.reachable = draw(5) != 0;
      o.excluded = draw(5) == 0;
    }
    const RouteAsk ask{.prompt_tokens = static_cast<double>(draw(4000)), .output_tokens = static_cast<double>(draw(800)),
                       .now_ms = 1000, .random = random()};
    const auto r = decide(options, ask);
    const auto usable = [](const RouteOption& o) { return o.reachable && !o.excluded; };
    const bool any = std::any_of(options.begin(), options.end(), usable);
    ASSERT_EQ(r.decision.outcome != RouteOutcome::kNone, any);
    if (!any) continue;
    const RouteOption& got = options.at(static_cast<std::size_t>(r.decision.index));
    ASSERT_TRUE(usable(got));
    ASSERT_TRUE(std::isfinite(r.decision.finish_ms));
    if (r.decision.outcome == RouteOutcome::kChosen) {
      ASSERT_LT(got.busy, got.slots);
    }
    const bool healthy_exists = std::any_of(options.begin(), options.end(), [&](const RouteOption& o) {
      return usable(o) && !o.suspect && o.ejected_until_ms <= ask.now_ms;
    });
    if (healthy_exists) {
      ASSERT_TRUE(!got.suspect && got.ejected_until_ms <= ask.now_ms);
    }
    int marked = 0;
    for (const auto& t : r.terms) marked += t.verdict == Verdict::kChosen || t.verdict == Verdict::kWaitFor;
    ASSERT_EQ(marked, 1);
  }
}

TEST(SpeedEstimate, ASeedThatIsWrongByTwoIsCorrectedAfterADozenAnswers) {
  SpeedEstimate speed(1000, 60);
  for (int i = 0; i < 12; ++i) speed.observe_decode(100, 100 * 1000.0 / 30.0, 1);
  EXPECT_NEAR(speed.decode_per_s(), 30, 3);
}

TEST(SpeedEstimate, ACardThatSlowsDownFiveTimesIsNoticedWithinAFewSamples) {
  SpeedEstimate speed(1000, 100);
  // Samples come every second while streaming, so eight of them are well within ten seconds.
  for (int i = 0; i < 8; ++i) speed.observe_decode(100, 5000, 1);
  EXPECT_LT(speed.decode_per_s(), 40);
}

TEST(SpeedEstimate, SamplesAreNormalisedToALoneStream) {
  SpeedEstimate speed(1000, 50);
  const double each = 50 * batch_factor(4);
  for (int i = 0; i < 20; ++i) speed.observe_decode(64, 64 * 1000.0 / each, 4);
  EXPECT_NEAR(speed.decode_per_s(), 50, 0.5);
}

TEST(SpeedEstimate, ShortAnswersAndNonsenseTeachNothing) {
  SpeedEstimate speed(1000, 50);
  speed.observe_decode(31, 1, 1);
  speed.observe_decode(100, 0, 1);
  speed.observe_decode(100, std::nan(""), 1);
  speed.observe_prefill(-5, 10);
  EXPECT_DOUBLE_EQ(speed.decode_per_s(), 50);
  EXPECT_DOUBLE_EQ(speed.prefill_per_s(), 1000);
}

TEST(SpeedEstimate, OneAbsurdSampleMovesTheEstimateByABoundedFactor) {
  SpeedEstimate speed(1000, 50);
  speed.observe_decode(1'000'000, 0.001, 1);
  EXPECT_LE(speed.decode_per_s(), 50 + kRateSmoothing * (kRateClip - 1) * 50 + 1e-9);
}

TEST(Ejection, BackOffDoublesFromOneSecondToAMinuteAndOneGoodAnswerClearsIt) {
  Ejection ejection;
  const std::array<std::int64_t, 8> expected{1, 2, 4, 8, 16, 32, 60, 60};
  std::int64_t now = 0;
  for (const auto s : expected) {
    ejection.failed(now);
    EXPECT_EQ(ejection.until_ms() - now, s * 1000);
    now = ejection.until_ms();
  }
  ejection.succeeded();
  EXPECT_EQ(ejection.until_ms(), 0);
  ejection.failed(0);
  EXPECT_EQ(ejection.until_ms(), 1000);
}

TEST(Ejection, WhatFailsWhileItIsOutIsTheSameFailureAndCountsOnce) {
  Ejection ejection;
  for (int stream = 0; stream < 8; ++stream) ejection.failed(stream);  // all of them broke with the one engine
  EXPECT_EQ(ejection.until_ms(), 1000);
  EXPECT_EQ(ejection.failures(), 1);
  ejection.failed(1000);
  EXPECT_EQ(ejection.until_ms(), 3000);
}

TEST(SlotLedger, TheWaitIsTheEarliestPredictedEnd) {
  SlotLedger ledger(2);
  const auto a = ledger.take(0, 5000, 1);
  EXPECT_EQ(ledger.wait_ms(100), 0);
  ledger.take(0, 3000, 1);
  EXPECT_FALSE(ledger.has_free());
  EXPECT_EQ(ledger.wait_ms(1000), 2000);
  ledger.release(a.ticket);
  EXPECT_EQ(ledger.wait_ms(1000), 0);
}

TEST(SlotLedger, AnOverduePredictionIsNotBelievedForEver) {
  SlotLedger ledger(1);
  ledger.take(0, 1000, 1);
  EXPECT_EQ(ledger.wait_ms(20000), 2000);
  EXPECT_GT(ledger.wait_ms(40000), ledger.wait_ms(20000));
}

TEST(SlotLedger, FewerSlotsThanRunningRequestsAdmitNobodyUntilEnoughEnded) {
  SlotLedger ledger(3);
  const auto a = ledger.take(0, 10, 1);
  const auto b = ledger.take(0, 10, 1);
  ledger.set_slots(1);
  EXPECT_FALSE(ledger.has_free());
  ledger.release(b.ticket);
  EXPECT_FALSE(ledger.has_free());
  ledger.release(a.ticket);
  EXPECT_TRUE(ledger.has_free());
  EXPECT_EQ(ledger.take(0, 10, 1).slot, 0);
}

TEST(SlotLedger, ATenantGetsItsOwnSlotBackAndNeverAnothersCache) {
  SlotLedger ledger(3);
  const auto a = ledger.take(0, 10, 111);
  EXPECT_FALSE(a.same_tenant);
  ledger.release(a.ticket);
  const auto b = ledger.take(0, 10, 222);
  EXPECT_NE(b.slot, a.slot) << "a slot never used is preferred to another tenant's";
  EXPECT_FALSE(b.same_tenant);
  const auto again = ledger.take(0, 10, 111);
  EXPECT_EQ(again.slot, a.slot);
  EXPECT_TRUE(again.same_tenant);
  ledger.release(again.ticket);
  ledger.forget_tenants();
  EXPECT_FALSE(ledger.take(0, 10, 111).same_tenant);
}

TEST(SlotLedger, TenantZeroSharesWithNobodyNotEvenItself) {
  SlotLedger ledger(1);
  ledger.release(ledger.take(0, 10, 0).ticket);
  EXPECT_FALSE(ledger.take(0, 10, 0).same_tenant);
}

TEST(SlotLedger, NoSlotIsEverGivenTwiceAndReuseIsAlwaysByTheLastTenant) {
  std::mt19937_64 random(99);
  for (int round = 0; round < 200; ++round) {
    SlotLedger ledger(static_cast<int>(1 + random() % 6));
    std::vector<SlotLease> running;
    std::array<std::uint64_t, 8> last{};
    for (int step = 0; step < 300; ++step) {
      if (random() % 2 == 0 && ledger.has_free()) {
        const std::uint64_t tenant = 1 + random() % 3;
        const auto lease = ledger.take(step, step + 5, tenant);
        ASSERT_LT(lease.slot, ledger.slots());
        for (const auto& other : running) ASSERT_NE(other.slot, lease.slot);
        ASSERT_EQ(lease.same_tenant, last.at(static_cast<std::size_t>(lease.slot)) == tenant);
        last.at(static_cast<std::size_t>(lease.slot)) = tenant;
        running.push_back(lease);
      } else if (!running.empty()) {
        const auto which = random() % running.size();
        ledger.release(running[which].ticket);
        running.erase(running.begin() + static_cast<std::ptrdiff_t>(which));
      }
      ASSERT_EQ(static_cast<std::size_t>(ledger.busy()), running.size());
    }
  }
}

TEST(RetryBudget, TriesAreAFifthOfTheLiveRequestsButAlwaysThree) {
  EXPECT_TRUE(retry_within_budget(2, 0));
  EXPECT_FALSE(retry_within_budget(3, 15));
  EXPECT_TRUE(retry_within_budget(19, 100));
  EXPECT_FALSE(retry_within_budget(20, 100));
}

}  // namespace
}  // namespace aiv
