#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "demo-model/trainer/model.hpp"
#include "demo-model/trainer/random.hpp"
#include "demo-model/trainer/training.hpp"

namespace aiv::demo {
namespace {

constexpr Shape kTiny = {.vocab = 11, .width = 8, .layers = 2, .heads = 2, .feed_forward = 12};

Document document(std::vector<std::uint16_t> tokens, std::vector<std::uint8_t> answer) {
  return {std::move(tokens), std::move(answer)};
}

// Larger than those a training begins with, so that every path through the model carries weight.
std::vector<float> lively_parameters(const Layout& layout) {
  std::vector<float> parameters(static_cast<std::size_t>(layout.total));
  Random random(7);
  for (const Part& part : layout.parts) {
    for (Index i = 0; i < part.values(); ++i) {
      parameters[static_cast<std::size_t>(part.offset + i)] =
          (part.is_norm() ? 1.0F : 0.0F) + 0.4F * random.normal();
    }
  }
  return parameters;
}

TEST(DemoTrainer, derivatives_agree_with_differences_in_every_part_of_the_model) {
  const Layout layout(kTiny);
  const Document a = document({1, 2, 3, 4, 5, 6}, {0, 0, 0, 1, 1, 1});
  const Document b = document({7, 8, 9, 10, 2}, {0, 1, 0, 1, 1});
  const std::vector<const Document*> both = {&a, &b};
  std::vector<float> parameters = lively_parameters(layout);
  Pass pass(layout);
  pass.loss(parameters, both);
  EXPECT_EQ(pass.answer_tokens(), 6);
  std::vector<float> gradients(parameters.size());
  pass.add_gradients(parameters, 1.0F, gradients);
  for (const Part& part : layout.parts) {
    double difference = 0;
    double size = 0;
    for (Index i = 0; i < part.values(); ++i) {
      const auto at = static_cast<std::size_t>(part.offset + i);
      constexpr float kStep = 4e-3F;
      const float there = parameters[at];
      parameters[at] = there + kStep;
      const double above = pass.loss(parameters, both);
      parameters[at] = there - kStep;
      const double below = pass.loss(parameters, both);
      parameters[at] = there;
      const double measured = (above - below) / (2.0 * static_cast<double>(kStep));
      difference += std::pow(measured - static_cast<double>(gradients[at]), 2);
      size += std::pow(measured, 2);
    }
    EXPECT_GT(size, 1e-6) << part.name << " has no influence";
    EXPECT_LT(std::sqrt(difference / size), 5e-3) << part.name;
  }
}

TEST(DemoTrainer, documents_of_one_batch_do_not_see_each_other) {
  const Layout layout(kTiny);
  const std::vector<float> parameters = lively_parameters(layout);
  const Document a = document({1, 2, 3, 4}, {0, 1, 1, 1});
  const Document b = document({5, 6, 7}, {0, 1, 1});
  Pass pass(layout);
  const double alone = pass.loss(parameters, {&a}) + pass.loss(parameters, {&b});
  EXPECT_NEAR(pass.loss(parameters, {&b, &a}), alone, 1e-4);
}

TEST(DemoTrainer, a_token_does_not_see_those_that_follow_it) {
  const Layout layout(kTiny);
  const std::vector<float> parameters = lively_parameters(layout);
  const Document shorter = document({1, 2, 3, 4}, {0, 1, 1, 0});
  const Document longer = document({1, 2, 3, 9, 9, 9}, {0, 1, 1, 0, 0, 0});
  Pass pass(layout);
  EXPECT_NEAR(pass.loss(parameters, {&shorter}), pass.loss(parameters, {&longer}), 1e-5);
}

TEST(DemoTrainer, learns_a_small_rule_and_ends_alike_for_the_same_seed) {
  const Layout layout(kTiny);
  std::vector<Document> documents;
  for (std::uint16_t i = 0; i < 8; ++i) {  // say again what was said
    documents.push_back(document({10, i, 9, i, 10}, {0, 0, 0, 1, 1}));
  }
  const Recipe recipe = {
      .seed = 3, .steps = 300, .batch_tokens = 40, .threads = 2, .warmup_steps = 20, .rate = 1e-2F};
  const auto learn = [&] {
    std::vector<float> parameters = initial_parameters(layout, recipe.seed);
    train(layout, recipe, documents, documents, 1000, parameters, [](const Progress&) {});
    return parameters;
  };
  const std::vector<float> learned = learn();
  EXPECT_GT(mean_loss(layout, initial_parameters(layout, recipe.seed), documents), 2.0);
  EXPECT_LT(mean_loss(layout, learned, documents), 0.05);
  EXPECT_EQ(learned, learn());
}

TEST(DemoTrainer, the_rate_rises_then_falls_to_a_twentieth) {
  const Recipe recipe = {.steps = 1000, .warmup_steps = 100, .rate = 1.0F};
  EXPECT_FLOAT_EQ(rate_at(recipe, 0), 0.01F);
  EXPECT_FLOAT_EQ(rate_at(recipe, 99), 1.0F);
  EXPECT_NEAR(rate_at(recipe, 550), 0.525F, 0.001F);
  EXPECT_NEAR(rate_at(recipe, 1000), 0.05F, 1e-6F);
}

TEST(DemoTrainer, refuses_documents_that_are_cut_off_or_know_other_tokens) {
  std::string pattern = (std::filesystem::temp_directory_path() / "aiv-demo-test-XXXXXX").string();
  const std::string dir = ::mkdtemp(pattern.data());
  const auto reason = [&](std::string_view bytes) {
    std::ofstream(dir + "/d", std::ios::binary)
        .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    const auto read = read_documents(dir + "/d", 11);
    return read ? std::to_string(read->size()) + " read" : read.error().reason;
  };
  using namespace std::string_view_literals;
  EXPECT_EQ(reason("\x02\0\x01\0\x02\x80"sv), "1 read");
  EXPECT_EQ(reason("\x03\0\x01\0\x02\x80"sv), "is cut off");
  EXPECT_EQ(reason("\x02"sv), "is cut off");
  EXPECT_EQ(reason(""sv), "holds no document");
  EXPECT_EQ(reason("\x02\0\x01\0\x0b\0"sv), "has a token outside the vocabulary");
  EXPECT_FALSE(read_documents(dir + "/none", 11).has_value());
  std::filesystem::remove_all(dir);
}

}  // namespace
}  // namespace aiv::demo
