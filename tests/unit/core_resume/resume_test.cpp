#include "core/resume.hpp"

#include <gtest/gtest.h>

#include <set>

namespace aiv {
namespace {

TEST(Resume, PlainTextIsContinuedAndEverythingElseIsNot) {
  EXPECT_EQ(resume_obstacle({}), ResumeObstacle::kNone);
  EXPECT_EQ(resume_obstacle({.text_route = false}), ResumeObstacle::kNoText);
  EXPECT_EQ(resume_obstacle({.tools_offered = true}), ResumeObstacle::kNone);
  EXPECT_EQ(resume_obstacle({.tools_offered = true, .tools_demanded = true}), ResumeObstacle::kToolCall);
  EXPECT_EQ(resume_obstacle({.constrained = true}), ResumeObstacle::kConstrained);
  EXPECT_EQ(resume_obstacle({.logprobs = true}), ResumeObstacle::kLogprobs);
  EXPECT_EQ(resume_obstacle({.media = true}), ResumeObstacle::kMedia);
  EXPECT_EQ(resume_obstacle({.open_prefill = true}), ResumeObstacle::kPrefill);
  EXPECT_EQ(resume_obstacle({.tool_call_begun = true}), ResumeObstacle::kToolCall);
  EXPECT_EQ(resume_obstacle({.reasoning_begun = true}), ResumeObstacle::kReasoning);
  EXPECT_EQ(resume_obstacle({.other_delta = true}), ResumeObstacle::kNoText);
  EXPECT_EQ(resume_obstacle({.delivered_too_long = true}), ResumeObstacle::kTooLong);
}

TEST(Resume, EveryObstacleSaysWhy) {
  for (int i = 1; i <= static_cast<int>(ResumeObstacle::kTooOften); ++i) {
    EXPECT_FALSE(to_string(static_cast<ResumeObstacle>(i)).empty()) << i;
  }
  EXPECT_TRUE(to_string(ResumeObstacle::kNone).empty());
}

TEST(Resume, AnAnswerIsContinuedThreeTimesAndNotAFourth) {
  EXPECT_EQ(resume_obstacle({.resumes = kResumesMax - 1}), ResumeObstacle::kNone);
  EXPECT_EQ(resume_obstacle({.resumes = kResumesMax}), ResumeObstacle::kTooOften);
}

TEST(Resume, TokensStandForATextOnlyIfTheySayItToTheByte) {
  const std::vector<TokenPiece> tokens{{5, "he"}, {6, "llo"}, {7, "\xE2"}, {8, "\x82\xAC"}};
  EXPECT_TRUE(tokens_say(tokens, "hello\xE2\x82\xAC"));
  EXPECT_FALSE(tokens_say(tokens, "hello"));
  EXPECT_FALSE(tokens_say(tokens, "hello\xE2\x82\xAC!"));
  EXPECT_FALSE(tokens_say(tokens, "he llo\xE2\x82\xAC")) << "a tokenizer that adds blanks";
  EXPECT_TRUE(tokens_say({}, ""));
}

TEST(Resume, WhatWasDeliveredIsTakenFromTheBudget) {
  EXPECT_EQ(tokens_left(0, 100), std::nullopt);
  EXPECT_EQ(tokens_left(120, 37), 83);
  EXPECT_EQ(tokens_left(120, 120), 0);
  EXPECT_EQ(tokens_left(120, 121), 0);
}

TEST(Resume, EachContinuationHasASeedOfItsOwnThatIsAlwaysTheSame) {
  std::set<std::int64_t> seeds;
  for (int resume = 0; resume < 3; ++resume) {
    for (std::int64_t seed = 0; seed < 100; ++seed) {
      const std::int64_t made = resume_seed(seed, resume);
      EXPECT_GE(made, 0);
      EXPECT_LT(made, 0xffffffffLL);
      EXPECT_EQ(made, resume_seed(seed, resume));
      seeds.insert(made);
    }
  }
  EXPECT_EQ(seeds.size(), 300U);
}

TEST(Resume, UsageIsThatOfOneAnswer) {
  // 20 tokens of prompt, 37 delivered, 83 more.
  EXPECT_EQ(whole_usage(57, 83, 37), (AnswerUsage{20, 120}));
  EXPECT_EQ(whole_usage(0, 0, 37), (AnswerUsage{0, 37}));
}

// Feeds `text` piece by piece; the text that came out, with '|' where it was stopped.
std::string through(StopSeam seam, const std::vector<std::string>& pieces) {
  std::string out;
  for (const std::string& piece : pieces) {
    auto step = seam.feed(piece);
    out += step.text;
    if (step.stopped) return out + "|";
  }
  return out + seam.rest();
}

TEST(StopSeam, AStopStringThatBeginsBeforeTheCutEndsTheAnswerBehindIt) {
  const StopSeam seam({"END"}, "some text E");
  EXPECT_EQ(through(seam, {"ND and more"}), "|");
  EXPECT_EQ(through(seam, {"N", "D"}), "|");
}

TEST(StopSeam, WhatOnlyLookedLikeOneIsNotLost) {
  const StopSeam seam({"END"}, "some text E");
  EXPECT_EQ(through(seam, {"N", "ergy", " END"}), "Nergy END") << "the second is the engine's to find";
  EXPECT_EQ(through(seam, {"N"}), "N") << "the answer ended while it was held back";
  EXPECT_EQ(through(seam, {"vening"}), "vening");
}

TEST(StopSeam, WithoutABeginningInTheDeliveredTextNothingIsHeldBack) {
  EXPECT_EQ(through(StopSeam({"END", "STOP"}, "nothing"), {"END"}), "END");
  EXPECT_EQ(through(StopSeam({}, "E"), {"ND"}), "ND");
  EXPECT_EQ(through(StopSeam({"END"}, ""), {"END"}), "END");
  EXPECT_EQ(through(StopSeam({""}, "x"), {"y"}), "y");
}

TEST(StopSeam, AStopStringThatOverlapsItselfIsFoundAtEachOfItsBeginnings) {
  // "aa" of "aab" and the last "a" both begin it.
  const StopSeam seam({"aab"}, "xaa");
  EXPECT_EQ(through(seam, {"b"}), "|");
  EXPECT_EQ(through(seam, {"a", "b"}), "|");
  EXPECT_EQ(through(seam, {"a", "c"}), "ac");
}

TEST(StopSeam, OfSeveralTheOneThatIsCompleteStops) {
  const StopSeam seam({"\n\nUser:", "\n\n\n"}, "done\n\n");
  EXPECT_EQ(through(seam, {"Us", "age"}), "Usage");
  EXPECT_EQ(through(seam, {"Us", "er:"}), "|");
  EXPECT_EQ(through(seam, {"\n"}), "|");
}

}  // namespace
}  // namespace aiv
