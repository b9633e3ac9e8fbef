// A card that turns five times slower (heat, a neighbour) while requests come: on virtual time, with the
// estimates and the decision that the gateway uses. Its streams say the new pace in windows of two seconds,
// as the relay takes them.
#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "core/routing.hpp"

namespace aiv {
namespace {

constexpr double kStepMs = 50;

struct Stream {
  int card = 0;
  double tokens = 0;
  double of = 0;
  double window_ms = 0;
  double window_tokens = 0;
};

class Cards {
 public:
  explicit Cards(std::vector<double> speeds) : real(std::move(speeds)) {
    for (const double speed : real) estimates.emplace_back(speed * 20, speed);
  }

  [[nodiscard]] int running(int card) const {
    int count = 0;
    for (const Stream& stream : streams) count += stream.card == card ? 1 : 0;
    return count;
  }

  // The card that a request of `tokens` tokens goes to; -1: it would wait.
  int send(double tokens) {
    std::vector<RouteOption> options;
    for (std::size_t i = 0; i < real.size(); ++i) {
      options.push_back({.slots = 8,
                         .busy = running(static_cast<int>(i)),
                         .wait_ms = 1000,
                         .prefill_per_s = estimates[i].prefill_per_s(),
                         .decode_per_s = estimates[i].decode_per_s()});
    }
    std::vector<RouteTerms> terms(options.size());
    random = random * 6364136223846793005ULL + 1442695040888963407ULL;
    const RouteDecision decision =
        route({.prompt_tokens = 50, .output_tokens = tokens, .random = random}, options, terms);
    if (decision.outcome != RouteOutcome::kChosen) return -1;
    streams.push_back({.card = decision.index, .of = tokens});
    return decision.index;
  }

  void step() {
    std::vector<int> batch(real.size());
    for (std::size_t i = 0; i < real.size(); ++i) batch[i] = running(static_cast<int>(i));
    for (Stream& stream : streams) {
      const auto card = static_cast<std::size_t>(stream.card);
      const double made = real[card] * batch_factor(batch[card]) * kStepMs / 1000.0;
      stream.tokens += made;
      stream.window_tokens += made;
      stream.window_ms += kStepMs;
      if (stream.window_ms < kPaceWindowMs || stream.window_tokens < static_cast<double>(kPaceMinTokens))
        continue;
      estimates[card].observe_pace(static_cast<std::int64_t>(stream.window_tokens + 0.5), stream.window_ms,
                                   batch[card]);
      stream.window_ms = stream.window_tokens = 0;
    }
    std::erase_if(streams, [](const Stream& stream) { return stream.tokens >= stream.of; });
  }

  std::vector<double> real;
  std::vector<SpeedEstimate> estimates;
  std::vector<Stream> streams;
  std::uint64_t random = 1;
};

TEST(SlowCard, NewRequestsLeaveACardThatTurnsFiveTimesSlowerWithinTenSeconds) {
  for (const double speed : {5.0, 12.0, 25.0, 60.0, 110.0}) {
    SCOPED_TRACE(speed);
    Cards cards({speed, speed, speed});
    // One request each two seconds of a card's work: about half of what three cards do.
    const double tokens = speed * 8;
    double next_ms = 0;
    int before = 0;
    int after = 0;
    int late = 0;
    for (double now_ms = 0; now_ms < 90'000; now_ms += kStepMs) {
      if (now_ms == 30'000) cards.real[0] /= 5;
      cards.step();
      if (now_ms < next_ms) continue;
      next_ms += 4'000;
      const bool to_it = cards.send(tokens) == 0;
      if (now_ms < 30'000) before += to_it ? 1 : 0;
      if (now_ms >= 40'000) {
        after += 1;
        late += to_it ? 1 : 0;
      }
    }
    EXPECT_GE(before, 2) << "it had its share while it was as fast as the others";
    EXPECT_GE(after, 12);
    EXPECT_EQ(late, 0) << "requests that still went to it more than 10 s later";
  }
}

TEST(SlowCard, EvenASingleStreamTellsItWithinTenSeconds) {
  for (const double speed : {5.0, 25.0, 110.0}) {
    Cards cards({speed});
    cards.streams.push_back({.card = 0, .of = 1e9});
    for (double now_ms = 0; now_ms < 11'000; now_ms += kStepMs)
      cards.step();  // the change comes in the middle of a window
    cards.real[0] /= 5;
    for (double now_ms = 0; now_ms < 10'000; now_ms += kStepMs) cards.step();
    EXPECT_LT(cards.estimates[0].decode_per_s(), speed * 0.45) << speed;
  }
}

TEST(SlowCard, ACardThatIsFastAgainGetsRequestsAgain) {
  Cards cards({25, 25});
  cards.real[0] = 5;
  cards.streams.push_back({.card = 0, .of = 1e9});
  for (double now_ms = 0; now_ms < 20'000; now_ms += kStepMs) cards.step();
  ASSERT_LT(cards.estimates[0].decode_per_s(), 8);
  cards.real[0] = 25;
  for (double now_ms = 0; now_ms < 20'000; now_ms += kStepMs) cards.step();
  EXPECT_GT(cards.estimates[0].decode_per_s(), 20);
}

TEST(SlowCard, ShortWindowsAndEmptyOnesTeachNothing) {
  SpeedEstimate speed(1000, 50);
  speed.observe_pace(100, kPaceWindowMs - 1, 1);
  speed.observe_pace(kPaceMinTokens - 1, kPaceWindowMs, 1);
  speed.observe_pace(-3, kPaceWindowMs, 1);
  EXPECT_DOUBLE_EQ(speed.decode_per_s(), 50);
}

}  // namespace
}  // namespace aiv
