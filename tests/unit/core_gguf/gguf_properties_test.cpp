#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <filesystem>
#include <fstream>

#include "../support/models.hpp"
#include "core/vram.hpp"

namespace aiv {
namespace {

using test::GgufBuilder;

std::string small_file() {
  GgufBuilder b =
      test::dense_keys({.layers = 1, .embd = 32, .ff = 32, .heads = 2, .kv_heads = 1, .vocab = 8});
  b.tokens("tokenizer.ggml.tokens", 5).bool_array(".attention.sliding_window_pattern", {true});
  test::dense_tensors(b, {.layers = 1, .embd = 32, .ff = 32, .heads = 2, .kv_heads = 1, .vocab = 8});
  return b.file();
}

TEST(GgufProperties, a_file_cut_at_any_byte_is_refused_with_field_and_offset) {
  const std::string whole = small_file();
  MemorySource sound(whole);
  ASSERT_TRUE(read_model(sound));
  for (std::size_t cut = 0; cut < whole.size(); ++cut) {
    MemorySource source(std::string_view(whole).substr(0, cut));
    const Result<ModelFacts> model = read_model(source);
    ASSERT_FALSE(model) << "cut at " << cut;
    ASSERT_NE(model.error().where.find("offset"), std::string::npos) << model.error().message();
  }
}

TEST(GgufProperties, flipped_bits_never_crash_and_never_give_negative_sizes) {
  const std::string whole = small_file();
  rc::check("flipped bits", [&] {
    std::string bytes = whole;
    const auto flips = *rc::gen::container<std::vector<std::pair<std::uint32_t, std::uint8_t>>>(
        rc::gen::pair(rc::gen::arbitrary<std::uint32_t>(), rc::gen::arbitrary<std::uint8_t>()));
    for (const auto& [at, bit] : flips) bytes[at % 1600 % bytes.size()] ^= static_cast<char>(1 << (bit % 8));
    MemorySource source(bytes);
    const Result<ModelFacts> model = read_model(source);
    if (!model) {
      RC_ASSERT(!model.error().reason.empty());
      RC_ASSERT(model.error().message().find('\n') == std::string::npos);
      return;
    }
    const Result<Estimate> e = estimate(*model, {.ctx = 65536, .parallel = 3, .devices = 2});
    if (!e) return;
    for (const DeviceEstimate& d : e->devices)
      RC_ASSERT(d.weights >= 0 && d.kv >= 0 && d.recurrent >= 0 && d.compute >= 0);
  });
}

TEST(GgufProperties, what_the_builder_writes_is_what_the_reader_reads) {
  rc::check("round trip", [] {
    GgufBuilder b("llama");
    const auto values = *rc::gen::container<std::vector<std::uint32_t>>(rc::gen::arbitrary<std::uint32_t>());
    const auto text = *rc::gen::string<std::string>();
    const auto dims =
        *rc::gen::container<std::vector<std::uint64_t>>(4, rc::gen::inRange<std::uint64_t>(1, 9));
    b.u32_array("a.list", values).text("a.text", text).tensor("t", dims).tensor("u", {32}, "q8_0");
    const std::string file = b.file();
    MemorySource source(file);
    const Result<GgufHeader> h = read_gguf(source);
    RC_ASSERT(h.has_value());
    const auto& list = std::get<std::vector<std::int64_t>>(std::get<GgufArray>(*h->find("a.list")));
    RC_ASSERT(std::equal(list.begin(), list.end(), values.begin(), values.end()));
    RC_ASSERT(std::get<std::string>(*h->find("a.text")) == text);
    RC_ASSERT(h->tensors[0].bytes == 4 * dims[0] * dims[1] * dims[2] * dims[3]);
    RC_ASSERT(h->tensors[1].offset == (h->tensors[0].bytes + 31) / 32 * 32);
  });
}

// Writes the fuzzer's seeds when AIV_WRITE_FUZZ_SEEDS names a directory; always checks that those in the tree
// parse.
TEST(GgufProperties, the_fuzzers_seeds_are_up_to_date) {
  const std::string named =
      std::getenv("AIV_WRITE_FUZZ_SEEDS") == nullptr ? "" : std::getenv("AIV_WRITE_FUZZ_SEEDS");
  const auto write = [&](const char* name, const GgufBuilder& b) {
    if (!named.empty()) std::ofstream(named + "/" + name, std::ios::binary) << '\2' << b.header();
  };
  write("llama", test::dense_model());
  write("gemma3-tied-window", test::dense_model({.architecture = "gemma3", .window = 128, .tied = true}));
  GgufBuilder mla = test::dense_keys({.architecture = "deepseek2", .kv_heads = 1});
  mla.u32(".attention.kv_lora_rank", 32)
      .u32(".rope.dimension_count", 8)
      .u32(".attention.key_length_mla", 24)
      .u32(".attention.value_length_mla", 16);
  mla.u32(".expert_count", 4).u32(".expert_used_count", 2).u32(".expert_feed_forward_length", 32);
  test::dense_tensors(mla, {});
  write("deepseek2", mla);
  GgufBuilder hybrid = test::dense_keys({.architecture = "qwen35"});
  hybrid.u32(".ssm.conv_kernel", 4)
      .u32(".ssm.inner_size", 64)
      .u32(".ssm.state_size", 16)
      .u32(".ssm.group_count", 2);
  hybrid.u32(".full_attention_interval", 2);
  test::dense_tensors(hybrid, {});
  write("qwen35", hybrid);
  write("unknown", test::dense_model({.architecture = "something-new"}));
  GgufBuilder projector("clip");
  projector.u32(".vision.embedding_length", 64)
      .u32(".vision.image_size", 224)
      .u32(".vision.patch_size", 14)
      .u32(".vision.attention.head_count", 4);
  projector.text("general.type", "mmproj").tensor("v.patch_embd.weight", {14, 14, 3, 64}, "f16");
  write("mmproj", projector);

  std::size_t seeds = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::string(AIV_SOURCE_DIR) + "/tests/fuzz/gguf/corpus")) {
    std::ifstream in(entry.path(), std::ios::binary);
    std::string bytes((std::istreambuf_iterator<char>(in)), {});
    bytes.erase(0, 1);
    bytes.append(1 << 20, '\0');
    MemorySource source(bytes);
    const Result<ModelFacts> model = read_model(source);
    // "unsound-": inputs that once found a fault.
    const bool sound = !entry.path().filename().string().starts_with("unsound-");
    EXPECT_EQ(model.has_value(), sound) << entry.path() << ": " << (model ? "" : model.error().message());
    ++seeds;
  }
  EXPECT_GE(seeds, 6u);
}

}  // namespace
}  // namespace aiv
