#include "make-model/random_model.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "core/vram.hpp"
#include "wire/model_file.hpp"

namespace aiv {
namespace {

class RandomModelTest : public ::testing::Test {
 protected:
  RandomModelTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "aiv-model-test-XXXXXX").string();
    dir_ = ::mkdtemp(pattern.data());
  }
  ~RandomModelTest() override { std::filesystem::remove_all(dir_); }
  std::string bytes_of(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::string dir_;
};

TEST_F(RandomModelTest, is_read_back_by_the_header_reader_with_its_shape_and_size) {
  const RandomModelShape shape = {.name = "r", .layers = 3, .embd = 128, .heads = 4, .kv_heads = 2, .feed_forward = 384};
  const std::string path = dir_ + "/m.gguf";
  const auto written = write_random_model(shape, path);
  ASSERT_TRUE(written.has_value()) << written.error().message();
  const auto file = FileHandle::open(path);
  ASSERT_TRUE(file.has_value()) << file.error().message();
  FileSource source(*file);
  const auto facts = read_model(source);
  ASSERT_TRUE(facts.has_value()) << facts.error().message();
  EXPECT_EQ(facts->architecture, "llama");
  EXPECT_EQ(facts->n_layers, 3);
  EXPECT_EQ(facts->n_embd, 128);
  EXPECT_EQ(facts->n_vocab, shape.vocab);
  EXPECT_TRUE(facts->tied_output);
  EXPECT_TRUE(facts->has_chat_template);
  EXPECT_EQ(facts->tensor_bytes, random_model_bytes(shape).value());
}

TEST_F(RandomModelTest, is_the_same_for_the_same_seed_and_another_for_another) {
  RandomModelShape shape = {.layers = 1, .embd = 64, .heads = 2, .kv_heads = 1, .feed_forward = 96, .vocab = 512};
  ASSERT_TRUE(write_random_model(shape, dir_ + "/a.gguf"));
  ASSERT_TRUE(write_random_model(shape, dir_ + "/b.gguf"));
  shape.seed = 2;
  ASSERT_TRUE(write_random_model(shape, dir_ + "/c.gguf"));
  EXPECT_EQ(bytes_of(dir_ + "/a.gguf"), bytes_of(dir_ + "/b.gguf"));
  EXPECT_NE(bytes_of(dir_ + "/a.gguf"), bytes_of(dir_ + "/c.gguf"));
  EXPECT_FALSE(std::filesystem::exists(dir_ + "/a.gguf.part"));
}

TEST_F(RandomModelTest, refuses_a_shape_no_engine_takes_and_names_the_field) {
  const auto field = [](RandomModelShape shape) {
    const auto bytes = random_model_bytes(shape);
    return bytes ? std::string() : bytes.error().where;
  };
  EXPECT_EQ(field({}), "");
  EXPECT_EQ(field({.layers = 0}), "layers");
  EXPECT_EQ(field({.embd = 100}), "embd");
  EXPECT_EQ(field({.heads = 8, .kv_heads = 3}), "kv_heads");
  EXPECT_EQ(field({.feed_forward = 33}), "feed_forward");
  EXPECT_EQ(field({.vocab = 100}), "vocab");
}

TEST_F(RandomModelTest, says_where_it_cannot_write) {
  const auto refused = write_random_model({}, dir_ + "/no/such/m.gguf");
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kIo);
  EXPECT_THAT(refused.error().message(), ::testing::HasSubstr("/no/such/"));
}

}  // namespace
}  // namespace aiv
