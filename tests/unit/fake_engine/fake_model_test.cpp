#include "core/fake_model.hpp"

#include <gtest/gtest.h>

#include "base/units.hpp"

namespace aiv {
namespace {

TEST(FakeModel, knows_its_two_models_without_settings) {
  const auto small = parse_fake_model("fake:fake-small");
  ASSERT_TRUE(small.has_value());
  EXPECT_EQ(small->kind, ModelKind::kChat);
  EXPECT_EQ(small->weights_bytes, 512 * kMiB);
  const auto embed = parse_fake_model("fake-embed");
  ASSERT_TRUE(embed.has_value());
  EXPECT_EQ(embed->kind, ModelKind::kEmbedding);
}

TEST(FakeModel, takes_figures_and_faults_from_the_settings) {
  const auto model = parse_fake_model(
      "fake:big?weights=8GiB&kv_per_cell=128KiB&token_ms=12.5&load_exit=1&oom=kv&kind=rerank");
  ASSERT_TRUE(model.has_value()) << model.error().message();
  EXPECT_EQ(model->weights_bytes, 8 * kGiB);
  EXPECT_EQ(model->kv_bytes_per_cell, 128 * kKiB);
  EXPECT_DOUBLE_EQ(model->token_ms, 12.5);
  EXPECT_EQ(model->load_exit, 1);
  EXPECT_EQ(model->oom, FakeOom::kKv);
  EXPECT_EQ(model->kind, ModelKind::kRerank);
}

TEST(FakeModel, names_the_setting_that_it_does_not_understand) {
  for (const auto& [path, where] :
       {std::pair{"fake:m?colour=red", "colour"}, std::pair{"fake:m?token_ms=nan", "token_ms"},
        std::pair{"fake:m?load_ms=-1", "load_ms"}, std::pair{"fake:m?weights=lots", "weights"},
        std::pair{"fake:m?oom=all", "oom"}, std::pair{"fake:a/b", "name"}, std::pair{"fake:m?kind", "kind"},
        std::pair{"fake:", "name"}}) {
    const auto model = parse_fake_model(path);
    ASSERT_FALSE(model.has_value()) << path;
    EXPECT_EQ(model.error().where, where) << path;
  }
}

TEST(FakeModel, divides_its_bytes_over_the_devices_without_losing_one) {
  const auto model = *parse_fake_model("fake:m?weights=1000003&kv_per_cell=7");
  const auto devices = fake_device_bytes(model, 101, 3);
  ASSERT_EQ(devices.size(), 3U);
  EXPECT_EQ(devices[0].weights + devices[1].weights + devices[2].weights, 1'000'003);
  EXPECT_EQ(devices[0].kv + devices[1].kv + devices[2].kv, 707);
  EXPECT_GE(devices[0].weights, devices[1].weights);
  EXPECT_TRUE(fake_device_bytes(model, 101, 0).empty());
}

TEST(FakeModel, answers_as_fast_as_its_card_where_it_says_what_a_token_reads) {
  const auto model = *parse_fake_model("fake:m?read=6000000000&token_ms=2");
  const FakeModel fast = paced_by_card(model, 1'000'000'000'000);
  EXPECT_DOUBLE_EQ(fast.token_ms, 10);  // 0.6 TB/s of 6 GB a token: 100 tokens/s
  EXPECT_DOUBLE_EQ(fast.prefill_ms, 10 / kPromptSpeedup);
  EXPECT_DOUBLE_EQ(paced_by_card(model, 250'000'000'000).token_ms, 40);
  EXPECT_EQ(paced_by_card(model, 0), model) << "a card of unknown bandwidth";
  const auto own_prefill = *parse_fake_model("fake:m?read=6000000000&prefill_ms=0.5");
  EXPECT_DOUBLE_EQ(paced_by_card(own_prefill, 1'000'000'000'000).prefill_ms, 0.5);
}

TEST(FakeModel, has_the_same_pace_on_every_card_without_that) {
  const auto model = *parse_fake_model("fake:m?token_ms=7");
  EXPECT_EQ(paced_by_card(model, 1'000'000'000'000), model);
}

}  // namespace
}  // namespace aiv
