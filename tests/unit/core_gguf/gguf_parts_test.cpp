#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "../support/models.hpp"
#include "wire/model_file.hpp"

namespace aiv {
namespace {

using test::GgufBuilder;
using ::testing::HasSubstr;

std::string part(std::uint16_t number, std::uint16_t count, bool with_keys,
                 std::int32_t tensors_of_all = 12) {
  GgufBuilder b = with_keys ? test::dense_keys({.layers = 1}) : GgufBuilder("");
  b.u16("split.no", number).u16("split.count", count).i32("split.tensors.count", tensors_of_all);
  GgufBuilder all("llama");
  if (number == 0)
    b.tensor("token_embd.weight", {64, 96}, "f16")
        .tensor("output_norm.weight", {64})
        .tensor("output.weight", {64, 96}, "f16");
  if (number == 1) {
    for (const char* name : {"attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate",
                             "ffn_up", "ffn_down"}) {
      b.tensor("blk.0." + std::string(name) + ".weight", {64, 2});
    }
  }
  return b.file();
}

class Directory {
 public:
  Directory() {
    std::string name = (std::filesystem::temp_directory_path() / "aiv-parts-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~Directory() { std::filesystem::remove_all(path_); }
  std::string write(const std::string& name, const std::string& bytes) const {
    std::ofstream(path_ + "/" + name, std::ios::binary) << bytes;
    return path_ + "/" + name;
  }

 private:
  std::string path_;
};

TEST(GgufParts, a_model_in_two_files_is_one_model) {
  const Directory dir;
  const std::string first = dir.write("m-00001-of-00002.gguf", part(0, 2, true));
  dir.write("m-00002-of-00002.gguf", part(1, 2, false));
  const Result<ModelFacts> model = read_model_file(first);
  ASSERT_TRUE(model) << model.error().message();
  EXPECT_EQ(model->tensors.size(), 12u);
  EXPECT_EQ(model->n_layers, 1);
}

TEST(GgufParts, a_missing_part_is_named) {
  const Directory dir;
  const std::string first = dir.write("m-00001-of-00002.gguf", part(0, 2, true));
  const Result<ModelFacts> model = read_model_file(first);
  ASSERT_FALSE(model);
  EXPECT_EQ(model.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(model.error().message(), HasSubstr("m-00002-of-00002.gguf"));
}

TEST(GgufParts, another_part_than_the_first_is_refused_with_the_remedy) {
  const Directory dir;
  const std::string second = dir.write("m-00002-of-00002.gguf", part(1, 2, false));
  EXPECT_THAT(read_model_file(second).error().message(), HasSubstr("give the first part"));
  // The same under a name that hides it.
  const std::string renamed = dir.write("renamed.gguf", part(1, 2, true));
  EXPECT_THAT(read_model_file(renamed).error().message(), HasSubstr("give the first part"));
}

TEST(GgufParts, a_first_part_under_another_name_says_what_to_do) {
  const Directory dir;
  const std::string renamed = dir.write("renamed.gguf", part(0, 2, true));
  EXPECT_THAT(read_model_file(renamed).error().message(), HasSubstr("keep the names"));
}

TEST(GgufParts, parts_that_do_not_belong_together_are_refused) {
  const Directory dir;
  const std::string a = dir.write("a-00001-of-00002.gguf", part(0, 2, true));
  dir.write("a-00002-of-00002.gguf", part(0, 2, true));
  EXPECT_THAT(read_model_file(a).error().message(), HasSubstr("says it is part 1 of 2"));
  const std::string b = dir.write("b-00001-of-00002.gguf", part(0, 2, true, 99));
  dir.write("b-00002-of-00002.gguf", part(1, 2, false, 99));
  EXPECT_THAT(read_model_file(b).error().message(), HasSubstr("says 99 tensors, the parts have 12"));
  dir.write("c-00002-of-00002.gguf", part(1, 2, false).substr(0, 700));
  const std::string c = dir.write("c-00001-of-00002.gguf", part(0, 2, true));
  EXPECT_THAT(read_model_file(c).error().message(), HasSubstr("part 2"));
}

TEST(GgufParts, names_are_taken_apart_strictly) {
  EXPECT_EQ(gguf_part_paths("/m/x.gguf")->size(), 1u);
  EXPECT_EQ(gguf_part_paths("/m/x-00001-of-00003.gguf")->at(2), "/m/x-00003-of-00003.gguf");
  EXPECT_EQ(gguf_part_paths("/m/x-0001-of-00003.gguf")->size(), 1u);
  EXPECT_FALSE(gguf_part_paths("/m/x-00001-of-00000.gguf"));
  EXPECT_FALSE(gguf_part_paths("/m/x-00004-of-00003.gguf"));
  EXPECT_FALSE(gguf_part_paths("/m/x-00001-of-99999.gguf"));
}

TEST(GgufParts, what_is_no_file_is_refused_at_once) {
  EXPECT_EQ(read_model_file("/no/such/file.gguf").error().code, ErrorCode::kNotFound);
  EXPECT_THAT(read_model_file("/dev/zero").error().message(), HasSubstr("not a regular file"));
  EXPECT_THAT(read_model_file("/").error().message(), HasSubstr("not a regular file"));
}

}  // namespace
}  // namespace aiv
