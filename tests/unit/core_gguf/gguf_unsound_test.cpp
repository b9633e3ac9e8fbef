// What is refused, and that the answer names the field.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "../support/models.hpp"
#include "core/gguf.hpp"
#include "core/vram.hpp"

namespace aiv {
namespace {

using test::GgufBuilder;
using ::testing::HasSubstr;

Error must_refuse(const std::string& bytes) {
  MemorySource source(bytes);
  const Result<ModelFacts> model = read_model(source);
  EXPECT_FALSE(model);
  if (model) return {};
  EXPECT_EQ(model.error().message().find('\n'), std::string::npos) << "one line";
  EXPECT_THAT(model.error().where, HasSubstr("offset"));
  return model.error();
}

void expect_refused(const std::string& bytes, const std::string& where, const std::string& reason) {
  const Error error = must_refuse(bytes);
  EXPECT_THAT(error.where, HasSubstr(where));
  EXPECT_THAT(error.reason, HasSubstr(reason));
}

std::string number(std::uint64_t n) {
  return {reinterpret_cast<const char*>(&n), 8};
}

TEST(GgufUnsound, files_that_are_no_gguf_of_ours) {
  expect_refused("", "magic, offset 0", "truncated");
  expect_refused("GG", "magic", "truncated");
  expect_refused("PK\3\4 a zip file that someone renamed", "magic", "not a GGUF file");
  expect_refused(test::dense_model().version(1).file(), "version", "version 1 is not supported");
  expect_refused(test::dense_model().version(4).file(), "version", "version 4");
  expect_refused(test::dense_model().version(0).file(), "version", "version 0");
  expect_refused(test::dense_model().version(3u << 24).file(), "version", "byte-swapped");
}

TEST(GgufUnsound, counts_larger_than_the_file_could_hold) {
  expect_refused(test::dense_model().tensor_count(~0ULL).file(), "tensor count",
                 "more than the rest of the file");
  expect_refused(test::dense_model().tensor_count(1'000'000).file(), "tensor count",
                 "more than the rest of the file");
  expect_refused(test::dense_model().key_count(1ULL << 60).file(), "key count",
                 "more than the rest of the file");
}

TEST(GgufUnsound, keys) {
  expect_refused(test::dense_model().u32("llama.block_count", 2).file(), "key llama.block_count", "twice");
  expect_refused(test::dense_model().raw_value("x", 13, "aaaa").file(), "key x", "unknown value type 13");
  expect_refused(test::dense_model().raw_value("x", 8, number(1ULL << 62)).file(), "key x",
                 "longer than the rest");
  expect_refused(test::dense_model().raw_value("", 4, "aaaa").file(), "key", "empty");
  expect_refused(test::dense_model().raw_value("\x1b[31mred\n", 99, "").file(), "key \\x1b[31mred\\x0a",
                 "unknown value type");
}

TEST(GgufUnsound, arrays) {
  const std::string arrays("\11\0\0\0", 4);
  expect_refused(test::dense_model().raw_value("x", 9, arrays + number(1)).file(), "key x",
                 "array of arrays");
  expect_refused(test::dense_model().raw_value("x", 9, std::string("\17\0\0\0", 4) + number(1)).file(),
                 "key x", "unknown element type 15");
  for (const char type : {'\0', '\4', '\10', '\12'}) {
    expect_refused(test::dense_model()
                       .raw_value("x", 9, std::string(1, type) + std::string(3, '\0') + number(1ULL << 61))
                       .file(),
                   "key x", "longer than the rest of the file");
  }
  // Fewer elements than bytes are left, but more bytes than are left.
  {
    GgufBuilder b = test::dense_model();
    const std::uint64_t left = b.file().size();
    expect_refused(b.raw_value("x", 9, std::string("\12\0\0\0", 4) + number(left / 2)).file(), "key x",
                   "longer than the rest of the file");
  }
  // The count is possible, a text in it is not.
  expect_refused(test::dense_model()
                     .raw_value("x", 9, std::string("\10\0\0\0", 4) + number(1) + number(1ULL << 40))
                     .file(),
                 "key x", "element 0 is longer");
}

TEST(GgufUnsound, tensors) {
  const auto with = [](std::vector<std::uint64_t> dims, std::uint32_t type, std::uint64_t offset,
                       const char* name = "bad") {
    GgufBuilder b("llama");
    return b.raw_tensor(name, std::move(dims), type, offset).file() + std::string(4096, '\0');
  };
  expect_refused(with({1, 1, 1, 1, 1}, 0, 0), "tensor bad", "5 dimensions");
  expect_refused(with({8}, 4, 0), "tensor bad", "unknown tensor type 4");
  expect_refused(with({8}, 43, 0), "tensor bad", "unknown tensor type 43");
  expect_refused(with({8, 0}, 0, 0), "tensor bad", "dimension of 0");
  expect_refused(with({1ULL << 40, 1ULL << 40}, 0, 0), "tensor bad", "overflow");
  expect_refused(with({1ULL << 62, 1}, 0, 0), "tensor bad", "overflow");
  expect_refused(with({100}, 12, 0), "tensor bad", "do not divide into blocks of 256");
  expect_refused(with({8}, 0, 7), "tensor bad", "not a multiple of the alignment");
  expect_refused(with({8}, 0, 32), "tensor bad", "where 0 follows");
  expect_refused(with({1 << 20}, 0, 0), "tensor bad", "past the end of the file");
  expect_refused(with({8}, 0, 0, ""), "tensor 0", "empty");
  expect_refused(
      with({8}, 0, 0, "a-name-that-is-much-longer-than-the-sixty-three-bytes-that-ggml-keeps-of-it"),
      "tensor 0", "over the bound of 63");
  expect_refused(GgufBuilder("llama").tensor("t", {8}).tensor("t", {8}).file(), "tensor t", "twice");
  expect_refused(GgufBuilder("llama").u32(".block_count", 1).file(), "tensor count", "no tensors");
}

TEST(GgufUnsound, data_that_ends_early) {
  std::string file = test::dense_model().file();
  file.resize(file.size() - 100);
  expect_refused(file, "tensor blk.1.ffn_down.weight", "download is not complete");
}

TEST(GgufUnsound, the_last_tensor_needs_no_padding_after_it) {
  GgufBuilder b = test::dense_keys({.layers = 1});
  test::dense_tensors(b, {.layers = 1});
  std::string file = b.tensor("blk.0.x", {3}).file();
  file.resize(file.size() - 20);  // 12 bytes of data, 20 of padding
  MemorySource source(file);
  EXPECT_TRUE(read_gguf(source));
  file.resize(file.size() - 1);
  MemorySource shorter(file);
  EXPECT_FALSE(read_gguf(shorter));
}

TEST(GgufUnsound, alignment) {
  expect_refused(test::dense_model().u32("general.alignment", 0).file(), "general.alignment",
                 "must be from 1");
  expect_refused(test::dense_model().u32("general.alignment", 48).file(), "general.alignment",
                 "power of two");
  expect_refused(test::dense_model().text("general.alignment", "32").file(), "general.alignment", "integer");
}

TEST(GgufUnsound, architecture) {
  GgufBuilder none("");
  expect_refused(none.tensor("t", {8}).file(), "general.architecture", "missing");
  GgufBuilder mistyped("");
  expect_refused(mistyped.u32("general.architecture", 7).tensor("t", {8}).file(), "general.architecture",
                 "must be a text");
}

TEST(GgufUnsound, shapes_that_contradict_the_tensors) {
  const auto keys = [](std::uint32_t blocks, std::uint32_t heads, std::uint32_t embd) {
    GgufBuilder b("llama");
    b.u32(".block_count", blocks)
        .u32(".attention.head_count", heads)
        .u32(".embedding_length", embd)
        .u32(".feed_forward_length", 128);
    test::dense_tensors(b, {});
    return b.file();
  };
  expect_refused(keys(3, 4, 64), "llama.block_count", "layer 2 has no tensors");
  expect_refused(keys(1, 4, 64), "tensor blk.1.", "no such layer");
  expect_refused(keys(0, 4, 64), "llama.block_count", "must be from 1");
  expect_refused(keys(100'000, 4, 64), "llama.block_count", "must be from 1");
  expect_refused(keys(2, 0, 64), "llama.attention.head_count", "0 or missing");
  expect_refused(keys(2, 4, 0), "llama.embedding_length", "must be from 1");
  expect_refused(keys(2, 4, 32), "token_embd.weight", "embedding_length is 32");
  GgufBuilder missing("llama");
  expect_refused(missing.tensor("token_embd.weight", {8, 8}).file(), "llama.block_count", "missing");
  GgufBuilder mistyped("llama");
  expect_refused(mistyped.text(".block_count", "two").tensor("token_embd.weight", {8, 8}).file(),
                 "llama.block_count", "integer");
  GgufBuilder no_embedding("llama");
  no_embedding.u32(".block_count", 1)
      .u32(".attention.head_count", 1)
      .u32(".embedding_length", 8)
      .tensor("blk.0.x", {8});
  expect_refused(no_embedding.file(), "token_embd.weight", "missing");
}

TEST(GgufUnsound, widths_that_would_overflow_are_refused) {
  GgufBuilder b = test::dense_keys({.heads = 65536, .kv_heads = 65536, .head_dim = 1 << 20});
  test::dense_tensors(b, {});
  expect_refused(b.file(), "attention.head_count", "too large");
  GgufBuilder short_array("llama");
  short_array.u32(".block_count", 2).u32(".embedding_length", 64).u32_array(".attention.head_count", {4});
  test::dense_tensors(short_array, {});
  expect_refused(short_array.file(), "attention.head_count", "1 elements for 2 layers");
}

}  // namespace
}  // namespace aiv
