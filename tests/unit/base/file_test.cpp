#include "base/file.hpp"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>

namespace aiv {
namespace {

class FileTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_NE(mkdtemp(path_.data()), nullptr); }
  void TearDown() override { std::filesystem::remove_all(path_); }
  std::string path_ = "/tmp/aiv-file-test-XXXXXX";
};

TEST_F(FileTest, ADurableWriteReplacesTheWholeFileAndKeepsItsMode) {
  const std::string file = path_ + "/state";
  ASSERT_TRUE(write_file_durably(file, "one", 0600));
  ASSERT_TRUE(write_file_durably(file, "two", 0600));
  EXPECT_EQ(read_file(file, 100).value(), "two");
  struct stat info{};
  ASSERT_EQ(::stat(file.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0600U);
}

TEST_F(FileTest, AFileOverItsBoundIsRefused) {
  ASSERT_TRUE(write_file_durably(path_ + "/big", std::string(1000, 'x')));
  EXPECT_EQ(read_file(path_ + "/big", 999).error().code, ErrorCode::kTooLarge);
  EXPECT_EQ(read_file(path_ + "/none", 10).error().code, ErrorCode::kNotFound);
}

TEST_F(FileTest, DirectoriesAreMadeDownToTheLast) {
  EXPECT_TRUE(make_directories(path_ + "/a/b/c"));
  EXPECT_TRUE(make_directories(path_ + "/a/b/c"));
  ASSERT_TRUE(write_file_durably(path_ + "/f", ""));
  EXPECT_FALSE(make_directories(path_ + "/f/x"));
}

}  // namespace
}  // namespace aiv
