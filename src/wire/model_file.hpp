// A model on disk: what its header says, from one file or from all parts of a split one.
#pragma once
#include <string>

#include "base/file_source.hpp"
#include "base/result.hpp"
#include "core/vram.hpp"

namespace aiv {

// An open file as core's parsers see it. Does not own the file.
class FileSource final : public ByteSource {
 public:
  explicit FileSource(const FileHandle& file) : file_(file) {}
  [[nodiscard]] std::uint64_t size() const override { return file_.size(); }
  Result<> read(std::uint64_t offset, std::span<std::byte> out) override { return file_.read(offset, out); }

 private:
  const FileHandle& file_;
};

// Reads headers only: milliseconds, whatever the size of the model. kNotFound if the file or one of its parts
// is not there; otherwise the errors of read_gguf and model_facts, with the path in front of `where`.
Result<ModelFacts> read_model_file(const std::string& path);

}  // namespace aiv
