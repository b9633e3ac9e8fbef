#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

#include "base/units.hpp"
#include "node/gpu_nvml.hpp"
#include "node/gpu_sysfs.hpp"
#include "node/vulkan_probe.hpp"

namespace aiv::node {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kRx580 =
    "1\tdiscrete\t00112233445566778899aabbccddeeff\t0000:03:00.0\t4098\tAMD Radeon RX 580 Series (RADV "
    "POLARIS10)\t"
    "radv Mesa 22.3.6\t8589934592\t8000000000\t1\t4294967295\t4\t1\n";

TEST(VulkanProbe, ReadsWhatTheChildPrints) {
  const auto devices = parse_vulkan_probe(kRx580);
  ASSERT_TRUE(devices) << devices.error().message();
  ASSERT_EQ(devices->size(), 1U);
  const VulkanDevice& d = devices->front();
  EXPECT_EQ(d.index, 1);
  EXPECT_EQ(d.type, VulkanType::kDiscrete);
  EXPECT_EQ(d.uuid, "00112233445566778899aabbccddeeff");
  EXPECT_EQ(d.pci, "0000:03:00.0");
  EXPECT_EQ(d.total, 8 * kGiB);
  EXPECT_EQ(d.free, 8'000'000'000);
  EXPECT_TRUE(d.budget_known);
  EXPECT_EQ(d.max_storage_buffer_range, 4'294'967'295);
  EXPECT_EQ(d.alignment, 4);
  EXPECT_TRUE(d.usable);
}

TEST(VulkanProbe, AnythingElseIsRefusedWithItsLine) {
  EXPECT_TRUE(parse_vulkan_probe("")->empty());
  const std::string good(kRx580);
  for (std::size_t cut = 1; cut < good.size() - 1; ++cut) {
    const auto r = parse_vulkan_probe(good.substr(0, cut));
    if (good.substr(0, cut).ends_with("\t1")) continue;  // the last field whole
    EXPECT_FALSE(r) << cut;
  }
  EXPECT_EQ(parse_vulkan_probe(good + "ERROR: loader\n").error().where, "line 2");
  EXPECT_FALSE(parse_vulkan_probe(good.substr(0, good.size() - 1) + "\t9\n"));
  std::string negative = good;
  negative.replace(negative.find("8000000000"), 10, "-800000000");
  EXPECT_FALSE(parse_vulkan_probe(negative));
}

class Sysfs : public testing::Test {
 protected:
  Sysfs() {
    char path[] = "/tmp/aiv-sysfs-XXXXXX";
    EXPECT_NE(::mkdtemp(path), nullptr);
    root_ = path;
  }
  ~Sysfs() override { fs::remove_all(root_); }
  void put(const std::string& node, const std::string& file, const std::string& text) {
    const fs::path device = fs::path(root_) / "class/drm" / node / "device";
    fs::create_directories(device);
    std::ofstream(device / file) << text;
  }
  std::string root_;
};

TEST_F(Sysfs, AmdCardsAreReadWithoutRocm) {
  put("renderD129", "vendor", "0x1002\n");
  put("renderD129", "uevent", "DRIVER=amdgpu\nPCI_SLOT_NAME=0000:03:00.0\n");
  put("renderD129", "mem_info_vram_total", "8589934592\n");
  put("renderD129", "mem_info_vram_used", "25780224\n");
  put("renderD129", "mem_info_gtt_total", "8331067392\n");
  put("renderD128", "vendor", "0x10de\n");
  const auto gpus = amd_gpus(root_);
  ASSERT_EQ(gpus.size(), 1U);
  EXPECT_EQ(gpus[0].pci, "0000:03:00.0");
  EXPECT_EQ(gpus[0].render_node, "/dev/dri/renderD129");
  EXPECT_EQ(gpus[0].vram_total, 8 * kGiB);
  EXPECT_EQ(gpus[0].vram_used, 25'780'224);
  EXPECT_FALSE(gpus[0].apu);
}

TEST_F(Sysfs, AnApuIsKnownByItsSmallCarveOut) {
  put("renderD128", "vendor", "0x1002\n");
  put("renderD128", "mem_info_vram_total", "536870912\n");
  put("renderD128", "mem_info_gtt_total", "16000000000\n");
  ASSERT_EQ(amd_gpus(root_).size(), 1U);
  EXPECT_TRUE(amd_gpus(root_)[0].apu);
}

TEST_F(Sysfs, FiguresThatAreAbsentOrNonsenseStayEmpty) {
  put("renderD128", "vendor", "0x1002\n");
  put("renderD128", "mem_info_vram_total", "lots\n");
  ASSERT_EQ(amd_gpus(root_).size(), 1U);
  EXPECT_FALSE(amd_gpus(root_)[0].vram_total);
  EXPECT_FALSE(amd_gpus(root_)[0].vram_used);
  EXPECT_TRUE(amd_gpus(root_ + "/nowhere").empty());
}

TEST(NvmlLibrary, ACardIsReadThroughTheLibraryThatIsNamed) {
  ::setenv("AIV_NVML_PATH", AIV_FAKE_NVML, 1);
  const auto nvml = Nvml::open();
  ASSERT_TRUE(nvml) << nvml.error().message();
  const NvmlReport report = (*nvml)->read();
  EXPECT_EQ(report.driver, "535.247.01");
  ASSERT_EQ(report.gpus.size(), 1U);
  const NvmlGpu& gpu = report.gpus[0];
  EXPECT_EQ(gpu.uuid, "GPU-6ba7b810-9dad-11d1-80b4-00c04fd430c8");
  EXPECT_EQ(gpu.pci, "0000:0a:00.0") << "as the kernel and Vulkan write it";
  EXPECT_EQ(gpu.total, 12 * kGiB);
  EXPECT_EQ(gpu.free, 9 * kGiB);
  EXPECT_TRUE(gpu.processes_known);
  EXPECT_THAT(gpu.processes, testing::ElementsAre(testing::Pair(4711, kGiB)));
  EXPECT_FALSE(gpu.compute_capability) << "a function that is missing leaves its figure empty";
}

TEST(NvmlLibrary, WithoutADriverThereIsNone) {
  ::setenv("AIV_NVML_PATH", "/nowhere/libnvidia-ml.so.1", 1);
  EXPECT_EQ(Nvml::open().error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace aiv::node
