#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "../support/models.hpp"
#include "core/gguf.hpp"

namespace {
std::atomic<std::size_t> g_live{0};
std::atomic<std::size_t> g_peak{0};
}  // namespace

// Counts what is alive, to bound the memory of a parse. The size is kept in front of each block.
// Not inlined: g++ 12 would take the malloc inside for a mismatched pair.
[[gnu::noinline]] void* operator new(std::size_t size) {
  auto* block = static_cast<std::size_t*>(std::malloc(size + 16));
  if (block == nullptr) throw std::bad_alloc();
  block[0] = size;
  const std::size_t live = g_live += size;
  std::size_t peak = g_peak;
  while (live > peak && !g_peak.compare_exchange_weak(peak, live)) {
  }
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

namespace aiv {
namespace {

using test::GgufBuilder;

GgufHeader must_read(const std::string& bytes) {
  MemorySource source(bytes);
  Result<GgufHeader> header = read_gguf(source);
  EXPECT_TRUE(header) << header.error().message();
  return header ? std::move(*header) : GgufHeader{};
}

TEST(GgufSound, a_small_model_is_read_with_its_keys_and_tensors) {
  const GgufHeader h = must_read(test::dense_model().file());
  EXPECT_EQ(h.version, 3u);
  EXPECT_EQ(h.architecture, "llama");
  EXPECT_EQ(std::get<std::int64_t>(*h.find_arch("block_count")), 2);
  EXPECT_EQ(std::get<std::int64_t>(*h.find("llama.embedding_length")), 64);
  EXPECT_EQ(h.find_arch("no_such_key"), nullptr);
  ASSERT_EQ(h.tensors.size(), 3u + 2 * 9);
  EXPECT_EQ(h.tensors[0].name, "token_embd.weight");
  EXPECT_EQ(h.tensors[0].bytes, 64u * 96 * 2);
  EXPECT_EQ(h.tensors[1].offset, h.tensors[0].bytes);
  EXPECT_EQ(h.data_offset % 32, 0u);
}

TEST(GgufSound, version_2_is_read_like_version_3) {
  EXPECT_EQ(must_read(test::dense_model().version(2).file()).version, 2u);
}

TEST(GgufSound, every_scalar_type_of_the_format_is_read) {
  GgufBuilder b("llama");
  b.raw_value("a.u8", 0, "\xff")
      .raw_value("a.i8", 1, "\xff")
      .u16("a.u16", 65535)
      .raw_value("a.i16", 3, "\xfe\xff");
  b.i32("a.i32", -5)
      .f32("a.f32", 0.5F)
      .boolean("a.bool", true)
      .text("a.text", "hello")
      .u64("a.u64", 1ULL << 63);
  b.raw_value("a.i64", 11, std::string(8, '\xff'))
      .raw_value("a.f64", 12, std::string("\0\0\0\0\0\0\xf0\x3f", 8));
  b.tensor("t", {8});
  const GgufHeader h = must_read(b.file());
  EXPECT_EQ(std::get<std::int64_t>(*h.find("a.u8")), 255);
  EXPECT_EQ(std::get<std::int64_t>(*h.find("a.i8")), -1);
  EXPECT_EQ(std::get<std::int64_t>(*h.find("a.u16")), 65535);
  EXPECT_EQ(std::get<std::int64_t>(*h.find("a.i16")), -2);
  EXPECT_EQ(std::get<std::int64_t>(*h.find("a.i32")), -5);
  EXPECT_EQ(std::get<double>(*h.find("a.f32")), 0.5);
  EXPECT_TRUE(std::get<bool>(*h.find("a.bool")));
  EXPECT_EQ(std::get<std::string>(*h.find("a.text")), "hello");
  EXPECT_EQ(std::get<std::uint64_t>(*h.find("a.u64")), 1ULL << 63);
  EXPECT_EQ(std::get<std::int64_t>(*h.find("a.i64")), -1);
  EXPECT_EQ(std::get<double>(*h.find("a.f64")), 1.0);
}

TEST(GgufSound, arrays_of_numbers_are_kept_and_arrays_of_texts_are_stepped_over) {
  GgufBuilder b("llama");
  b.u32_array(".attention.head_count_kv", {4, 0, 4})
      .bool_array(".attention.sliding_window_pattern", {true, false});
  b.tokens("tokenizer.ggml.tokens", 1000)
      .u32_array("tokenizer.ggml.token_type", std::vector<std::uint32_t>(1000, 1));
  b.text("tokenizer.chat_template", std::string(100'000, 'x')).tensor("t", {8});
  const GgufHeader h = must_read(b.file());
  const auto integers = [&](const char* key) {
    return std::get<std::vector<std::int64_t>>(std::get<GgufArray>(*h.find_arch(key)));
  };
  EXPECT_EQ(integers("attention.head_count_kv"), (std::vector<std::int64_t>{4, 0, 4}));
  EXPECT_EQ(integers("attention.sliding_window_pattern"), (std::vector<std::int64_t>{1, 0}));
  EXPECT_EQ(std::get<GgufSkippedArray>(*h.find("tokenizer.ggml.tokens")).count, 1000u);
  EXPECT_EQ(std::get<GgufSkippedArray>(*h.find("tokenizer.ggml.token_type")).count, 1000u);
  EXPECT_EQ(std::get<GgufSkippedArray>(*h.find("tokenizer.chat_template")).count, 100'000u);
}

// Texts are cut by the reader's window at every possible place: what follows must still be read from where it
// is.
TEST(GgufSound, a_text_across_the_edge_of_the_readers_window_leaves_the_rest_in_place) {
  for (std::size_t first = 8000; first < 8300; ++first) {
    GgufBuilder b("llama");
    b.text("a", std::string(first / 2, 'x'))
        .text("b", std::string(first - first / 2, 'y'))
        .text("c", std::string(4000, 'z'));
    b.u32("after", 4711).tensor("t", {8});
    const GgufHeader h = must_read(b.file());
    ASSERT_EQ(std::get<std::string>(*h.find("c")), std::string(4000, 'z')) << first;
    ASSERT_EQ(std::get<std::int64_t>(*h.find("after")), 4711) << first;
  }
}

TEST(GgufSound, the_files_own_alignment_places_the_data) {
  GgufBuilder b("llama");
  b.u32("general.alignment", 4096).alignment(4096).tensor("a", {3}).tensor("b", {5});
  const GgufHeader h = must_read(b.file());
  EXPECT_EQ(h.data_offset, 4096u);
  EXPECT_EQ(h.tensors[1].offset, 4096u);
}

TEST(GgufSound, every_storage_type_has_its_blocks) {
  // Sizes per 256 elements, counted from the block structs of ggml-common.h (llama.cpp v0.5.0).
  const std::vector<std::pair<const char*, std::uint64_t>> expected{
      {"f32", 1024},  {"f16", 512},    {"bf16", 512},   {"q4_0", 144},   {"q4_1", 160}, {"q5_0", 176},
      {"q5_1", 192},  {"q8_0", 272},   {"q2_K", 84},    {"q3_K", 110},   {"q4_K", 144}, {"q5_K", 176},
      {"q6_K", 210},  {"iq2_xxs", 66}, {"iq2_xs", 74},  {"iq3_xxs", 98}, {"iq1_s", 50}, {"iq4_nl", 144},
      {"iq3_s", 110}, {"iq2_s", 82},   {"iq4_xs", 136}, {"iq1_m", 56},   {"tq1_0", 54}, {"tq2_0", 66},
      {"mxfp4", 136}, {"nvfp4", 144},  {"q1_0", 36},    {"q2_0", 72}};
  for (const auto& [name, bytes] : expected) {
    GgufBuilder b("llama");
    b.tensor("t", {256, 2}, name);
    EXPECT_EQ(must_read(b.file()).tensors.at(0).bytes, 2 * bytes) << name;
  }
}

TEST(GgufSound, a_vocabulary_of_262144_tokens_costs_little_memory) {
  GgufBuilder b = test::dense_keys({});
  b.tokens("tokenizer.ggml.tokens", 262'144)
      .u32_array("tokenizer.ggml.token_type", std::vector<std::uint32_t>(262'144, 1));
  test::dense_tensors(b, {});
  const std::string file = b.file();
  g_peak = g_live.load();
  const std::size_t before = g_live;
  const GgufHeader h = must_read(file);
  EXPECT_EQ(h.tensors.size(), 21u);
  EXPECT_LT(g_peak - before, 2u << 20) << "a parse must not hold what it steps over";
}

TEST(GgufSound, a_claimed_count_allocates_nothing) {
  GgufBuilder b("llama");
  b.raw_value("x.list", 9, std::string("\4\0\0\0", 4) + std::string("\xff\xff\xff\xff\xff\xff\xff\x0f", 8));
  const std::string file = b.tensor("t", {8}).file();
  g_peak = g_live.load();
  const std::size_t before = g_live;
  MemorySource source(file);
  EXPECT_FALSE(read_gguf(source));
  EXPECT_LT(g_peak - before, 1u << 20);
}

}  // namespace
}  // namespace aiv
