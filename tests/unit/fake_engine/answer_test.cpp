#include "answer.hpp"

#include <gtest/gtest.h>

#include <set>

namespace aiv::fake {
namespace {

std::string text_of(const Answer& answer, std::int64_t from, std::int64_t to) {
  std::string text;
  for (auto n = from; n < to; ++n) text += piece_of(answer.token_at(n));
  return text;
}

TEST(Tokens, can_be_turned_back_into_any_text) {
  for (const std::string text : {"Once upon a time", " kaba lodi", "a\nb\t c", "Grüße, κόσμε 🎉!",
                                 "\xff\xfe broken \xe2\x82", "", "   ", "kaba kabab kaba.", "🎉🎉"}) {
    EXPECT_EQ(detokenize(tokenize(text)), text);
  }
}

TEST(Tokens, never_cut_a_character) {
  for (const auto token : tokenize("日本語 und 🎉 und é")) {
    const auto piece = piece_of(token);
    EXPECT_NE(static_cast<unsigned char>(piece[0]) & 0xc0, 0x80) << piece;
  }
}

TEST(Answers, depend_on_model_and_prompt_alone) {
  const auto a = *Answer::make("fake-small", "Once upon");
  const auto b = *Answer::make("fake-small", "Once upon");
  EXPECT_EQ(text_of(a, 0, 24), text_of(b, 0, 24));
  EXPECT_EQ(a.total(), 24);
  EXPECT_NE(text_of(a, 0, 24), text_of(*Answer::make("other", "Once upon"), 0, 24));
  EXPECT_NE(text_of(a, 0, 24), text_of(*Answer::make("fake-small", "Once upom"), 0, 24));
}

TEST(Answers, are_continued_at_every_cut_from_text) {
  for (const std::string prompt :
       {"Once upon", "#fake tokens=24", "<|user|>\n#fake tokens=24\nhi<|end|>\n<|assistant|>\n", ""}) {
    const auto whole = *Answer::make("m", prompt);
    for (std::int64_t cut = 0; cut <= 24; ++cut) {
      const auto rest = *Answer::make("m", prompt + text_of(whole, 0, cut));
      EXPECT_EQ(rest.start(), cut) << prompt;
      EXPECT_EQ(rest.total(), 24);
      EXPECT_EQ(text_of(rest, cut, 24), text_of(whole, cut, 24));
    }
  }
}

TEST(Answers, are_continued_from_token_ids_of_prompt_and_answer) {
  const std::string prompt = "<|user|>\nhi there<|end|>\n<|assistant|>\n";
  const auto whole = *Answer::make("m", prompt);
  auto ids = tokenize(prompt);
  for (std::int64_t n = 0; n < 7; ++n) ids.push_back(whole.token_at(n));
  EXPECT_EQ(Answer::make("m", detokenize(ids))->start(), 7);
}

TEST(Answers, take_words_of_the_vocabulary_in_a_prompt_for_a_prompt) {
  const auto earlier = *Answer::make("m", "something else");
  const auto answer = *Answer::make("m", "please repeat" + text_of(earlier, 0, 5));
  EXPECT_EQ(answer.start(), 0);
}

TEST(Answers, say_what_the_control_line_orders_and_continue_it) {
  const std::string prompt = "<|user|>\n#fake say=Grüße aus Athen, 🎉\nx<|end|>\n<|assistant|>\n";
  const auto whole = *Answer::make("m", prompt);
  EXPECT_EQ(text_of(whole, 0, whole.total()), "Grüße aus Athen, 🎉");
  for (std::int64_t cut = 0; cut <= whole.total(); ++cut)
    EXPECT_EQ(Answer::make("m", prompt + text_of(whole, 0, cut))->start(), cut);
}

TEST(Answers, use_the_vocabulary_widely) {
  const auto answer = *Answer::make("m", "#fake tokens=1000");
  std::set<Token> seen;
  for (std::int64_t n = 0; n < answer.total(); ++n) seen.insert(answer.token_at(n));
  EXPECT_GT(seen.size(), 800U);
}

TEST(Control, reads_length_pace_faults_and_tools) {
  const auto c =
      *parse_control("#fake tokens=120 token_ms=0.5 first_ms=10 die_at=3 stall_at=4 eof_at=5 error_at=6 stamp=1");
  EXPECT_EQ(c.stamp, 1);
  EXPECT_EQ(c.tokens, 120);
  EXPECT_DOUBLE_EQ(*c.token_ms, 0.5);
  EXPECT_DOUBLE_EQ(*c.first_ms, 10);
  EXPECT_EQ(c.die_at, 3);
  EXPECT_EQ(c.stall_at, 4);
  EXPECT_EQ(c.eof_at, 5);
  EXPECT_EQ(c.error_at, 6);
  const auto tool = *parse_control(R"(#fake token_ms=1 tool=weather:{"city":"New York"})");
  EXPECT_EQ(*tool.tool_name, "weather");
  EXPECT_EQ(tool.tool_arguments, R"({"city":"New York"})");
}

TEST(Control, names_the_setting_it_does_not_know) {
  for (const auto& [line, where] :
       {std::pair{"#fake speed=3", "speed"}, std::pair{"#fake tokens=-1", "tokens"},
        std::pair{"#fake tokens=1e3", "tokens"}, std::pair{"#fake token_ms=nan", "token_ms"},
        std::pair{"#fake tokens", "tokens"}, std::pair{"#fake tool=x", "tool"}}) {
    const auto control = parse_control(line);
    ASSERT_FALSE(control.has_value()) << line;
    EXPECT_EQ(control.error().where, where) << line;
  }
  EXPECT_EQ(parse_control("no orders here tokens=7")->tokens, 24);
}

TEST(Template, leaves_a_last_message_of_the_assistant_open) {
  const auto prompt = *apply_template(
      Json::parse(R"([{"role":"user","content":"hi"},{"role":"assistant","content":"Once"}])"));
  EXPECT_EQ(prompt.text, "<|user|>\nhi<|end|>\n<|assistant|>\nOnce");
  EXPECT_EQ(prompt.prefill, "Once");
  EXPECT_FALSE(apply_template(Json::parse(R"([{"content":"hi"}])")).has_value());
}

}  // namespace
}  // namespace aiv::fake
