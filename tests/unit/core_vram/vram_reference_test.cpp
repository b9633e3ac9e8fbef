// All rows of the reference table (the engine's own dry run), when the optional test data is there.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "../support/test_data.hpp"
#include "core/vram.hpp"
#include "wire/model_file.hpp"

namespace aiv {
namespace {

struct Row {
  std::string model;
  EstimateOptions options;
  std::vector<DeviceEstimate> expected;  // kv and recurrent together, in kv
  Bytes host_weights = 0;
  std::string text;
};

std::vector<Row> read_rows(const std::string& path) {
  std::ifstream in(path);
  std::vector<Row> rows;
  std::map<std::string, std::size_t> column;
  for (std::string line; std::getline(in, line);) {
    if (line.empty() || line[0] == '#') continue;
    std::vector<std::string> cells;
    std::istringstream stream(line);
    for (std::string cell; std::getline(stream, cell, ',');) cells.push_back(cell);
    if (column.empty()) {
      for (std::size_t i = 0; i < cells.size(); ++i) column[cells[i]] = i;
      continue;
    }
    const auto text = [&](const char* name) { return cells.at(column.at(name)); };
    const auto number = [&](const char* name) { return std::stoll(text(name)); };
    Row row;
    row.text = line;
    row.model = text("model");
    row.options.ctx = number("ctx");
    row.options.parallel = static_cast<int>(number("parallel"));
    row.options.ubatch = static_cast<int>(number("ubatch"));
    row.options.flash_attn = text("flash_attn") == "on";
    row.options.cache_type_k = text("type_k");
    row.options.cache_type_v = text("type_v");
    row.options.kv_unified = number("kv_unified") != 0;
    row.options.embeddings = number("embeddings") != 0;
    row.options.devices = static_cast<int>(number("devices"));
    row.expected.push_back({.weights = number("dev0_weights"),
                            .kv = number("dev0_kv_and_recurrent"),
                            .compute = number("dev0_compute")});
    if (row.options.devices == 2) {
      row.expected.push_back({.weights = number("dev1_weights"),
                              .kv = number("dev1_kv_and_recurrent"),
                              .compute = number("dev1_compute")});
    }
    row.host_weights = number("host_weights");
    rows.push_back(std::move(row));
  }
  return rows;
}

// max(floor, share of `of`), the form of all targets.
Bytes allowance(Bytes floor, double share, Bytes of) {
  return std::max(floor, static_cast<Bytes>(share * static_cast<double>(of)));
}

struct Score {
  int rows = 0, exact = 0, compute_within = 0, never_short = 0, figures = 0;
  std::vector<Bytes> compute_errors;
};

void compare(const Row& row, const Estimate& got, Score& score) {
  bool exact = got.host_weights == row.host_weights;
  Bytes short_by = 0;
  Bytes total = 0;
  for (std::size_t d = 0; d < row.expected.size(); ++d) {
    const DeviceEstimate& want = row.expected[d];
    const DeviceEstimate& have = got.devices[d];
    exact = exact && have.weights == want.weights && have.kv + have.recurrent == want.kv;
    const Bytes error = have.compute - want.compute;
    score.compute_errors.push_back(error);
    ++score.figures;
    const bool within = std::abs(error) <= allowance(16 << 20, 0.05, want.compute);
    score.compute_within += within ? 1 : 0;
    if (!within)
      std::printf("compute off by %.1f MiB of %.1f on device %zu: %s\n",
                  static_cast<double>(error) / (1 << 20), static_cast<double>(want.compute) / (1 << 20), d,
                  row.text.c_str());
    short_by = std::max(short_by, want.total() - have.total());
    total += want.total();
  }
  if (!exact) std::printf("weights or cache not exact: %s\n", row.text.c_str());
  ++score.rows;
  score.exact += exact ? 1 : 0;
  score.never_short += short_by <= allowance(64 << 20, 0.01, total) ? 1 : 0;
}

TEST(VramReference, every_row_of_the_engines_dry_run_is_met) {
  const std::string data = test::test_data_dir();
  if (data.empty()) GTEST_SKIP() << "optional test data is not here (AIV_TEST_DATA)";
  if (std::system("python3 --version >/dev/null 2>&1") != 0)
    GTEST_SKIP() << "python3 is needed to write the models' headers";
  const std::vector<Row> rows = read_rows(data + "/data/vram_reference.csv");
  ASSERT_GE(rows.size(), 90u);
  std::string directory = (std::filesystem::temp_directory_path() / "aiv-headers-XXXXXX").string();
  ASSERT_NE(::mkdtemp(directory.data()), nullptr);
  const std::string command = "python3 '" + data + "/tools/make_headers.py' '" + directory + "' >/dev/null";
  ASSERT_EQ(std::system(command.c_str()), 0);
  std::map<std::string, ModelFacts> models;
  Score score;
  for (const Row& row : rows) {
    if (!models.contains(row.model)) {
      const Result<ModelFacts> facts = read_model_file(directory + "/" + row.model + ".gguf");
      ASSERT_TRUE(facts) << facts.error().message();
      models[row.model] = *facts;
    }
    const Result<Estimate> got = estimate(models[row.model], row.options);
    ASSERT_TRUE(got) << got.error().message();
    EXPECT_EQ(got->method, EstimateMethod::kFormula);
    compare(row, *got, score);
  }
  std::filesystem::remove_all(directory);
  std::sort(score.compute_errors.begin(), score.compute_errors.end(),
            [](Bytes a, Bytes b) { return std::abs(a) < std::abs(b); });
  const auto quantile = [&](double q) {
    return static_cast<double>(score.compute_errors[static_cast<std::size_t>(
               q * static_cast<double>(score.compute_errors.size() - 1))]) /
           (1 << 20);
  };
  std::printf(
      "%d rows: weights and cache exact in %d; compute within max(16 MiB, 5 %%) in %d of %d; total never "
      "short in %d; "
      "compute error p50 %.2f p95 %.2f worst %.2f MiB\n",
      score.rows, score.exact, score.compute_within, score.figures, score.never_short, quantile(0.5),
      quantile(0.95), quantile(1));
  EXPECT_EQ(score.exact, score.rows);
  EXPECT_GE(score.compute_within * 100, score.figures * 95);
  EXPECT_EQ(score.never_short, score.rows);
}

// A real file with a tokenizer. Figures: the engine's dry run over Vulkan on lavapipe (alignment 16).
TEST(VramReference, a_real_file_of_a_megabyte_is_read_and_met) {
  const std::string path = test::test_data_dir() + "/models/stories260K.gguf";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "optional test data is not here (AIV_TEST_DATA)";
  const Result<ModelFacts> model = read_model_file(path);
  ASSERT_TRUE(model) << model.error().message();
  const Result<Estimate> got =
      estimate(*model, {.ctx = 512, .backend = EstimateBackend::kVulkan, .alignment = 16});
  ASSERT_TRUE(got) << got.error().message();
  EXPECT_EQ(got->devices[0].weights, 1040128);
  EXPECT_EQ(got->devices[0].kv, 327680);
  EXPECT_NEAR(static_cast<double>(got->devices[0].compute), 1984528, 100'000);
  EXPECT_EQ(got->host_weights, 131072);
}

}  // namespace
}  // namespace aiv
