// Any bytes: the header reader and the estimator must answer or refuse, in bounded memory, without a signal.
//   fuzz_gguf tests/fuzz/gguf/corpus
// The seeds are small headers as tests/unit/support/gguf_builder.hpp writes them (core_gguf's test
// "the_fuzzers_seeds_are_up_to_date" names the way to write them again).
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "core/gguf.hpp"
#include "core/vram.hpp"

namespace {

// As many zero bytes after the input as it claims, so that the data section's check does not stop every
// input.
class ExtendedSource final : public aiv::ByteSource {
 public:
  ExtendedSource(std::span<const std::byte> bytes, std::uint64_t size) : bytes_(bytes), size_(size) {}
  [[nodiscard]] std::uint64_t size() const override { return size_; }
  aiv::Result<> read(std::uint64_t offset, std::span<std::byte> out) override {
    if (offset > size_ || out.size() > size_ - offset) __builtin_trap();  // the reader promised not to
    const std::size_t real =
        offset < bytes_.size() ? std::min<std::size_t>(out.size(), bytes_.size() - offset) : 0;
    if (real > 0) std::memcpy(out.data(), bytes_.data() + offset, real);
    if (real < out.size()) std::memset(out.data() + real, 0, out.size() - real);
    return {};
  }

 private:
  std::span<const std::byte> bytes_;
  std::uint64_t size_;
};

void estimate_all(const aiv::ModelFacts& model, std::uint8_t choice) {
  aiv::EstimateOptions options;
  options.ctx = choice & 1 ? 1 << 20 : 1000;
  options.parallel = choice & 2 ? 7 : 1;
  options.flash_attn = (choice & 4) != 0;
  options.kv_unified = (choice & 8) != 0;
  options.devices = choice & 16 ? 3 : 1;
  options.cache_type_k = choice & 32 ? "q8_0" : "f16";
  options.token_embd_on_device = (choice & 64) != 0;
  options.backend = choice & 128 ? aiv::EstimateBackend::kVulkan : aiv::EstimateBackend::kCuda;
  const aiv::Result<aiv::Estimate> estimate = aiv::estimate(model, options);
  if (!estimate) return;
  for (const aiv::DeviceEstimate& device : estimate->devices) {
    if (device.weights < 0 || device.kv < 0 || device.recurrent < 0 || device.compute < 0 ||
        device.total() < 0)
      __builtin_trap();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::span bytes = std::as_bytes(std::span(data + 1, size - 1));
  // The first byte picks the setting; half of the inputs get a file that is large enough for their tensors.
  ExtendedSource source(bytes, data[0] & 1 ? bytes.size() : bytes.size() + (std::uint64_t{1} << 20));
  const aiv::Result<aiv::GgufHeader> header = aiv::read_gguf(source);
  if (!header) {
    if (header.error().reason.empty() || header.error().where.empty()) __builtin_trap();
    return 0;
  }
  const aiv::Result<aiv::ModelFacts> model = aiv::model_facts(*header);
  if (!model) return 0;
  estimate_all(*model, data[0]);
  return 0;
}
