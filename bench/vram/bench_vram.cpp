// What an estimate and a header cost. Nothing is asserted: times are for people. Aims (vram.md section 8): at
// most 50 us per estimate from a parsed header, at most 5 ms for a header with 262,144 tokens, under 16 MiB.
#include <benchmark/benchmark.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "core/vram.hpp"
#include "support/models.hpp"
#include "support/reference_models.hpp"

namespace {
std::size_t g_live = 0;
std::size_t g_peak = 0;
}  // namespace

// Peak of what is alive; one thread. Not inlined: g++ 12 would take the malloc inside for a mismatched pair.
[[gnu::noinline]] void* operator new(std::size_t size) {
  auto* block = static_cast<std::size_t*>(std::malloc(size + 16));
  if (block == nullptr) throw std::bad_alloc();
  block[0] = size;
  g_live += size;
  if (g_live > g_peak) g_peak = g_live;
  return block + 2;
}
[[gnu::noinline]] void operator delete(void* pointer) noexcept {
  if (pointer == nullptr) return;
  auto* block = static_cast<std::size_t*>(pointer) - 2;
  g_live -= block[0];
  std::free(block);
}
void operator delete(void* pointer, std::size_t) noexcept {
  operator delete(pointer);
}

namespace {

using namespace aiv;

ModelFacts facts(const test::GgufBuilder& builder) {
  test::SparseSource source(builder);
  return read_model(source).value();
}

void estimate_model(benchmark::State& state, const test::GgufBuilder& builder, int devices) {
  const ModelFacts model = facts(builder);
  const EstimateOptions options{.ctx = 32768, .parallel = 4, .devices = devices};
  for (auto _ : state) benchmark::DoNotOptimize(estimate(model, options));
  state.counters["tensors"] = static_cast<double>(model.tensors.size());
}
BENCHMARK_CAPTURE(estimate_model, llama_3_1_8b, test::llama_3_1_8b(), 1);
BENCHMARK_CAPTURE(estimate_model, llama_3_1_8b_on_4_devices, test::llama_3_1_8b(), 4);
BENCHMARK_CAPTURE(estimate_model, qwen3_30b_a3b, test::qwen3_30b_a3b(), 1);
BENCHMARK_CAPTURE(estimate_model, mamba2_2_7b, test::mamba2_2_7b(), 1);

// A header as Gemma 3's: 262,144 tokens with scores and types; with merges as Llama 3's have them too.
test::GgufBuilder big_vocabulary(std::size_t merges) {
  test::GgufBuilder b = test::llama_3_1_8b();
  b.tokens("tokenizer.ggml.tokens", 262'144)
      .u32_array("tokenizer.ggml.scores", std::vector<std::uint32_t>(262'144, 1));
  b.u32_array("tokenizer.ggml.token_type", std::vector<std::uint32_t>(262'144, 1));
  if (merges > 0) b.tokens("tokenizer.ggml.merges", merges);
  return b;
}

// The header in memory and no byte of data behind it, as a file's pages would come from the cache.
class HeaderSource final : public ByteSource {
 public:
  explicit HeaderSource(const test::GgufBuilder& b)
      : header_(b.header()), size_(header_.size() + 32 + b.data_bytes()) {}
  [[nodiscard]] std::uint64_t size() const override { return size_; }
  [[nodiscard]] std::size_t header_bytes() const { return header_.size(); }
  Result<> read(std::uint64_t offset, std::span<std::byte> out) override {
    const std::size_t real =
        offset < header_.size() ? std::min(out.size(), header_.size() - static_cast<std::size_t>(offset)) : 0;
    if (real > 0) std::memcpy(out.data(), header_.data() + offset, real);
    return {};
  }

 private:
  std::string header_;
  std::uint64_t size_;
};

void parse(benchmark::State& state, std::size_t merges) {
  HeaderSource source(big_vocabulary(merges));
  std::size_t peak = 0;
  for (auto _ : state) {
    const std::size_t before = g_live;
    g_peak = g_live;
    benchmark::DoNotOptimize(read_model(source));
    peak = std::max(peak, g_peak - before);
  }
  state.counters["header_MiB"] = static_cast<double>(source.header_bytes()) / (1 << 20);
  state.counters["peak_MiB"] = static_cast<double>(peak) / (1 << 20);
}
BENCHMARK_CAPTURE(parse, tokens_262144, 0)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(parse, tokens_262144_and_514906_merges, 514'906)->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();
