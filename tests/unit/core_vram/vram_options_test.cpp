#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "../support/models.hpp"
#include "../support/reference_models.hpp"
#include "core/vram.hpp"

namespace aiv {
namespace {

using ::testing::HasSubstr;

ModelFacts facts_of(const test::GgufBuilder& builder) {
  test::SparseSource source(builder);
  Result<ModelFacts> model = read_model(source);
  EXPECT_TRUE(model) << model.error().message();
  return model ? std::move(*model) : ModelFacts{};
}

const ModelFacts& llama() {
  static const ModelFacts model = facts_of(test::llama_3_1_8b());
  return model;
}

Error refusal(const EstimateOptions& options) {
  const Result<Estimate> e = estimate(llama(), options);
  EXPECT_FALSE(e);
  return e ? Error{} : e.error();
}

TEST(VramOptions, a_quantised_v_cache_without_flash_attention_is_refused_as_the_engine_does) {
  const Error error = refusal({.flash_attn = false, .cache_type_v = "q8_0"});
  EXPECT_EQ(error.code, ErrorCode::kRefused);
  EXPECT_THAT(error.message(), HasSubstr("needs flash attention"));
  EXPECT_TRUE(estimate(llama(), {.flash_attn = false, .cache_type_k = "q8_0"})) << "K alone may be quantised";
}

TEST(VramOptions, latent_attention_wants_one_type_for_both) {
  const ModelFacts model = facts_of(test::deepseek_v2_lite());
  EXPECT_EQ(estimate(model, {.cache_type_k = "q8_0"}).error().code, ErrorCode::kRefused);
  EXPECT_TRUE(estimate(model, {.cache_type_k = "q8_0", .cache_type_v = "q8_0"}));
}

TEST(VramOptions, heads_that_do_not_divide_into_blocks_are_refused_even_where_rows_do) {
  const ModelFacts narrow = facts_of(test::dense_model({.heads = 4, .kv_heads = 2, .head_dim = 16}));
  EXPECT_EQ(estimate(narrow, {.cache_type_k = "q8_0"}).error().code, ErrorCode::kRefused);
  EXPECT_TRUE(estimate(narrow, {.flash_attn = false, .cache_type_k = "q8_0"})) << "rows of 32 do";
}

TEST(VramOptions, rows_that_do_not_divide_into_blocks_are_refused) {
  const ModelFacts odd = facts_of(test::dense_model({.heads = 4, .kv_heads = 1, .head_dim = 16}));
  const Result<Estimate> e = estimate(odd, {.cache_type_k = "q8_0"});
  ASSERT_FALSE(e);
  EXPECT_EQ(e.error().code, ErrorCode::kRefused);
  EXPECT_THAT(e.error().reason, HasSubstr("16 elements"));
}

TEST(VramOptions, what_is_out_of_range_is_named) {
  const auto expect_named = [](const EstimateOptions& options, const char* name) {
    const Error error = refusal(options);
    EXPECT_EQ(error.code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(error.where, name);
  };
  expect_named({.ctx = 0}, "ctx");
  expect_named({.ctx = -1}, "ctx");
  expect_named({.ctx = std::int64_t{1} << 40}, "ctx");
  expect_named({.parallel = 0}, "parallel");
  expect_named({.parallel = 257}, "parallel");
  expect_named({.ubatch = 0}, "ubatch");
  expect_named({.cache_type_k = "q3_K"}, "cache-type-k");
  expect_named({.cache_type_v = ""}, "cache-type-v");
  expect_named({.devices = 0}, "devices");
  expect_named({.devices = 17}, "devices");
  expect_named({.devices = 2, .split = {1}}, "split");
  expect_named({.devices = 2, .split = {0, 0}}, "split");
  expect_named({.devices = 2, .split = {-1, 2}}, "split");
  expect_named({.outputs_max = -1}, "outputs-max");
}

TEST(VramOptions, a_split_by_layer_counts_puts_exactly_those_layers_there) {
  const Result<Estimate> e = estimate(llama(), {.ctx = 8192, .devices = 3, .split = {10, 20, 3}});
  ASSERT_TRUE(e);
  EXPECT_EQ(e->devices[0].layers, 10);
  EXPECT_EQ(e->devices[1].layers, 20);
  EXPECT_EQ(e->devices[2].layers, 3) << "two layers and the output";
  const Bytes layer = e->devices[0].kv / 10;
  EXPECT_EQ(e->devices[1].kv, 20 * layer);
  EXPECT_EQ(e->devices[2].kv, 2 * layer);
}

TEST(VramOptions, a_device_without_a_share_gets_nothing_but_its_graph) {
  const Result<Estimate> e = estimate(llama(), {.devices = 2, .split = {0, 1}});
  ASSERT_TRUE(e);
  EXPECT_EQ(e->devices[0].weights, 0);
  EXPECT_EQ(e->devices[0].layers, 0);
  EXPECT_EQ(e->devices[1].layers, 33);
}

TEST(VramOptions, the_embedding_on_the_device_costs_its_bytes_once_and_ends_the_pipeline_copies) {
  const EstimateOptions host{.ctx = 131072, .kv_unified = true, .devices = 2};
  EstimateOptions device = host;
  device.token_embd_on_device = true;
  const Estimate a = *estimate(llama(), host);
  const Estimate b = *estimate(llama(), device);
  EXPECT_EQ(b.devices[0].weights + b.devices[1].weights - a.devices[0].weights - a.devices[1].weights,
            295501824);
  EXPECT_EQ(b.host_weights, 0);
  // vram.md's figures for this very case: 652 + 684 MiB without, 236 + 228 with.
  EXPECT_NEAR(static_cast<double>(a.devices[0].compute) / (1 << 20), 652, 16);
  EXPECT_NEAR(static_cast<double>(a.devices[1].compute) / (1 << 20), 684, 16);
  EXPECT_NEAR(static_cast<double>(b.devices[0].compute) / (1 << 20), 236, 16);
  EXPECT_TRUE(prefer_token_embd_on_device(llama(), 2));
  EXPECT_FALSE(prefer_token_embd_on_device(llama(), 1));
}

TEST(VramOptions, backends_align_and_pad_by_their_own_rules) {
  // A row of 96 q8_0 elements is 102 bytes; CUDA adds 416 more elements (442 bytes) once per tensor.
  test::GgufBuilder b = test::dense_model();
  const ModelFacts plain = facts_of(b);
  b.tensor("extra.weight", {96, 3}, "q8_0");
  const ModelFacts with = facts_of(b);
  const auto added = [&](EstimateBackend backend, std::int64_t alignment) {
    const EstimateOptions options{.ctx = 256, .backend = backend, .alignment = alignment};
    return estimate(with, options)->devices[0].weights - estimate(plain, options)->devices[0].weights;
  };
  EXPECT_EQ(added(EstimateBackend::kCuda, 0), 768);
  EXPECT_EQ(added(EstimateBackend::kHip, 0), 768);
  EXPECT_EQ(added(EstimateBackend::kVulkan, 16), 320) << "306, no row padding";
  EXPECT_EQ(added(EstimateBackend::kVulkan, 256), 512);
}

TEST(VramOptions, logits_count_only_for_the_outputs_that_the_server_asks_for) {
  const Estimate few = *estimate(llama(), {.ctx = 8192, .kv_unified = true});
  const Estimate all = *estimate(llama(), {.ctx = 8192, .kv_unified = true, .outputs_max = 512});
  EXPECT_NEAR(static_cast<double>(few.devices[0].compute) / (1 << 20), 116.0, 0.5);
  EXPECT_NEAR(static_cast<double>(all.devices[0].compute) / (1 << 20), 258.5, 0.5);
}

TEST(VramOptions, the_largest_operand_is_what_a_vulkan_device_must_be_able_to_bind) {
  const Estimate flash = *estimate(llama(), {.ctx = 8192});
  EXPECT_EQ(flash.largest_operand, Bytes{4096} * 128256 / 256 * 210) << "the output matrix";
  const Estimate scores = *estimate(llama(), {.ctx = 32768, .flash_attn = false});
  EXPECT_EQ(scores.largest_operand, Bytes{4} * 512 * 32 * 32768);
}

TEST(VramOptions, scratch_of_older_cards_is_counted_on_request) {
  EstimateOptions options{.ctx = 8192, .cache_type_k = "q8_0", .cache_type_v = "q8_0", .kv_unified = true};
  const Bytes without = estimate(llama(), options)->devices[0].compute;
  options.flash_attention_scratch = true;
  EXPECT_EQ(estimate(llama(), options)->devices[0].compute - without, Bytes{2} * 8192 * 8 * (128 + 128));
}

}  // namespace
}  // namespace aiv
