#include "vgpu/config.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace aiv::vgpu {
namespace {

DeviceConfig gpu(const char* uuid, const char* name) {
  return {.uuid = parse_uuid(uuid).value(),
          .vram_bytes = 8ULL << 30,
          .max_storage_buffer_range = 2147483647U,
          .name = name};
}

const std::vector<DeviceConfig> kTwo = {gpu("000000000000000000000000000000a1", "GTX 1080, \"Founders\" 8:GB"),
                                        gpu("000000000000000000000000000000a2", "RX 580")};

TEST(VgpuConfig, names_with_commas_quotes_and_colons_come_back_as_written) {
  const auto parsed = parse_config(format_config(kTwo));
  ASSERT_TRUE(parsed.has_value()) << parsed.error().message();
  EXPECT_EQ(*parsed, kTwo);
}

TEST(VgpuConfig, a_selection_picks_devices_in_its_own_order) {
  EXPECT_EQ(select_devices(kTwo, "").value(), kTwo);
  const auto swapped = select_devices(kTwo, "000000000000000000000000000000a2,000000000000000000000000000000a1");
  ASSERT_TRUE(swapped.has_value());
  EXPECT_EQ(swapped->at(0).name, "RX 580");
  EXPECT_EQ(swapped->size(), 2U);
  const auto unknown = select_devices(kTwo, "000000000000000000000000000000a3");
  ASSERT_FALSE(unknown.has_value());
  EXPECT_EQ(unknown.error().code, ErrorCode::kNotFound);
  EXPECT_FALSE(select_devices(kTwo, "a1").has_value());
}

TEST(VgpuConfig, each_defect_is_named_with_its_line) {
  const std::string head = "aiv-vgpu-config 1\n";
  const std::string good = "device\t000000000000000000000000000000a1\t1024\t0\tX\n";
  const auto where = [](const std::string& text) {
    const auto parsed = parse_config(text);
    return parsed ? std::string("no error") : parsed.error().where;
  };
  EXPECT_EQ(where(""), "line 1");
  EXPECT_EQ(where("aiv-vgpu-config 2\n" + good), "line 1");
  EXPECT_EQ(where(head + good + "gpu\tx\n"), "line 3");
  EXPECT_EQ(where(head + "device\txyz\t1024\t0\tX\n"), "line 2");
  EXPECT_EQ(where(head + "device\t000000000000000000000000000000a1\t10k\t0\tX\n"), "line 2");
  EXPECT_EQ(where(head + "device\t000000000000000000000000000000a1\t1024\t4294967296\tX\n"), "line 2");
  EXPECT_EQ(where(head + "device\t000000000000000000000000000000a1\t1024\t0\t\n"), "line 2");
  EXPECT_EQ(where(head + "device\t000000000000000000000000000000a1\t1024\t0\t" + std::string(256, 'n') + "\n"),
            "line 2");
  EXPECT_EQ(where(head + good + good), "line 3") << "one uuid twice";
  EXPECT_FALSE(parse_config(head).has_value()) << "no device at all";
}

}  // namespace
}  // namespace aiv::vgpu
