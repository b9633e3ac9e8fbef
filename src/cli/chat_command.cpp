#include <unistd.h>

#include <iostream>
#include <iterator>

#include "base/units.hpp"
#include "cli/api_client.hpp"
#include "cli/commands.hpp"

namespace aiv::cli {
namespace {

struct ChatOptions {
  ServerOptions server;
  std::string model;
  std::vector<std::string> prompt;
  std::string system;
  int max_tokens = 0;
};

// Streams one answer to stdout; returns its text, or why it is not whole.
Result<std::string> answer(const ApiClient& api, const ChatOptions& options, const Json& messages) {
  Json request{{"model", options.model}, {"messages", messages}, {"stream", true}};
  if (options.max_tokens > 0) request["max_tokens"] = options.max_tokens;
  std::string text;
  Error failure{ErrorCode::kInternal, ""};
  bool complete = false;
  const auto ended = api.stream("POST", "/v1/chat/completions", request, [&](const std::string& data) {
    if (data == "[DONE]") {
      complete = true;
      return false;
    }
    const auto event = parse_json(data);
    if (!event || !event->is_object()) return true;
    if (event->contains("error")) {
      failure.reason = (*event)["error"].value("message", "the server reported an error");
      return false;
    }
    for (const Json& choice : event->value("choices", Json::array())) {
      const Json delta = choice.value("delta", Json::object());
      if (!delta.contains("content") || !delta["content"].is_string()) continue;
      const auto piece = delta["content"].get<std::string>();
      text += piece;
      print(piece);
    }
    return true;
  });
  if (!ended) return std::unexpected(ended.error());
  if (!failure.reason.empty()) return std::unexpected(failure);
  if (!complete) return fail(ErrorCode::kInternal, "the answer broke off");
  return text;
}

// The deployment to talk to when none was named: the first chat model that the server lists.
Result<std::string> first_model(const ApiClient& api) {
  const auto models = api.call("GET", "/v1/models");
  if (!models) return std::unexpected(models.error());
  for (const Json& model : models->value("data", Json::array())) return model.value("id", "");
  return fail(ErrorCode::kNotFound, "nothing is deployed that you may use\n  try: aiv up FILE.gguf");
}

int run_chat(ChatOptions options) {
  const auto api = ApiClient::connect(options.server);
  if (!api) return report(api.error());
  if (options.model.empty()) {
    const auto model = first_model(*api);
    if (!model) return report(model.error());
    options.model = *model;
  }
  Json messages = Json::array();
  if (!options.system.empty()) messages.push_back({{"role", "system"}, {"content", options.system}});
  std::string prompt;
  for (const std::string& word : options.prompt) prompt += (prompt.empty() ? "" : " ") + word;
  const bool interactive = prompt.empty() && ::isatty(STDIN_FILENO) == 1;
  if (prompt.empty() && !interactive) {
    prompt.assign(std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>());
    if (prompt.empty()) {
      std::cerr << "aiv: nothing to say: give a prompt as an argument or on stdin\n";
      return static_cast<int>(ExitCode::kUsage);
    }
  }
  if (!interactive) {
    messages.push_back({{"role", "user"}, {"content", prompt}});
    const auto text = answer(*api, options, messages);
    print("\n");
    return text ? 0 : report(text.error());
  }
  std::cerr << "Chat with " << options.model << "; an empty line or Ctrl-D ends it.\n";
  for (std::string line; std::cerr << "> " << std::flush && std::getline(std::cin, line) && !line.empty();) {
    messages.push_back({{"role", "user"}, {"content", line}});
    const auto text = answer(*api, options, messages);
    print("\n");
    if (!text) {
      const int code = report(text.error());
      if (text.error().code != ErrorCode::kInternal) return code;
      messages.erase(messages.size() - 1);
      continue;
    }
    messages.push_back({{"role", "assistant"}, {"content", *text}});
  }
  return 0;
}

}  // namespace

void add_chat_command(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<ChatOptions>();
  CLI::App* verb = app.add_subcommand("chat", "Talk to a deployment");
  verb->add_option("model", options->model, "Deployment (default: the first that is listed)");
  verb->add_option("prompt", options->prompt, "One question; without it, a conversation (or the question on stdin)");
  verb->add_option("--system", options->system, "System message");
  verb->add_option("--max-tokens", options->max_tokens, "Limit of the answer")->check(CLI::Range(1, 1 << 20));
  add_server_options(*verb, options->server);
  verb->callback([options, &exit_code] { exit_code = run_chat(*options); });
}

}  // namespace aiv::cli
