// Every parameter of the APIs' requests has one of three fates: it reaches the engine, it is honoured by the
// gateway or means nothing to an answer, or it is refused by name in the family's own form. None is silently
// forgotten.
#include <gtest/gtest.h>

#include "base/json.hpp"
#include "gateway/api/anthropic.hpp"
#include "gateway/api/family.hpp"
#include "gateway/api/ollama.hpp"
#include "gateway/api/responses.hpp"
#include "gateway/openai_parse.hpp"

namespace aiv::gateway {
namespace {

enum class Fate { kPassed, kOurs, kRefused };

struct Parameter {
  const char* name;
  const char* value;
  Fate fate;
};

// OpenAI's API reference, "Create chat completion", the deprecated ones included.
constexpr Parameter kChat[] = {
    {"audio", R"({"voice":"ash","format":"mp3"})", Fate::kRefused},
    {"audio", "null", Fate::kOurs},
    {"frequency_penalty", "0.5", Fate::kPassed},
    {"function_call", R"("auto")", Fate::kRefused},
    {"functions", R"([{"name":"f"}])", Fate::kRefused},
    {"functions", "[]", Fate::kOurs},
    {"logit_bias", R"({"42":-100})", Fate::kPassed},
    {"logprobs", "true", Fate::kPassed},
    {"max_completion_tokens", "7", Fate::kOurs},
    {"max_tokens", "7", Fate::kOurs},
    {"metadata", R"({"a":"b"})", Fate::kOurs},
    {"modalities", R"(["text"])", Fate::kOurs},
    {"modalities", R"(["text","audio"])", Fate::kRefused},
    {"n", "1", Fate::kOurs},
    {"n", "2", Fate::kRefused},
    {"n", "0", Fate::kRefused},
    {"parallel_tool_calls", "false", Fate::kPassed},
    {"prediction", R"({"type":"content","content":"x"})",
     Fate::kOurs},  // makes an answer faster, not another one
    {"presence_penalty", "0.5", Fate::kPassed},
    {"prompt_cache_key", R"("k")", Fate::kOurs},
    {"prompt_cache_retention", R"("24h")", Fate::kOurs},
    {"reasoning_effort", R"("low")", Fate::kPassed},
    {"reasoning_effort", R"("enormous")", Fate::kRefused},
    {"response_format", R"({"type":"json_object"})", Fate::kPassed},
    {"response_format", R"({"type":"json_schema","json_schema":{"name":"x","schema":{"type":"object"}}})",
     Fate::kPassed},
    {"safety_identifier", R"("s")", Fate::kOurs},
    {"seed", "42", Fate::kPassed},
    {"service_tier", R"("flex")", Fate::kOurs},
    {"stop", R"(["a","b"])", Fate::kPassed},
    {"store", "false", Fate::kOurs},
    {"stream", "true", Fate::kOurs},
    {"stream_options", R"({"include_usage":true,"include_obfuscation":true})", Fate::kOurs},
    {"temperature", "0.1", Fate::kPassed},
    {"tool_choice", R"("required")", Fate::kPassed},
    {"tool_choice", R"({"type":"custom","custom":{"name":"x"}})", Fate::kRefused},
    {"tools", R"([{"type":"function","function":{"name":"f"}}])", Fate::kPassed},
    {"tools", R"([{"type":"custom","custom":{"name":"f"}}])", Fate::kRefused},
    {"top_logprobs", "3", Fate::kPassed},
    {"top_p", "0.9", Fate::kPassed},
    {"user", R"("u")", Fate::kOurs},
    {"verbosity", R"("low")", Fate::kOurs},
    {"web_search_options", R"({"search_context_size":"low"})", Fate::kRefused},
    {"web_search_options", "{}", Fate::kOurs},
};

constexpr Parameter kCompletion[] = {
    {"best_of", "1", Fate::kOurs},
    {"best_of", "3", Fate::kRefused},
    {"echo", "false", Fate::kOurs},
    {"echo", "true", Fate::kRefused},
    {"n", "3", Fate::kRefused},
    {"suffix", "\"\"", Fate::kOurs},
    {"suffix", R"("end")", Fate::kRefused},
    {"logprobs", "2", Fate::kPassed},
    {"stop", R"("a")", Fate::kPassed},
    {"seed", "1", Fate::kPassed},
    {"temperature", "1", Fate::kPassed},
    {"user", R"("u")", Fate::kOurs},
};

void check(const Parameter& p, std::string base, Endpoint endpoint) {
  SCOPED_TRACE(std::string(p.name) + "=" + p.value);
  std::string body = "{" + base + ",\"" + p.name + "\":" + p.value + "}";
  const auto request = parse_openai_request(endpoint, body);
  if (p.fate == Fate::kRefused) {
    ASSERT_FALSE(request);
    EXPECT_EQ(request.error().status, 400);
    EXPECT_TRUE(request.error().param.starts_with(p.name)) << request.error().param;
    EXPECT_NE(request.error().message.find(p.name), std::string::npos) << request.error().message;
    return;
  }
  ASSERT_TRUE(request) << request.error().message;
  // As the engine has it, without what the gateway writes there itself.
  const auto sent = parse_json(request->body + "}");
  ASSERT_TRUE(sent) << request->body;
  EXPECT_EQ(sent->contains(p.name), p.fate == Fate::kPassed) << request->body;
  if (p.fate == Fate::kPassed) {
    EXPECT_EQ((*sent)[p.name], *parse_json(p.value));
  }
}

TEST(Parameters, EachOneOfTheChatApiIsPassedHonouredOrRefused) {
  for (const Parameter& p : kChat)
    check(p, R"("model":"m","messages":[{"role":"user","content":"hi"}])", Endpoint::kChat);
}

TEST(Parameters, EachOneOfTheCompletionApiIsPassedHonouredOrRefused) {
  for (const Parameter& p : kCompletion) check(p, R"("model":"m","prompt":"hi")", Endpoint::kCompletion);
}

struct Foreign {
  Translation (*translate)(std::string_view, const TranslationContext&);
  ApiFamily family;
  const char* base;
  const char* name;
  const char* value;
  bool refused;
};

constexpr const char* kInput = R"("model":"m","input":"hi")";
constexpr const char* kMessages = R"("model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}])";
constexpr const char* kPrompt = R"("model":"m","prompt":"hi")";

constexpr Foreign kForeign[] = {
    {translate_responses, ApiFamily::kOpenAi, kInput, "background", "true", true},
    {translate_responses, ApiFamily::kOpenAi, kInput, "background", "false", false},
    {translate_responses, ApiFamily::kOpenAi, kInput, "conversation", R"("conv_1")", true},
    {translate_responses, ApiFamily::kOpenAi, kInput, "include", R"(["message.output_text.logprobs"])", true},
    {translate_responses, ApiFamily::kOpenAi, kInput, "include", R"(["reasoning.encrypted_content"])", false},
    {translate_responses, ApiFamily::kOpenAi, kInput, "previous_response_id", R"("resp_1")", true},
    {translate_responses, ApiFamily::kOpenAi, kInput, "prompt", R"({"id":"pmpt_1"})", true},
    {translate_responses, ApiFamily::kOpenAi, kInput, "store", "true", false},
    {translate_responses, ApiFamily::kOpenAi, kInput, "tools", R"([{"type":"web_search"}])", true},
    {translate_responses, ApiFamily::kOpenAi, kInput, "top_logprobs", "4", true},
    {translate_responses, ApiFamily::kOpenAi, kInput, "top_logprobs", "0", false},
    {translate_anthropic, ApiFamily::kAnthropic, kMessages, "container", R"("c")", true},
    {translate_anthropic, ApiFamily::kAnthropic, kMessages, "mcp_servers",
     R"([{"type":"url","url":"https://x"}])", true},
    {translate_anthropic, ApiFamily::kAnthropic, kMessages, "mcp_servers", "[]", false},
    {translate_anthropic, ApiFamily::kAnthropic, kMessages, "metadata", R"({"user_id":"u"})", false},
    {translate_anthropic, ApiFamily::kAnthropic, kMessages, "tools",
     R"([{"type":"computer_20250124","name":"c"}])", true},
    {translate_ollama_generate, ApiFamily::kOllama, kPrompt, "context", "[1,2,3]", true},
    {translate_ollama_generate, ApiFamily::kOllama, kPrompt, "context", "[]", false},
    {translate_ollama_generate, ApiFamily::kOllama, kPrompt, "keep_alive", R"("5m")", false},
    {translate_ollama_generate, ApiFamily::kOllama, kPrompt, "logprobs", "true", true},
    {translate_ollama_generate, ApiFamily::kOllama, kPrompt, "options", R"({"mirostat":2})", true},
    {translate_ollama_generate, ApiFamily::kOllama, kPrompt, "options", R"({"mirostat":0,"num_ctx":4096})",
     false},
    {translate_ollama_generate, ApiFamily::kOllama, kPrompt, "suffix", R"("x")", true},
    {translate_ollama_generate, ApiFamily::kOllama, kPrompt, "template", R"("{{ .Prompt }}")", true},
    {translate_ollama_generate, ApiFamily::kOllama, R"("model":"m","prompt":"hi","raw":true)", "format",
     R"("json")", true},
    {translate_ollama_chat, ApiFamily::kOllama, kMessages, "top_logprobs", "2", true},
    {translate_ollama_chat, ApiFamily::kOllama, kMessages, "format", R"("xml")", true},
};

TEST(Parameters, WhatAnotherFamilyAsksAndNobodyCanDoIsRefusedInItsOwnForm) {
  const TranslationContext context{.request_id = "req-1", .unix_ms = [] { return std::int64_t{1}; }};
  for (const Foreign& p : kForeign) {
    SCOPED_TRACE(std::string(p.name) + "=" + p.value);
    const auto translated =
        p.translate(std::string("{") + p.base + ",\"" + p.name + "\":" + p.value + "}", context);
    ASSERT_EQ(!translated, p.refused);
    if (translated) continue;
    EXPECT_EQ(translated.error().status, 400);
    EXPECT_TRUE(translated.error().param.starts_with(p.name)) << translated.error().param;
    const auto body = parse_json(error_body(p.family, translated.error(), "req-1"));
    ASSERT_TRUE(body);
    const std::string message = p.family == ApiFamily::kOllama
                                    ? (*body)["error"].get<std::string>()
                                    : (*body)["error"]["message"].get<std::string>();
    EXPECT_NE(message.find(p.name), std::string::npos) << message;
    if (p.family == ApiFamily::kAnthropic) {
      EXPECT_EQ((*body)["error"]["type"], "invalid_request_error");
    }
    if (p.family == ApiFamily::kOpenAi) {
      EXPECT_TRUE((*body)["error"]["param"].get<std::string>().starts_with(p.name));
    }
  }
}

TEST(Parameters, TheEffortOfReasoningReachesTheEngineFromTheResponsesApiToo) {
  const TranslationContext context{.request_id = "req-1", .unix_ms = [] { return std::int64_t{1}; }};
  auto translated = translate_responses(
      R"({"model":"m","input":"hi","reasoning":{"effort":"high","summary":null}})", context);
  ASSERT_TRUE(translated);
  const auto request = parse_openai_request(translated->endpoint, translated->body);
  ASSERT_TRUE(request) << request.error().message;
  EXPECT_NE(request->body.find(R"("reasoning_effort":"high")"), std::string::npos) << request->body;
}

}  // namespace
}  // namespace aiv::gateway
