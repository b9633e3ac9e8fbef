#include "core/admission.hpp"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

namespace aiv {
namespace {

QueuedRequest request(std::uint64_t ticket, std::string key, std::int64_t cost = 100, std::int64_t deadline = 30'000) {
  return {.ticket = ticket, .key_id = std::move(key), .cost_tokens = cost, .deadline_ms = deadline};
}

std::uint64_t next(AdmissionQueue& queue) {
  const auto ticket = queue.peek();
  EXPECT_TRUE(ticket.has_value());
  queue.take(*ticket);
  return *ticket;
}

TEST(Admission, OneKeyIsServedFirstInFirstOut) {
  AdmissionQueue queue;
  for (std::uint64_t t = 1; t <= 5; ++t) ASSERT_TRUE(queue.push(request(t, "a", 900), 16));
  for (std::uint64_t t = 1; t <= 5; ++t) EXPECT_EQ(next(queue), t);
  EXPECT_TRUE(queue.empty());
  EXPECT_FALSE(queue.peek().has_value());
}

TEST(Admission, AStudentWithTwoHundredRequestsDoesNotDelayAnotherByThem) {
  AdmissionQueue queue;
  for (std::uint64_t t = 1; t <= 200; ++t) ASSERT_TRUE(queue.push(request(t, "greedy", 400), 1000));
  ASSERT_TRUE(queue.push(request(999, "modest", 400), 1000));
  int before = 0;
  while (next(queue) != 999) ++before;
  EXPECT_LE(before, 2);
}

TEST(Admission, KeysShareByTokensNotByRequests) {
  AdmissionQueue queue;
  std::uint64_t ticket = 1;
  std::map<std::uint64_t, std::string> owner;
  for (int i = 0; i < 400; ++i) {
    owner[ticket] = "long";
    ASSERT_TRUE(queue.push(request(ticket++, "long", 2000), 10000));
  }
  for (int i = 0; i < 4000; ++i) {
    owner[ticket] = "short";
    ASSERT_TRUE(queue.push(request(ticket++, "short", 200), 10000));
  }
  std::map<std::string, std::int64_t> tokens;
  for (int i = 0; i < 1100; ++i) {
    const std::string& key = owner[next(queue)];
    tokens[key] += key == "long" ? 2000 : 200;
  }
  EXPECT_NEAR(static_cast<double>(tokens["long"]) / static_cast<double>(tokens["short"]), 1.0, 0.05);
}

TEST(Admission, TheQueueIsBoundedAndARefusalChangesNothing) {
  AdmissionQueue queue;
  for (std::uint64_t t = 1; t <= 16; ++t) ASSERT_TRUE(queue.push(request(t, "a"), queue_places(1)));
  EXPECT_FALSE(queue.push(request(17, "b"), queue_places(1)));
  EXPECT_EQ(queue.size(), 16);
  EXPECT_TRUE(queue.consistent());
  EXPECT_EQ(queue_places(1), 16);
  EXPECT_EQ(queue_places(10), 40);
}

TEST(Admission, AResumedStreamGoesBeforeEverybodyAndAlwaysHasAPlace) {
  AdmissionQueue queue;
  for (std::uint64_t t = 1; t <= 16; ++t) ASSERT_TRUE(queue.push(request(t, "a"), 16));
  auto resume = request(99, "b");
  resume.front = true;
  EXPECT_TRUE(queue.push(resume, 16));
  EXPECT_EQ(next(queue), 99u);
  EXPECT_EQ(next(queue), 1u);
}

TEST(Admission, AClientThatLeavesGivesItsPlaceUpAtOnce) {
  AdmissionQueue queue;
  queue.push(request(1, "a"), 16);
  queue.push(request(2, "a"), 16);
  EXPECT_TRUE(queue.remove(1));
  EXPECT_FALSE(queue.remove(1));
  EXPECT_EQ(next(queue), 2u);
}

TEST(Admission, ExpiredRequestsAreReportedOnceAndInOrder) {
  AdmissionQueue queue;
  queue.push(request(3, "a", 1, 100), 16);
  queue.push(request(1, "b", 1, 50), 16);
  queue.push(request(2, "b", 1, 500), 16);
  EXPECT_EQ(queue.expire(100), (std::vector<std::uint64_t>{1, 3}));
  EXPECT_TRUE(queue.expire(100).empty());
  EXPECT_EQ(next(queue), 2u);
}

TEST(Admission, PeekingTwiceNamesTheSameRequest) {
  AdmissionQueue queue;
  queue.push(request(1, "a", 5000), 16);
  queue.push(request(2, "b", 10), 16);
  const auto first = queue.peek();
  EXPECT_EQ(queue.peek(), first);
}

TEST(Admission, AnySequenceOfStepsKeepsTheCountsAndServesEveryRequestOnce) {
  std::mt19937_64 random(42);
  const auto draw = [&](std::uint64_t n) { return random() % n; };
  for (int round = 0; round < 300; ++round) {
    AdmissionQueue queue;
    std::set<std::uint64_t> inside;
    std::uint64_t ticket = 1;
    std::int64_t now = 0;
    for (int step = 0; step < 200; ++step) {
      switch (draw(5)) {
        case 0:
        case 1: {
          auto r = request(ticket, std::string(1, static_cast<char>('a' + draw(4))),
                           static_cast<std::int64_t>(draw(3000)), now + 1 + static_cast<std::int64_t>(draw(400)));
          r.front = draw(10) == 0;
          if (queue.push(r, 16)) inside.insert(ticket);
          ++ticket;
          break;
        }
        case 2:
          if (const auto t = queue.peek()) {
            queue.take(*t);
            ASSERT_EQ(inside.erase(*t), 1u);
          }
          break;
        case 3: {
          const std::uint64_t t = 1 + draw(ticket);
          ASSERT_EQ(queue.remove(t), inside.erase(t) == 1);
          break;
        }
        case 4:
          now += static_cast<std::int64_t>(draw(60));
          for (const auto t : queue.expire(now)) ASSERT_EQ(inside.erase(t), 1u);
          break;
      }
      ASSERT_TRUE(queue.consistent());
      ASSERT_EQ(static_cast<std::size_t>(queue.size()), inside.size());
    }
    while (const auto t = queue.peek()) {
      queue.take(*t);
      ASSERT_EQ(inside.erase(*t), 1u);
    }
    ASSERT_TRUE(inside.empty());
  }
}

TEST(RetryAfter, IsAWholeNumberOfSecondsFromOneToSixty) {
  EXPECT_EQ(retry_after_s(0, 0), 1);
  EXPECT_EQ(retry_after_s(4000, 0), 4);
  EXPECT_EQ(retry_after_s(4001, 0), 5);
  EXPECT_GE(retry_after_s(20000, 1023), 24);
  EXPECT_EQ(retry_after_s(1e12, 5), 60);
  EXPECT_EQ(retry_after_s(-3, 5), 1);
}

TEST(AdmissionQueue, AFullQueueMakesRoomForAKeyThatHasFewOfItsPlaces) {
  AdmissionQueue queue;
  for (std::uint64_t ticket = 1; ticket <= 4; ++ticket) {
    ASSERT_TRUE(queue.push({.ticket = ticket, .key_id = "greedy", .cost_tokens = 1, .deadline_ms = 1000}, 4));
  }
  EXPECT_EQ(queue.displaced_by("greedy"), std::nullopt) << "nobody makes room for himself";
  ASSERT_EQ(queue.displaced_by("modest"), 4U) << "the newest goes";
  ASSERT_TRUE(queue.remove(4));
  ASSERT_TRUE(queue.push({.ticket = 5, .key_id = "modest", .cost_tokens = 1, .deadline_ms = 1000}, 4));
  ASSERT_EQ(queue.displaced_by("modest"), 3U);
  ASSERT_TRUE(queue.remove(3));
  ASSERT_TRUE(queue.push({.ticket = 6, .key_id = "modest", .cost_tokens = 1, .deadline_ms = 1000}, 4));
  EXPECT_EQ(queue.displaced_by("modest"), std::nullopt) << "two and two: nobody has more than his share";
  EXPECT_EQ(queue.displaced_by("third"), 2U);
  EXPECT_TRUE(queue.consistent());
}

}  // namespace
}  // namespace aiv
