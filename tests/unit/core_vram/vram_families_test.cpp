// One model of each family against the engine's own figures, written into the test (llama.cpp v0.5.0's dry
// run, CUDA's rules), and what each family keeps between tokens, counted by hand.
#include <gtest/gtest.h>

#include "../support/models.hpp"
#include "../support/reference_models.hpp"
#include "core/vram.hpp"

namespace aiv {
namespace {

using test::GgufBuilder;

ModelFacts facts_of(const GgufBuilder& builder) {
  test::SparseSource source(builder);
  Result<ModelFacts> model = read_model(source);
  EXPECT_TRUE(model) << model.error().message();
  return model ? std::move(*model) : ModelFacts{};
}

Estimate estimate_of(const ModelFacts& model, const EstimateOptions& options) {
  const Result<Estimate> e = estimate(model, options);
  EXPECT_TRUE(e) << e.error().message();
  return e ? *e : Estimate{};
}

struct Figures {
  Bytes weights, cache, compute;
};

void expect_device(const DeviceEstimate& have, const Figures& want) {
  EXPECT_EQ(have.weights, want.weights);
  EXPECT_EQ(have.kv + have.recurrent, want.cache);
  EXPECT_NEAR(static_cast<double>(have.compute), static_cast<double>(want.compute),
              std::max(16.0 * (1 << 20), 0.05 * static_cast<double>(want.compute)));
}

TEST(VramFamilies, grouped_query_attention_llama_3_1_8b) {
  const ModelFacts model = facts_of(test::llama_3_1_8b());
  EXPECT_FALSE(model.tied_output);
  EXPECT_NEAR(static_cast<double>(model.parameters), 8.03e9, 0.01e9);
  const Estimate one = estimate_of(model, {.ctx = 8192, .kv_unified = true});
  EXPECT_EQ(one.method, EstimateMethod::kFormula);
  EXPECT_EQ(one.host_weights, 295501824);
  expect_device(one.devices.at(0), {4617396224, 1073741824, 121645184});
  EXPECT_NEAR(static_cast<double>(one.host_compute), 25178144, 100'000);
  expect_device(
      estimate_of(model, {.ctx = 32768, .cache_type_k = "q8_0", .cache_type_v = "q8_0", .kv_unified = true})
          .devices.at(0),
      {4617396224, 2281701376, 138504320});
  expect_device(estimate_of(model, {.ctx = 8192, .flash_attn = false, .kv_unified = true}).devices.at(0),
                {4617396224, 1073741824, 591403136});
  // Three slots of pad256(10000 / 3) cells: more than was asked for.
  const Estimate slots = estimate_of(model, {.ctx = 10000, .parallel = 3});
  EXPECT_EQ(slots.ctx, 3 * 3584);
  EXPECT_EQ(slots.ctx_per_slot, 3584);
  expect_device(slots.devices.at(0), {4617396224, 1409286144, 117155328});
  const Estimate two = estimate_of(model, {.ctx = 8192, .kv_unified = true, .devices = 2});
  expect_device(two.devices.at(0), {2215936000, 570425344, 180396032});
  expect_device(two.devices.at(1), {2401460224, 503316480, 213950976});
}

TEST(VramFamilies, sliding_windows_and_a_tied_output_gemma_3_4b) {
  const ModelFacts model = facts_of(test::gemma_3_4b());
  EXPECT_TRUE(model.tied_output);
  const Estimate one = estimate_of(model, {.ctx = 32768, .parallel = 4, .kv_unified = true});
  EXPECT_EQ(one.host_weights, 550636800) << "the copy on the host stays there";
  expect_device(one.devices.at(0), {2483352832, 1218445312, 115886208});
  expect_device(estimate_of(model, {.ctx = 32768, .parallel = 4}).devices.at(0),
                {2483352832, 1400897536, 87574656});
  // The override shares one copy: nothing on the host, not a byte more on the device.
  const Estimate moved = estimate_of(model, {.ctx = 32768, .parallel = 4, .token_embd_on_device = true});
  EXPECT_EQ(moved.host_weights, 0);
  EXPECT_EQ(moved.devices.at(0).weights, 2483352832);
}

TEST(VramFamilies, mixture_of_experts_qwen3_30b_a3b) {
  const ModelFacts model = facts_of(test::qwen3_30b_a3b());
  expect_device(estimate_of(model, {.ctx = 65536, .parallel = 16, .ubatch = 1024}).devices.at(0),
                {18375698432, 6442450944, 184569984});
  const Estimate two = estimate_of(model, {.ctx = 8192, .kv_unified = true, .devices = 2});
  expect_device(two.devices.at(0), {9411640576, 419430400, 138452992});
  expect_device(two.devices.at(1), {8964057856, 385875968, 155230720});
}

TEST(VramFamilies, latent_attention_has_no_v_cache_deepseek_v2_lite) {
  const ModelFacts model = facts_of(test::deepseek_v2_lite());
  expect_device(estimate_of(model, {.ctx = 8192, .kv_unified = true}).devices.at(0),
                {11246338944, 254803968, 88217728});
  // Rows of 576 in q8_0 are padded to a multiple of 512, once per layer.
  expect_device(
      estimate_of(model, {.ctx = 32768, .cache_type_k = "q8_0", .cache_type_v = "q8_0", .kv_unified = true})
          .devices.at(0),
      {11246338944, 541472256, 113383552});
}

TEST(VramFamilies, states_do_not_grow_with_the_context_mamba2) {
  const ModelFacts model = facts_of(test::mamba2_2_7b());
  expect_device(estimate_of(model, {.ctx = 4096}).devices.at(0), {2878074368, 171900928, 77887744});
  expect_device(estimate_of(model, {.ctx = 131072, .parallel = 8}).devices.at(0),
                {2878074368, 1375207424, 97140992});
  const Estimate two = estimate_of(model, {.ctx = 8192, .devices = 2});
  expect_device(two.devices.at(0), {1413472896, 88636416, 135559680});
  expect_device(two.devices.at(1), {1464601472, 83264512, 201140224});
}

TEST(VramFamilies, an_encoder_keeps_nothing_bge_base) {
  const ModelFacts model = facts_of(test::bge_base());
  EXPECT_EQ(model.kind, ModelKind::kEmbedding);
  const Estimate e = estimate_of(model, {.ctx = 4096, .ubatch = 2048, .embeddings = true});
  EXPECT_EQ(e.host_weights, 48460800);
  expect_device(e.devices.at(0), {170354688, 0, 46156800});
}

// ---- compute of shapes that the reference table does not have: the engine's dry run on them, without
// reordering ----

constexpr std::uint32_t kVocab = 16384;

GgufBuilder shape_keys(const char* architecture, std::uint32_t embd, std::uint32_t ff, std::uint32_t heads,
                       std::uint32_t kv_heads) {
  GgufBuilder b(architecture);
  b.u32(".block_count", 1)
      .u32(".embedding_length", embd)
      .u32(".feed_forward_length", ff)
      .u32(".attention.head_count", heads);
  b.u32(".attention.head_count_kv", kv_heads)
      .tensor("token_embd.weight", {embd, kVocab}, "q8_0")
      .tensor("output.weight", {embd, kVocab}, "q8_0");
  return b;
}

double compute_mib(const GgufBuilder& b, const EstimateOptions& options) {
  return static_cast<double>(estimate_of(facts_of(b), options).devices[0].compute) / (1 << 20);
}

TEST(VramFamilies, a_feed_forward_part_without_a_gate_holds_one_width_starcoder2) {
  GgufBuilder b = shape_keys("starcoder2", 3072, 12288, 24, 2);
  b.tensor("blk.0.attn_q.weight", {3072, 3072}, "q8_0")
      .tensor("blk.0.ffn_norm.weight", {3072})
      .tensor("blk.0.ffn_up.weight", {3072, 12288}, "q8_0");
  EXPECT_NEAR(compute_mib(b, {.ctx = 8192}), 50.0, 0.1);
  EXPECT_NEAR(compute_mib(b, {.ctx = 1024, .ubatch = 256, .flash_attn = false}), 37.5, 0.1);
}

TEST(VramFamilies, halves_side_by_side_hold_more_phi2_and_cohere2) {
  GgufBuilder phi = shape_keys("phi2", 2048, 8192, 32, 32);
  phi.tensor("blk.0.attn_qkv.weight", {2048, 6144}, "q8_0")
      .tensor("blk.0.ffn_up.weight", {2048, 8192}, "q8_0");
  EXPECT_NEAR(compute_mib(phi, {.ctx = 8192}), 40.0, 0.1);
  EXPECT_NEAR(compute_mib(phi, {.ctx = 1024, .ubatch = 256, .flash_attn = false}), 49.0, 0.1);
  GgufBuilder cohere = shape_keys("cohere2", 4096, 14336, 32, 8);
  cohere.u32(".attention.sliding_window", 4096).tensor("blk.0.attn_q.weight", {4096, 4096}, "q8_0");
  cohere.tensor("blk.0.ffn_gate.weight", {4096, 14336}, "q8_0")
      .tensor("blk.0.ffn_up.weight", {4096, 14336}, "q8_0");
  EXPECT_NEAR(compute_mib(cohere, {.ctx = 8192}), 128.5, 0.1);
  EXPECT_NEAR(compute_mib(cohere, {.ctx = 1024, .ubatch = 256, .flash_attn = false}), 64.0, 0.1);
}

TEST(VramFamilies, encoders_with_gates_and_fused_projections_nomic_and_modern_bert) {
  GgufBuilder nomic = shape_keys("nomic-bert", 768, 3072, 12, 12);
  nomic.tensor("blk.0.attn_qkv.weight", {768, 2304}, "f16")
      .tensor("blk.0.ffn_up.weight", {768, 3072}, "f16")
      .tensor("blk.0.ffn_gate.weight", {768, 3072}, "f16");
  EXPECT_NEAR(compute_mib(nomic, {.ctx = 2048, .embeddings = true}), 21.5, 0.1);
  EXPECT_NEAR(compute_mib(nomic, {.ctx = 1024, .flash_attn = false, .embeddings = true}), 23.5, 0.1);
  GgufBuilder modern = shape_keys("modern-bert", 768, 1152, 12, 12);
  modern.u32(".attention.sliding_window", 128)
      .tensor("blk.0.attn_qkv.weight", {768, 2304}, "f16")
      .tensor("blk.0.ffn_up.weight", {768, 2304}, "f16");
  EXPECT_NEAR(compute_mib(modern, {.ctx = 2048, .embeddings = true}), 10.8, 0.1);
  EXPECT_NEAR(compute_mib(modern, {.ctx = 1024, .flash_attn = false, .embeddings = true}), 24.5, 0.1);
}

// ---- by hand: 2 layers of 64, 4 heads and 2 KV heads of 16, f16, one slot of 512 cells ------------------

const EstimateOptions kSmall{.ctx = 512, .backend = EstimateBackend::kCuda};
constexpr Bytes kLayer = 2 * 512 * 2 * 16 * 2;  // K and V, 512 cells, 2 heads of 16, 2 bytes

TEST(VramFamilies, layers_without_kv_heads_have_no_cache) {
  GgufBuilder b("deci");
  b.u32(".block_count", 2)
      .u32(".embedding_length", 64)
      .u32_array(".attention.head_count", {4, 4})
      .u32_array(".attention.head_count_kv", {2, 0});
  b.u32(".attention.key_length", 16).u32(".attention.value_length", 16).u32(".feed_forward_length", 128);
  test::dense_tensors(b, {});
  EXPECT_EQ(estimate_of(facts_of(b), kSmall).devices[0].kv, kLayer);
}

TEST(VramFamilies, window_patterns_follow_key_then_architecture) {
  const auto kv = [](const char* architecture, std::uint32_t window, auto&& more) {
    test::DenseShape shape{.architecture = architecture, .layers = 12, .window = window};
    GgufBuilder b = test::dense_keys(shape);
    more(b);
    test::dense_tensors(b, shape);
    return estimate_of(facts_of(b), {.ctx = 8192, .ubatch = 128}).devices[0].kv;
  };
  const auto none = [](GgufBuilder&) {};
  // 256 cells for a window of 128 and a micro-batch of 128; 8192 otherwise; 128 bytes per cell.
  const auto bytes = [](int full, int windows) { return Bytes{128} * (8192 * full + 256 * windows); };
  EXPECT_EQ(kv("gemma3", 128, none), bytes(2, 10));
  EXPECT_EQ(kv("gemma3", 0, none), bytes(12, 0)) << "no window key: no window";
  EXPECT_EQ(kv("gemma2", 128, none), bytes(6, 6));
  EXPECT_EQ(kv("gpt-oss", 128, none), bytes(6, 6));
  EXPECT_EQ(kv("cohere2", 128, none), bytes(3, 9));
  EXPECT_EQ(kv("phi3", 128, none), bytes(12, 0)) << "llama.cpp switches it off";
  EXPECT_EQ(kv("llama", 128, none), bytes(12, 0)) << "the architecture has none";
  EXPECT_EQ(kv("gemma3", 128, [](GgufBuilder& b) { b.u32(".attention.sliding_window_pattern", 3); }),
            bytes(4, 8));
  std::vector<bool> flags(12, false);
  flags[3] = true;
  EXPECT_EQ(
      kv("gemma3", 128, [&](GgufBuilder& b) { b.bool_array(".attention.sliding_window_pattern", flags); }),
      bytes(11, 1));
  EXPECT_EQ(
      kv("gemma4", 128, [&](GgufBuilder& b) { b.bool_array(".attention.sliding_window_pattern", flags); }),
      bytes(11, 1));
}

TEST(VramFamilies, llama4_has_its_window_of_8192_even_without_the_key) {
  const auto kv = [](bool off) {
    test::DenseShape shape{.architecture = "llama4", .layers = 4};
    GgufBuilder b = test::dense_keys(shape);
    if (off) b.u32(".attention.sliding_window", 0);
    test::dense_tensors(b, shape);
    return estimate_of(facts_of(b), {.ctx = 65536}).devices[0].kv;
  };
  EXPECT_EQ(kv(false), Bytes{128} * (65536 + 3 * (8192 + 512)));
  EXPECT_EQ(kv(true), Bytes{128} * 4 * 65536);
}

TEST(VramFamilies, window_layers_may_have_heads_of_another_size) {
  test::DenseShape shape{.architecture = "gemma4", .layers = 2, .window = 256};
  GgufBuilder b = test::dense_keys(shape);
  b.bool_array(".attention.sliding_window_pattern", {true, false})
      .u32(".attention.key_length_swa", 8)
      .u32(".attention.value_length_swa", 8);
  test::dense_tensors(b, shape);
  const ModelFacts model = facts_of(b);
  // 8192 cells of 2 heads of 16; 768 cells of 2 heads of 8.
  EXPECT_EQ(estimate_of(model, {.ctx = 8192}).devices[0].kv, 2 * 2 * (8192 * 32 + 768 * 16));
  // Without flash attention the V rows of the narrow layer are as wide as the widest.
  EXPECT_EQ(estimate_of(model, {.ctx = 8192, .flash_attn = false}).devices[0].kv,
            2 * (8192 * 64 + 768 * (16 + 32)));
}

TEST(VramFamilies, layers_that_reuse_an_earlier_cache_have_none_of_their_own) {
  test::DenseShape shape{.architecture = "gemma4", .layers = 4, .window = 256};
  GgufBuilder b = test::dense_keys(shape);
  b.bool_array(".attention.sliding_window_pattern", {true, false, true, false})
      .u32(".attention.shared_kv_layers", 2);
  test::dense_tensors(b, shape);
  EXPECT_EQ(estimate_of(facts_of(b), {.ctx = 8192}).devices[0].kv, Bytes{128} * (8192 + 768));
}

TEST(VramFamilies, hybrids_have_each_layer_by_its_kind) {
  const auto build = [](const char* architecture, auto&& more) {
    GgufBuilder b(architecture);
    b.u32(".block_count", 4)
        .u32(".embedding_length", 64)
        .u32(".attention.head_count", 4)
        .u32(".feed_forward_length", 128);
    b.u32(".attention.key_length", 16).u32(".attention.value_length", 16);
    b.u32(".ssm.conv_kernel", 4)
        .u32(".ssm.inner_size", 96)
        .u32(".ssm.state_size", 16)
        .u32(".ssm.group_count", 2);
    more(b);
    test::dense_tensors(b, {.layers = 4});
    return estimate_of(facts_of(b), {.ctx = 512, .parallel = 2, .kv_unified = true}).devices[0];
  };
  constexpr Bytes state = 2 * 4 * (3 * (96 + 2 * 2 * 16) + 16 * 96);  // 2 sequences, F32
  const DeviceEstimate interval =
      build("qwen35", [](GgufBuilder& b) { b.u32(".attention.head_count_kv", 2); });
  EXPECT_EQ(interval.kv, kLayer) << "every fourth layer attends";
  EXPECT_EQ(interval.recurrent, 3 * state);
  const DeviceEstimate zeros =
      build("granitehybrid", [](GgufBuilder& b) { b.u32_array(".attention.head_count_kv", {0, 2, 0, 2}); });
  EXPECT_EQ(zeros.kv, 2 * kLayer);
  EXPECT_EQ(zeros.recurrent, 2 * state);
  const DeviceEstimate both =
      build("falcon-h1", [](GgufBuilder& b) { b.u32(".attention.head_count_kv", 2); });
  EXPECT_EQ(both.kv, 4 * kLayer);
  EXPECT_EQ(both.recurrent, 4 * state);
  const DeviceEstimate conv = build("lfm2", [](GgufBuilder& b) {
    b.u32_array(".attention.head_count_kv", {0, 2, 0, 2}).u32(".shortconv.l_cache", 3);
  });
  EXPECT_EQ(conv.kv, 2 * kLayer);
}

TEST(VramFamilies, rwkv_keeps_the_shifted_token_and_the_state) {
  GgufBuilder b("rwkv6");
  b.u32(".block_count", 2)
      .u32(".embedding_length", 64)
      .u32(".wkv.head_size", 16)
      .u32(".feed_forward_length", 128);
  test::dense_tensors(b, {});
  const DeviceEstimate d = estimate_of(facts_of(b), {.ctx = 512, .parallel = 2}).devices[0];
  EXPECT_EQ(d.kv, 0);
  EXPECT_EQ(d.recurrent, 2 * (2 * 4 * (2 * 64) + 2 * 4 * 64 * 16));
}

TEST(VramFamilies, prediction_layers_are_neither_loaded_nor_cached) {
  test::DenseShape shape{.architecture = "glm4moe", .layers = 3};
  GgufBuilder with = test::dense_keys(shape);
  with.u32(".nextn_predict_layers", 1);
  test::dense_tensors(with, shape);
  GgufBuilder without = test::dense_keys({.architecture = "glm4moe", .layers = 2});
  test::dense_tensors(without, {.layers = 2});
  const DeviceEstimate a = estimate_of(facts_of(with), kSmall).devices[0];
  const DeviceEstimate b = estimate_of(facts_of(without), kSmall).devices[0];
  EXPECT_EQ(a.weights, b.weights);
  EXPECT_EQ(a.kv, 2 * kLayer);
}

TEST(VramFamilies, rope_factors_lie_once_on_every_device_with_layers) {
  GgufBuilder b = test::dense_model({.layers = 4});
  b.tensor("rope_freqs.weight", {8});
  const ModelFacts with = facts_of(b);
  const ModelFacts without = facts_of(test::dense_model({.layers = 4}));
  const auto cost = [&](EstimateOptions options, int devices, std::vector<std::int64_t> split) {
    options.devices = devices;
    options.split = std::move(split);
    return estimate_of(with, options).device_total() - estimate_of(without, options).device_total();
  };
  EXPECT_EQ(cost(kSmall, 1, {}), 128);
  EXPECT_EQ(cost(kSmall, 2, {}), 2 * 128);
  EXPECT_EQ(cost(kSmall, 2, {4, 1}), 128) << "the second device has the output only";
}

TEST(VramFamilies, an_unknown_architecture_gets_an_upper_bound_that_says_so) {
  for (const bool flash : {true, false}) {
    const EstimateOptions options{.ctx = 8192, .parallel = 2, .flash_attn = flash};
    const GgufBuilder known = test::dense_model(
        {.layers = 4, .embd = 512, .ff = 1024, .heads = 8, .kv_heads = 4, .head_dim = 64, .vocab = 4096});
    const GgufBuilder unknown = test::dense_model({.architecture = "something-new",
                                                   .layers = 4,
                                                   .embd = 512,
                                                   .ff = 1024,
                                                   .heads = 8,
                                                   .kv_heads = 4,
                                                   .head_dim = 64,
                                                   .vocab = 4096});
    const Estimate exact = estimate_of(facts_of(known), options);
    const Estimate bound = estimate_of(facts_of(unknown), options);
    EXPECT_EQ(bound.method, EstimateMethod::kGeneric);
    EXPECT_GE(bound.devices[0].weights, exact.devices[0].weights);
    EXPECT_GE(bound.devices[0].kv, exact.devices[0].kv);
    EXPECT_GE(bound.devices[0].compute, exact.devices[0].compute);
  }
}

TEST(VramFamilies, a_projector_is_its_tensors_and_one_image) {
  GgufBuilder b("clip");
  b.text("general.type", "mmproj")
      .u32(".vision.embedding_length", 64)
      .u32(".vision.image_size", 224)
      .u32(".vision.patch_size", 14);
  b.u32(".vision.attention.head_count", 4)
      .tensor("v.patch_embd.weight", {14, 14, 3, 64}, "f16")
      .tensor("v.blk.0.ln1.weight", {64});
  const Estimate e = estimate_of(facts_of(b), kSmall);
  EXPECT_EQ(e.method, EstimateMethod::kGeneric);
  EXPECT_EQ(e.devices[0].weights, 14 * 14 * 3 * 64 * 2 + 256);
  EXPECT_EQ(e.devices[0].compute, 4 * 256 * (4 * 256 + 6 * 64));
  EXPECT_EQ(e.devices[0].kv, 0);
}

TEST(VramFamilies, kinds_follow_architecture_and_pooling) {
  const auto kind = [](const char* architecture, int pooling) {
    test::DenseShape shape{.architecture = architecture};
    GgufBuilder b = test::dense_keys(shape);
    if (pooling >= 0) b.u32(".pooling_type", static_cast<std::uint32_t>(pooling));
    test::dense_tensors(b, shape);
    return facts_of(b).kind;
  };
  EXPECT_EQ(kind("qwen3", -1), ModelKind::kChat);
  EXPECT_EQ(kind("qwen3", 3), ModelKind::kEmbedding);
  EXPECT_EQ(kind("qwen3", 4), ModelKind::kRerank);
  EXPECT_EQ(kind("bert", -1), ModelKind::kEmbedding);
}

}  // namespace
}  // namespace aiv
