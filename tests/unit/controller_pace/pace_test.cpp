// When the next decision is made, and what it names as its cause.
#include <gtest/gtest.h>

#include "controller/decision_pace.hpp"

namespace aiv::controller {
namespace {

using net::milliseconds;

constexpr net::Clock::time_point kStart{std::chrono::hours(1)};

TEST(DecisionPace, NothingIsDueUntilSomethingIsAsked) {
  DecisionPace pace;
  EXPECT_FALSE(pace.due(kStart));
  EXPECT_EQ(pace.next(), net::Clock::time_point::max());
  pace.ask("");
  EXPECT_TRUE(pace.due(kStart));
  EXPECT_TRUE(pace.take_cause().empty());
  EXPECT_FALSE(pace.wanted());
}

TEST(DecisionPace, AShortDecisionIsFollowedByTheNextAtOnce) {
  DecisionPace pace;
  pace.ask("a");
  (void)pace.take_cause();
  pace.decided(kStart, kStart + milliseconds(1));
  pace.ask("b");
  EXPECT_TRUE(pace.due(kStart + milliseconds(1)));
}

TEST(DecisionPace, ALongOneMakesTheNextWaitSoThatItTakesAFifthOfTheTimeAtMost) {
  DecisionPace pace;
  pace.ask("a");
  (void)pace.take_cause();
  pace.decided(kStart, kStart + milliseconds(20));
  pace.ask("b");
  EXPECT_FALSE(pace.due(kStart + milliseconds(99)));
  EXPECT_EQ(pace.next(), kStart + milliseconds(100));
  EXPECT_TRUE(pace.due(kStart + milliseconds(100)));
}

TEST(DecisionPace, NobodyWaitsLongerThanAQuarterOfASecond) {
  DecisionPace pace;
  pace.ask("a");
  (void)pace.take_cause();
  pace.decided(kStart, kStart + milliseconds(3000));
  pace.ask("b");
  EXPECT_EQ(pace.next(), kStart + milliseconds(3250));
}

TEST(DecisionPace, OneDecisionNamesTheFirstCauseAndHowManyMoreItAnswers) {
  DecisionPace pace;
  pace.ask("deployment.put deployment/a");
  pace.ask("");
  EXPECT_EQ(pace.take_cause(), "deployment.put deployment/a");
  pace.ask("deployment.put deployment/b");
  pace.ask("deployment.put deployment/c");
  EXPECT_EQ(pace.take_cause(), "deployment.put deployment/b, and 1 more change");
  for (const char* cause : {"x", "y", "z"}) pace.ask(cause);
  EXPECT_EQ(pace.take_cause(), "x, and 2 more changes");
  EXPECT_TRUE(pace.take_cause().empty());
}

}  // namespace
}  // namespace aiv::controller
