// `aiv estimate` as scripts see it: exact JSON, exit codes, nothing on stdout when it fails.
#include "cli/estimate_command.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <fstream>

#include "../support/models.hpp"
#include "../support/reference_models.hpp"
#include "base/json.hpp"
#include "core/documents.hpp"

namespace aiv {
namespace {

using ::testing::HasSubstr;

struct Outcome {
  int exit_code = -1;
  std::string out, err;
};

Outcome estimate_command(std::vector<std::string> arguments) {
  CLI::App app;
  Outcome run;
  add_estimate_command(app, run.exit_code);
  std::reverse(arguments.begin(), arguments.end());
  arguments.push_back("estimate");
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  try {
    app.parse(arguments);
  } catch (const CLI::ParseError& error) {
    run.exit_code = 2;
  }
  run.out = testing::internal::GetCapturedStdout();
  run.err = testing::internal::GetCapturedStderr();
  return run;
}

class EstimateCommand : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "aiv-estimate-XXXXXX").string();
    directory_ = ::mkdtemp(name.data());
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  std::string write(const std::string& name, const std::string& bytes, std::uint64_t size = 0) {
    const std::string path = directory_ + "/" + name;
    std::ofstream(path, std::ios::binary) << bytes;
    if (size > 0) std::filesystem::resize_file(path, size);  // sparse
    return path;
  }
  std::string write_llama() {
    const test::GgufBuilder b = test::llama_3_1_8b();
    return write("llama.gguf", b.header(), test::SparseSource(b).size());
  }

 private:
  std::string directory_;
};

TEST_F(EstimateCommand, the_json_has_the_promised_fields_and_the_engines_figures) {
  const Outcome run = estimate_command({write_llama(), "--ctx", "8192", "--kv-unified", "--json"});
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_EQ(run.err, "");
  const Json json = Json::parse(run.out);
  EXPECT_EQ(json.at("architecture"), "llama");
  EXPECT_EQ(json.at("method"), "formula");
  ASSERT_EQ(json.at("devices").size(), 1u);
  const Json& device = json.at("devices")[0];
  EXPECT_EQ(device.at("weights_bytes"), 4617396224);
  EXPECT_EQ(device.at("kv_bytes"), 1073741824);
  EXPECT_EQ(device.at("recurrent_bytes"), 0);
  EXPECT_EQ(device.at("total_bytes").get<Bytes>(),
            4617396224 + 1073741824 + device.at("compute_bytes").get<Bytes>());
  EXPECT_EQ(json.at("host").at("weights_bytes"), 295501824);
  EXPECT_GT(json.at("host").at("compute_bytes").get<Bytes>(), 0);
}

TEST_F(EstimateCommand, every_option_reaches_the_estimate) {
  const std::string file = write_llama();
  const auto total = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {file, "--json"});
    const Outcome run = estimate_command(more);
    EXPECT_EQ(run.exit_code, 0) << run.err;
    Bytes sum = 0;
    if (run.exit_code == 0) {
      const Json json = Json::parse(run.out);
      for (const Json& d : json.at("devices")) sum += d.at("total_bytes").get<Bytes>();
    }
    return sum;
  };
  const Bytes plain = total({});
  EXPECT_GT(total({"--ctx", "10000", "--parallel", "3"}), plain);
  EXPECT_LT(total({"--ubatch", "128"}), plain);
  EXPECT_GT(total({"--flash-attn", "off"}), plain);
  EXPECT_LT(total({"--cache-type-k", "q8_0"}), plain);
  EXPECT_LT(total({"--cache-type-v", "q8_0"}), plain);
  EXPECT_GT(total({"--parallel", "4", "--kv-unified"}), total({"--parallel", "4", "--no-kv-unified"}))
      << "masks over all cells";
  EXPECT_GT(total({"--devices", "2"}), plain);
  EXPECT_GT(total({"--embeddings"}), plain);
  EXPECT_GT(total({"--outputs-max", "512"}), plain);
  EXPECT_EQ(total({"--backend", "hip"}), plain);
  EXPECT_LE(total({"--backend", "vulkan"}), plain);
  EXPECT_EQ(total({"--token-embd", "device"}), plain + 295501824);
}

TEST_F(EstimateCommand, people_get_a_table) {
  const Outcome run = estimate_command({write_llama()});
  EXPECT_EQ(run.exit_code, 0);
  EXPECT_THAT(run.out, HasSubstr("GPU 0"));
  EXPECT_THAT(run.out, HasSubstr("4.3 GiB"));
}

TEST_F(EstimateCommand, an_unknown_architecture_is_called_generic) {
  const std::string file = write("new.gguf", test::dense_model({.architecture = "something-new"}).file());
  EXPECT_EQ(Json::parse(estimate_command({file, "--json"}).out).at("method"), "generic");
  EXPECT_THAT(estimate_command({file}).out, HasSubstr("upper bounds"));
}

TEST_F(EstimateCommand, what_is_no_sound_model_exits_1_with_one_line_and_nothing_on_stdout) {
  std::string cut = test::dense_model().file();
  cut.resize(cut.size() / 2);
  for (const std::string& bytes :
       {std::string(), std::string("hello"), test::dense_model().version(9).file(), cut}) {
    const Outcome run = estimate_command({write("bad.gguf", bytes), "--json"});
    EXPECT_EQ(run.exit_code, 1);
    EXPECT_EQ(run.out, "");
    EXPECT_EQ(std::count(run.err.begin(), run.err.end(), '\n'), 1) << run.err;
    EXPECT_THAT(run.err, HasSubstr("offset"));
  }
}

TEST_F(EstimateCommand, other_failures_have_their_own_exit_codes) {
  EXPECT_EQ(estimate_command({"/no/such/model.gguf"}).exit_code, 3);
  const std::string file = write_llama();
  EXPECT_EQ(estimate_command({file, "--ctx", "0"}).exit_code, 2);
  EXPECT_EQ(estimate_command({file, "--ctx", "-5"}).exit_code, 2);
  EXPECT_EQ(estimate_command({file, "--ctx", "lots"}).exit_code, 2);
  EXPECT_EQ(estimate_command({file, "--cache-type-k", "q9"}).exit_code, 2);
  EXPECT_EQ(estimate_command({file, "--flash-attn", "maybe"}).exit_code, 2);
  EXPECT_EQ(estimate_command({}).exit_code, 2);
  const Outcome refused = estimate_command({file, "--flash-attn", "off", "--cache-type-v", "q8_0"});
  EXPECT_EQ(refused.exit_code, 4);
  EXPECT_EQ(refused.out, "");
  EXPECT_THAT(refused.err, HasSubstr("needs flash attention"));
}

}  // namespace
}  // namespace aiv
