#include "node/software_gpu.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>

#include "base/file.hpp"

namespace aiv::node {
namespace {

using ::testing::HasSubstr;

std::string error_of(std::string_view text) {
  const auto parsed = parse_gpus(text);
  if (parsed) return "no error";
  EXPECT_EQ(parsed.error().code, ErrorCode::kInvalidArgument);
  return parsed.error().message();
}

TEST(ParseGpus, reads_nodes_and_their_gpus) {
  const auto nodes = parse_gpus("GTX 1080:8GiB,RX 580:8GiB;RTX 3060:12GiB");
  ASSERT_TRUE(nodes.has_value()) << nodes.error().message();
  const std::vector<std::vector<SoftwareGpuSpec>> expected = {
      {{.name = "GTX 1080", .vram_bytes = 8LL << 30}, {.name = "RX 580", .vram_bytes = 8LL << 30}},
      {{.name = "RTX 3060", .vram_bytes = 12LL << 30}}};
  EXPECT_EQ(*nodes, expected);
}

TEST(ParseGpus, allows_equal_names_blanks_a_colon_in_the_name_and_a_semicolon_at_the_end) {
  const auto nodes = parse_gpus(" A : 512MiB , A:512MiB ; B:rev 2:1GiB ;");
  ASSERT_TRUE(nodes.has_value()) << nodes.error().message();
  ASSERT_EQ(nodes->size(), 2U);
  EXPECT_EQ(nodes->at(0).at(0), nodes->at(0).at(1));
  EXPECT_EQ(nodes->at(1).at(0).name, "B:rev 2");
}

TEST(ParseGpus, names_the_node_and_the_gpu_that_are_wrong) {
  EXPECT_THAT(error_of(""), HasSubstr("node 1"));
  EXPECT_THAT(error_of("A:8GiB;;B:8GiB"), HasSubstr("node 2"));
  EXPECT_THAT(error_of("A:8GiB,"), HasSubstr("node 1, GPU 2"));
  EXPECT_THAT(error_of("A:8GiB;RTX 3060"), HasSubstr("node 2, GPU 1 (\"RTX 3060\"): has no size"));
  EXPECT_THAT(error_of("A:"), HasSubstr("size"));
  EXPECT_THAT(error_of(":8GiB"), HasSubstr("no name"));
  EXPECT_THAT(error_of("A:8 parsecs"), HasSubstr("size"));
  EXPECT_THAT(error_of("A:-8GiB"), HasSubstr("size"));
  EXPECT_THAT(error_of("A:1MiB"), HasSubstr("must be from"));
  EXPECT_THAT(error_of("A:2048GiB"), HasSubstr("must be from"));
  EXPECT_THAT(error_of("A\tB:8GiB"), HasSubstr("control character"));
}

TEST(ParseGpus, holds_its_bounds) {
  const auto repeat = [](const std::string& unit, std::size_t count) {
    std::string text;
    for (std::size_t i = 0; i < count; ++i) text += unit;
    text.pop_back();
    return text;
  };
  EXPECT_TRUE(parse_gpus(repeat("A:8GiB,", kSoftwareGpusPerNodeMax)).has_value());
  EXPECT_THAT(error_of(repeat("A:8GiB,", kSoftwareGpusPerNodeMax + 1)), HasSubstr("more than 16"));
  EXPECT_TRUE(parse_gpus(repeat("A:8GiB;", kSoftwareNodesMax)).has_value());
  EXPECT_THAT(error_of(repeat("A:8GiB;", kSoftwareNodesMax + 1)), HasSubstr("more than 64"));
}

TEST(CardBandwidth, is_found_with_and_without_the_vendors_words) {
  EXPECT_EQ(card_bandwidth_bytes_per_s("GTX 1080"), 320'000'000'000);
  EXPECT_EQ(card_bandwidth_bytes_per_s("NVIDIA GeForce GTX 1080"), 320'000'000'000);
  EXPECT_EQ(card_bandwidth_bytes_per_s("AMD Radeon RX 580"), 256'000'000'000);
  EXPECT_EQ(card_bandwidth_bytes_per_s("rtx 3060"), 360'000'000'000);
  EXPECT_EQ(card_bandwidth_bytes_per_s("GTX 1080 Ti"), 484'000'000'000) << "not taken for a GTX 1080";
  EXPECT_EQ(card_bandwidth_bytes_per_s("Voodoo 2"), std::nullopt);
  EXPECT_EQ(card_bandwidth_bytes_per_s(""), std::nullopt);
}

TEST(CardBandwidth, every_card_of_the_table_has_a_source_and_a_bandwidth_that_follows_from_rate_and_bus) {
  std::ifstream file(AIV_CARDS_FILE);
  ASSERT_TRUE(file.is_open());
  std::map<std::string, std::string> card;
  int cards = 0;
  const auto check = [&] {
    if (card.empty()) return;
    ++cards;
    SCOPED_TRACE(card["name"]);
    EXPECT_EQ(card.size(), 6U);
    const double from_bus = std::stod(card["rate_gbps"]) * std::stod(card["bus_bits"]) / 8;
    EXPECT_NEAR(std::stod(card["bandwidth_gb_s"]), from_bus, 0.006 * from_bus);
    const std::string name = card["name"].substr(1, card["name"].size() - 2);
    EXPECT_EQ(card_bandwidth_bytes_per_s(name), std::stoll(card["bandwidth_gb_s"]) * 1'000'000'000);
    EXPECT_GT(card["source"].size(), 20U);
    card.clear();
  };
  for (std::string line; std::getline(file, line);) {
    if (line == "[[card]]") check();
    const std::size_t equals = line.find(" = ");
    if (!line.starts_with("#") && equals != std::string::npos) card[line.substr(0, equals)] = line.substr(equals + 3);
  }
  check();
  EXPECT_GE(cards, 40);
}

class PrepareTest : public ::testing::Test {
 protected:
  PrepareTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "aiv-gpus-test-XXXXXX").string();
    dir_ = ::mkdtemp(pattern.data());
    options_ = {.dir = dir_ + "/gpus",
                .node = "n1",
                .gpus = {{.name = "GTX 1080", .vram_bytes = 8LL << 30}, {.name = "RX 580", .vram_bytes = 4LL << 30}},
                .shader_cache_dir = dir_ + "/cache"};
  }
  ~PrepareTest() override { std::filesystem::remove_all(dir_); }
  std::string dir_;
  SoftwareGpuOptions options_;
};

TEST_F(PrepareTest, devices_are_stable_over_restarts_and_distinct_between_nodes) {
  const auto first = SoftwareGpus::prepare(options_);
  ASSERT_TRUE(first.has_value()) << first.error().message();
  const auto again = SoftwareGpus::prepare(options_);
  ASSERT_TRUE(again.has_value()) << again.error().message();
  options_.node = "n2";
  options_.dir = dir_ + "/other";
  const auto other = SoftwareGpus::prepare(options_);
  ASSERT_TRUE(other.has_value()) << other.error().message();
  ASSERT_EQ((*first)->devices().size(), 2U);
  EXPECT_EQ((*first)->devices()[0].uuid, (*again)->devices()[0].uuid);
  EXPECT_NE((*first)->devices()[0].uuid, (*first)->devices()[1].uuid);
  EXPECT_NE((*first)->devices()[0].uuid, (*other)->devices()[0].uuid);
  EXPECT_EQ((*first)->devices()[0].bandwidth_bytes_per_s, 320'000'000'000);
}

TEST_F(PrepareTest, an_engine_is_told_of_exactly_its_own_devices) {
  const auto gpus = SoftwareGpus::prepare(options_);
  ASSERT_TRUE(gpus.has_value()) << gpus.error().message();
  const std::string second = (*gpus)->devices()[1].uuid;
  const auto environment = (*gpus)->environment_for({second});
  ASSERT_TRUE(environment.has_value());
  EXPECT_THAT(*environment, ::testing::Contains("AIV_VGPU_DEVICES=" + second));
  EXPECT_THAT(*environment, ::testing::Contains("VK_ICD_FILENAMES=" + options_.dir + "/icd0.json"));
  for (const char* name : {"AIV_VGPU_CONFIG=", "AIV_VGPU_STATE="}) {
    EXPECT_THAT(*environment, ::testing::Contains(::testing::StartsWith(name)));
  }
  const auto both = (*gpus)->environment_for({second, (*gpus)->devices()[0].uuid});
  ASSERT_TRUE(both.has_value());
  EXPECT_THAT(*both, ::testing::Contains("VK_ICD_FILENAMES=" + options_.dir + "/icd0.json:" + options_.dir +
                                         "/icd1.json"));
  EXPECT_EQ((*gpus)->environment_for({"00"}).error().code, ErrorCode::kNotFound);
  EXPECT_EQ((*gpus)->environment_for({second, second}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_FALSE((*gpus)->environment_for({}).has_value());
}

TEST_F(PrepareTest, each_further_device_of_a_process_has_a_driver_file_of_its_own) {
  const auto gpus = SoftwareGpus::prepare(options_);
  ASSERT_TRUE(gpus.has_value()) << gpus.error().message();
  const auto icd0 = read_file(options_.dir + "/icd0.json", 4096);
  const auto icd1 = read_file(options_.dir + "/icd1.json", 4096);
  ASSERT_TRUE(icd0.has_value() && icd1.has_value());
  EXPECT_NE(*icd0, *icd1);
  EXPECT_TRUE(std::filesystem::exists(options_.dir + "/libvulkan_lvp1.so"));
}

TEST_F(PrepareTest, foreign_use_is_seen_and_taken_back) {
  const auto gpus = SoftwareGpus::prepare(options_);
  ASSERT_TRUE(gpus.has_value()) << gpus.error().message();
  const std::string uuid = (*gpus)->devices()[0].uuid;
  ASSERT_TRUE((*gpus)->set_foreign(uuid, 3LL << 30, "student7"));
  const auto use = (*gpus)->use_of(uuid);
  ASSERT_TRUE(use.has_value());
  EXPECT_EQ(use->total_bytes, 3LL << 30);
  ASSERT_EQ(use->holders.size(), 1U);
  EXPECT_EQ(use->holders[0].label, "student7");
  EXPECT_EQ((*gpus)->use_of((*gpus)->devices()[1].uuid)->total_bytes, 0);
  const auto again = SoftwareGpus::prepare(options_);
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ((*again)->use_of(uuid)->total_bytes, 3LL << 30) << "an agent's restart keeps the accounts";
  ASSERT_TRUE((*gpus)->set_foreign(uuid, 0, "student7"));
  EXPECT_EQ((*gpus)->use_of(uuid)->total_bytes, 0);
  EXPECT_FALSE((*gpus)->set_foreign(uuid, -1, "x").has_value());
  EXPECT_EQ((*gpus)->use_of("ff").error().code, ErrorCode::kNotFound);
}

TEST_F(PrepareTest, a_missing_layer_and_a_folder_the_loader_cannot_be_told_of_are_named) {
  options_.layer_dir = dir_;
  auto refused = SoftwareGpus::prepare(options_);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(refused.error().message(), HasSubstr("libVkLayer_aiv_vgpu.so"));
  options_.layer_dir.clear();
  options_.dir = dir_ + "/a:b";
  refused = SoftwareGpus::prepare(options_);
  ASSERT_FALSE(refused.has_value());
  EXPECT_THAT(refused.error().message(), HasSubstr("':'"));
  options_.dir = dir_ + "/gpus";
  options_.gpus.clear();
  EXPECT_FALSE(SoftwareGpus::prepare(options_).has_value());
}

}  // namespace
}  // namespace aiv::node
