#include "options.hpp"

#include <array>
#include <charconv>
#include <fstream>
#include <functional>
#include <map>
#include <string_view>

namespace aiv::fake {
namespace {

constexpr int kLayers = 24;  // of every fake model, for the log's words about layers

Result<std::int64_t> to_integer(const std::string& text, std::int64_t min, std::int64_t max) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value < min || value > max)
    return fail(ErrorCode::kInvalidArgument, "invalid value '" + text + "'");
  return value;
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const auto end = text.find(separator);
    parts.emplace_back(text.substr(0, end));
    text = end == std::string_view::npos ? std::string_view{} : text.substr(end + 1);
  }
  return parts;
}

Result<> set_integer(int& target, const std::string& value, std::int64_t min, std::int64_t max) {
  auto number = to_integer(value, min, max);
  if (!number) return std::unexpected(number.error());
  target = static_cast<int>(*number);
  return {};
}

Result<> set_model(Options& o, const std::string& value) {
  auto model = parse_fake_model(value);
  if (!model) return std::unexpected(model.error());
  o.model = std::move(*model);
  o.model_path = value;
  return {};
}

Result<> set_devices(Options& o, const std::string& value) {
  if (value != "none") o.devices = split(value, ',');
  return {};
}

Result<> set_gpu_layers(Options& o, const std::string& value) {
  if (value == "all" || value == "auto") return {};
  auto done = set_integer(o.gpu_layers, value, -1, 1'000'000);
  if (o.gpu_layers > kLayers) o.gpu_layers = -1;
  return done;
}

Result<> set_override(Options& o, const std::string& value) {
  for (const auto& part : split(value, ',')) {
    if (part.ends_with("=CPU"))
      o.tensors_on_cpu = true;
    else if (part.starts_with("token_embd.weight="))
      o.token_embd_on_device = true;
    else
      return fail(ErrorCode::kInvalidArgument,
                  "the fake engine knows only token_embd.weight=DEV and ...=CPU");
  }
  return {};
}

Result<> set_api_key_file(Options& o, const std::string& path) {
  std::ifstream file(path);
  if (!file || !std::getline(file, o.api_key) || o.api_key.empty())
    return fail(ErrorCode::kInvalidArgument, "cannot read a key from '" + path + "'");
  return {};
}

using Setter = std::function<Result<>(Options&, const std::string&)>;

Setter integer_setter(int Options::* member, std::int64_t min, std::int64_t max) {
  return [=](Options& o, const std::string& value) { return set_integer(o.*member, value, min, max); };
}

Setter string_setter(std::string Options::* member) {
  return [=](Options& o, const std::string& value) -> Result<> {
    o.*member = value;
    return {};
  };
}

Result<> ignore_value(Options&, const std::string&) {
  return {};
}

Result<> set_ctx(Options& o, const std::string& value) {
  auto number = to_integer(value, 1, std::int64_t{1} << 32);
  if (!number) return std::unexpected(number.error());
  o.ctx = *number;
  return {};
}

const std::map<std::string, Setter, std::less<>>& value_flags() {
  static const std::map<std::string, Setter, std::less<>> flags = {
      {"-m", set_model},
      {"--model", set_model},
      {"--host", string_setter(&Options::socket_path)},
      {"--alias", string_setter(&Options::alias)},
      {"-a", string_setter(&Options::alias)},
      {"-dev", set_devices},
      {"--device", set_devices},
      {"-ngl", set_gpu_layers},
      {"-c", set_ctx},
      {"--ctx-size", set_ctx},
      {"-np", integer_setter(&Options::slots, 1, kSlotsMax)},
      {"--parallel", integer_setter(&Options::slots, 1, kSlotsMax)},
      {"-ub", integer_setter(&Options::ubatch, 1, 65'536)},
      {"-lv", integer_setter(&Options::verbosity, 0, 100)},
      {"--log-file", string_setter(&Options::log_file)},
      {"--api-key-file", set_api_key_file},
      {"-ot", set_override},
      {"--fit", ignore_value},
      {"-sm", ignore_value},
      {"-ts", ignore_value},
      {"-fa", ignore_value},
      {"-b", ignore_value},
      {"-ctk", ignore_value},
      {"-ctv", ignore_value},
      {"-t", ignore_value},
      {"-tb", ignore_value},
      {"--threads-http", ignore_value},
      {"--cache-ram", ignore_value},
      {"--ctx-checkpoints", ignore_value},
      {"--pooling", ignore_value},
      {"--cors-origins", ignore_value},
      {"--timeout", ignore_value},
      {"--sse-ping-interval", ignore_value},
  };
  return flags;
}

bool apply_switch(Options& o, const std::string& flag) {
  if (flag == "--kv-unified")
    o.kv_unified = true;
  else if (flag == "--no-kv-unified")
    o.kv_unified = false;
  else if (flag == "-kvo")
    o.kv_offload = true;
  else if (flag == "-nkvo")
    o.kv_offload = false;
  else if (flag == "--metrics")
    o.metrics = true;
  else if (flag == "--slots")
    o.slots_endpoint = true;
  else if (flag == "--embeddings")
    o.embeddings = true;
  else if (flag == "--rerank")
    o.rerank = true;
  else
    return flag == "--no-ui" || flag == "--offline" || flag == "--no-warmup" || flag == "--jinja" ||
           flag == "--no-log-colors" || flag == "--no-context-shift";
  return true;
}

}  // namespace

Result<CommandLine> parse_command_line(const std::vector<std::string>& arguments) {
  CommandLine line;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const auto& flag = arguments[i];
    if (flag == "--version")
      line.verb = Verb::kVersion;
    else if (flag == "--list-devices")
      line.verb = Verb::kListDevices;
    else if (flag == "-h" || flag == "--help")
      line.verb = Verb::kHelp;
    else if (apply_switch(line.options, flag))
      continue;
    else {
      const auto found = value_flags().find(flag);
      if (found == value_flags().end()) return fail(ErrorCode::kInvalidArgument, "invalid argument: " + flag);
      if (++i == arguments.size())
        return fail(ErrorCode::kInvalidArgument, "expected value for argument: " + flag);
      auto done = found->second(line.options, arguments[i]);
      if (!done)
        return fail(done.error().code,
                    "error while handling argument \"" + flag + "\": " + done.error().message());
    }
  }
  if (line.verb != Verb::kServe) return line;
  if (line.options.model_path.empty())
    return fail(ErrorCode::kInvalidArgument, "the fake engine needs -m fake:NAME");
  if (line.options.socket_path.empty() || line.options.socket_path.front() != '/')
    return fail(ErrorCode::kInvalidArgument,
                "the fake engine needs --host with the absolute path of a Unix socket");
  if (line.options.model.kind == ModelKind::kEmbedding) line.options.embeddings = true;
  if (line.options.model.kind == ModelKind::kRerank) line.options.rerank = true;
  return line;
}

}  // namespace aiv::fake
