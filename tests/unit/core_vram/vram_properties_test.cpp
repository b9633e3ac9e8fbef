// What must hold for every shape and every setting.
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "../support/models.hpp"
#include "core/vram.hpp"
#include "core/vram_arch.hpp"

namespace aiv {
namespace {

ModelFacts any_model() {
  const auto& rows = architectures();
  test::DenseShape s;
  s.architecture = rows[*rc::gen::inRange<std::size_t>(0, rows.size())].name;
  s.layers = *rc::gen::inRange<std::uint32_t>(1, 9);
  s.kv_heads = *rc::gen::element(1U, 2U, 4U);
  s.heads = s.kv_heads * *rc::gen::element(1U, 3U);
  s.head_dim = *rc::gen::element(32U, 96U, 128U);
  s.embd = 32 * *rc::gen::inRange<std::uint32_t>(1, 20);
  s.ff = 32 * *rc::gen::inRange<std::uint32_t>(1, 20);
  s.window = *rc::gen::element(0U, 128U, 1000U);
  s.type = *rc::gen::element("f16", "q8_0", "f32");
  s.tied = *rc::gen::arbitrary<bool>();
  test::GgufBuilder b = test::dense_keys(s);
  b.u32(".ssm.conv_kernel", 4)
      .u32(".ssm.inner_size", 2 * s.embd)
      .u32(".ssm.state_size", 16)
      .u32(".wkv.head_size", 0);
  b.bool_array(".attention.sliding_window_pattern", std::vector<bool>(s.layers, *rc::gen::arbitrary<bool>()));
  test::dense_tensors(b, s);
  test::SparseSource source(b);
  Result<ModelFacts> model = read_model(source);
  RC_ASSERT(model.has_value());
  return std::move(*model);
}

EstimateOptions any_options() {
  EstimateOptions o;
  o.ctx = *rc::gen::inRange<std::int64_t>(1, 100'000);
  o.parallel = *rc::gen::inRange(1, 17);
  o.ubatch = *rc::gen::element(64, 512, 2048);
  o.flash_attn = *rc::gen::arbitrary<bool>();
  o.cache_type_k = *rc::gen::element<std::string>("f16", "q8_0", "q4_0", "f32");
  o.cache_type_v = o.flash_attn ? *rc::gen::element<std::string>("f16", "q8_0", "q4_0") : "f16";
  o.kv_unified = *rc::gen::arbitrary<bool>();
  o.backend = *rc::gen::element(EstimateBackend::kCuda, EstimateBackend::kVulkan);
  o.token_embd_on_device = *rc::gen::arbitrary<bool>();
  return o;
}

Estimate must(const Result<Estimate>& e) {
  RC_ASSERT(e.has_value());
  return *e;
}

TEST(VramProperties, no_figure_is_negative_and_the_same_input_gives_the_same_answer) {
  rc::check("sane", [] {
    const ModelFacts model = any_model();
    const EstimateOptions options = any_options();
    const Estimate a = must(estimate(model, options));
    for (const DeviceEstimate& d : a.devices)
      RC_ASSERT(d.weights >= 0 && d.kv >= 0 && d.recurrent >= 0 && d.compute > 0);
    RC_ASSERT(a.host_weights >= 0 && a.host_compute >= 0);
    RC_ASSERT(a.devices == must(estimate(model, options)).devices);
  });
}

TEST(VramProperties, every_tensor_lies_somewhere) {
  rc::check("conservation", [] {
    const ModelFacts model = any_model();
    const EstimateOptions options = any_options();
    const Estimate e = must(estimate(model, options));
    Bytes least = 0;
    for (const TensorFacts& t : model.tensors) least += t.place == TensorPlace::kNotLoaded ? 0 : t.bytes;
    const Bytes have = e.devices[0].weights + e.host_weights;
    RC_ASSERT(have >= least);
    // Not more than a tied copy, and 128 + 512 elements of padding for each tensor.
    const Bytes padding = static_cast<Bytes>(model.tensors.size() + 1) * (128 + 4 * 512);
    RC_ASSERT(have <= least + (model.tied_output ? model.token_embd_bytes : 0) + padding);
  });
}

TEST(VramProperties, devices_together_hold_the_weights_and_caches_of_one) {
  rc::check("splits", [] {
    const ModelFacts model = any_model();
    EstimateOptions options = any_options();
    const Estimate one = must(estimate(model, options));
    options.devices = *rc::gen::inRange(1, 6);
    if (*rc::gen::arbitrary<bool>()) {
      options.split = *rc::gen::container<std::vector<std::int64_t>>(
          static_cast<std::size_t>(options.devices), rc::gen::inRange<std::int64_t>(1, 100));
    }
    const Estimate many = must(estimate(model, options));
    DeviceEstimate sum;
    for (const DeviceEstimate& d : many.devices) {
      sum.weights += d.weights;
      sum.kv += d.kv;
      sum.recurrent += d.recurrent;
      sum.layers += d.layers;
    }
    RC_ASSERT(sum.weights == one.devices[0].weights);
    RC_ASSERT(sum.kv == one.devices[0].kv);
    RC_ASSERT(sum.recurrent == one.devices[0].recurrent);
    RC_ASSERT(sum.layers == model.n_layers + 1);
    RC_ASSERT(many.host_weights == one.host_weights);
  });
}

TEST(VramProperties, more_context_never_takes_less) {
  rc::check("monotone in ctx", [] {
    const ModelFacts model = any_model();
    EstimateOptions options = any_options();
    const Estimate a = must(estimate(model, options));
    options.ctx += *rc::gen::inRange<std::int64_t>(0, 50'000);
    const Estimate b = must(estimate(model, options));
    RC_ASSERT(b.devices[0].kv >= a.devices[0].kv);
    // A few tokens of context bound the micro-batch, whose states then weigh more per token; beyond it C
    // grows too.
    if (a.ctx >= 2048) RC_ASSERT(b.devices[0].compute >= a.devices[0].compute);
    RC_ASSERT(b.devices[0].weights == a.devices[0].weights);
  });
}

TEST(VramProperties, a_slot_can_hold_what_it_was_promised) {
  rc::check("cells per slot", [] {
    const EstimateOptions options = any_options();
    const Estimate e = must(estimate(any_model(), options));
    RC_ASSERT(e.ctx >= options.ctx);
    RC_ASSERT(e.ctx_per_slot * (options.kv_unified ? 1 : options.parallel) == e.ctx);
    RC_ASSERT(e.ctx % 256 == 0);
  });
}

TEST(VramProperties, a_smaller_cache_type_never_takes_more) {
  rc::check("cache types", [] {
    const ModelFacts model = any_model();
    EstimateOptions options = any_options();
    options.flash_attn = true;
    options.ctx += 4096;
    options.cache_type_k = options.cache_type_v = "f16";
    const Bytes f16 = must(estimate(model, options)).devices[0].kv;
    options.cache_type_k = options.cache_type_v = "q8_0";
    const Bytes q8 = must(estimate(model, options)).devices[0].kv;
    options.cache_type_k = options.cache_type_v = "q4_0";
    RC_ASSERT(q8 <= f16);
    RC_ASSERT(must(estimate(model, options)).devices[0].kv <= q8);
  });
}

}  // namespace
}  // namespace aiv
