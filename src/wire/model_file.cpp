#include "wire/model_file.hpp"

#include <deque>
#include <vector>

namespace aiv {
namespace {

std::unexpected<Error> at(Error error, const std::string& path) {
  if (error.where != path) error.where = error.where.empty() ? path : path + ": " + error.where;
  return std::unexpected(std::move(error));
}

}  // namespace

Result<ModelFacts> read_model_file(const std::string& path) {
  const Result<std::vector<std::string>> paths = gguf_part_paths(path);
  if (!paths) return std::unexpected(paths.error());
  std::deque<FileHandle> files;
  std::deque<FileSource> sources;
  std::vector<ByteSource*> parts;
  for (const std::string& part : *paths) {
    Result<FileHandle> file = FileHandle::open(part);
    if (!file) return std::unexpected(file.error());
    sources.emplace_back(files.emplace_back(std::move(*file)));
    parts.push_back(&sources.back());
  }
  const Result<GgufHeader> header = read_gguf_parts(parts);
  if (!header) return at(header.error(), path);
  Result<ModelFacts> facts = model_facts(*header);
  if (!facts) return at(facts.error(), path);
  return facts;
}

}  // namespace aiv
