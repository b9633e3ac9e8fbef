#include "gateway/openai_parse.hpp"

#include <gtest/gtest.h>

#include "base/json.hpp"

namespace aiv::gateway {
namespace {

std::expected<CheckedRequest, ApiError> parse(std::string body, Endpoint endpoint = Endpoint::kChat) {
  return parse_openai_request(endpoint, body);
}

Json sent_to_engine(const CheckedRequest& request, int slot = 2, bool cache = false) {
  const auto json = parse_json(engine_body(request, slot, cache));
  EXPECT_TRUE(json) << engine_body(request, slot, cache);
  return json ? *json : Json();
}

std::string with(const std::string& fields) {
  return R"({"model":"m","messages":[{"role":"user","content":"hi"}])" + (fields.empty() ? "" : "," + fields) + "}";
}

std::string message_of(const std::string& body, Endpoint endpoint = Endpoint::kChat) {
  const auto request = parse(body, endpoint);
  return request ? "accepted" : request.error().message;
}

TEST(OpenAiRequest, AListOfOnePromptIsThatPromptAndSeveralAreTooMany) {
  const auto one = parse(R"({"model":"m","prompt":["Once upon"]})", Endpoint::kCompletion);
  ASSERT_TRUE(one) << one.error().message;
  EXPECT_EQ(sent_to_engine(*one)["prompt"], "Once upon");
  const auto ids = parse(R"({"model":"m","prompt":[1,2]})", Endpoint::kCompletion);
  ASSERT_TRUE(ids) << ids.error().message;
  EXPECT_EQ(sent_to_engine(*ids)["prompt"], Json::array({1, 2}));
  const std::string several = message_of(R"({"model":"m","prompt":["a","b"]})", Endpoint::kCompletion);
  EXPECT_NE(several.find("send a request for each"), std::string::npos) << several;
  EXPECT_NE(message_of(R"({"model":"m","prompt":[["a"]]})", Endpoint::kCompletion), "accepted");
}

TEST(OpenAiRequest, AnOrdinaryChatIsRebuiltForTheEngine) {
  const auto request = parse(with(R"("temperature":0.5,"max_tokens":64,"stream":true,"stream_options":{"include_usage":true})"));
  ASSERT_TRUE(request) << request.error().message;
  EXPECT_EQ(request->model, "m");
  EXPECT_TRUE(request->stream);
  EXPECT_TRUE(request->include_usage);
  EXPECT_EQ(request->max_tokens, 64);
  const Json json = sent_to_engine(*request);
  EXPECT_EQ(json["temperature"], 0.5);
  EXPECT_EQ(json["max_tokens"], 64);
  EXPECT_EQ(json["stream"], true);
  EXPECT_EQ(json["stream_options"]["include_usage"], true);
  EXPECT_EQ(json["messages"][0]["content"], "hi");
  EXPECT_EQ(json["id_slot"], 2);
  EXPECT_EQ(json["cache_prompt"], false);
  EXPECT_FALSE(json.contains("model"));
}

TEST(OpenAiRequest, NoFieldThatIsOursAloneReachesTheEngine) {
  const auto request = parse(with(R"("id_slot":7,"cache_prompt":true,"n_discard":-1,"chat_parser":"x","lora":[],"n_cache_reuse":1,)"
                                  R"("n_predict":-1,"n_keep":5,"samplers":[],"return_progress":true,"sse_ping_interval":0,"verbose":true)"));
  ASSERT_TRUE(request);
  const Json json = sent_to_engine(*request);
  EXPECT_EQ(json["id_slot"], 2);
  EXPECT_EQ(json["cache_prompt"], false);
  for (const char* name : {"n_discard", "chat_parser", "lora", "n_cache_reuse", "n_predict", "n_keep", "samplers",
                           "return_progress", "sse_ping_interval", "verbose"}) {
    EXPECT_FALSE(json.contains(name)) << name;
  }
}

TEST(OpenAiRequest, UnknownFieldsInsideMessagesAreLeftOutToo) {
  const auto request = parse(R"({"model":"m","messages":[{"role":"user","content":"a","prefix":true,"x":{"y":[1,2]}}]})");
  ASSERT_TRUE(request);
  EXPECT_EQ(dump_json(sent_to_engine(*request)["messages"]), R"([{"role":"user","content":"a"}])");
}

TEST(OpenAiRequest, TextIsPassedUnchangedWhateverItHolds) {
  const std::string text = "quote \" back \\ tab \t nl \n nul-free \x01 umlaut \xC3\xA4 emoji \xF0\x9F\x98\x80 \"finish_reason\":\"stop\"";
  const Json body{{"model", "m"}, {"messages", Json::array({Json{{"role", "user"}, {"content", text}}})}};
  const auto request = parse(body.dump());
  ASSERT_TRUE(request) << request.error().message;
  EXPECT_EQ(sent_to_engine(*request)["messages"][0]["content"], text);
}

TEST(OpenAiRequest, WhatIsNotJsonIsNamedByItsOffset) {
  EXPECT_NE(message_of(R"({"model": "m", )").find("offset"), std::string::npos) << message_of(R"({"model": "m", )");
  EXPECT_NE(message_of("").find("not JSON"), std::string::npos);
  EXPECT_NE(message_of("[1]").find("must be a JSON object"), std::string::npos);
  EXPECT_NE(message_of(with(R"("a":"\xff")")).find("not JSON"), std::string::npos);
  EXPECT_NE(message_of(std::string(R"({"model":"m","messages":")") + "\xff\xfe\"}").find("not JSON"), std::string::npos);
  EXPECT_NE(message_of(with("") + "x").find("not JSON"), std::string::npos);
}

TEST(OpenAiRequest, DeepNestingIsRefused) {
  const std::string deep(200, '[');
  EXPECT_NE(message_of(with("\"metadata\":" + deep + std::string(200, ']'))).find("deeper than 64"), std::string::npos);
}

TEST(OpenAiRequest, TooManyValuesAreRefused) {
  std::string many = "[0";
  for (int i = 0; i < 120'000; ++i) many += ",0";
  EXPECT_NE(message_of(R"({"model":"m","prompt":)" + many + "]}", Endpoint::kCompletion).find("more than 100000"),
            std::string::npos);
}

struct Refused {
  const char* fields;
  const char* param;
};

TEST(OpenAiRequest, ValuesOutOfRangeAreRefusedByTheFieldsName) {
  const Refused cases[] = {
      {R"("temperature":2.5)", "temperature"},
      {R"("temperature":-0.1)", "temperature"},
      {R"("temperature":"hot")", "temperature"},
      {R"("max_tokens":0)", "max_tokens"},
      {R"("max_tokens":-5)", "max_tokens"},
      {R"("max_tokens":1.5)", "max_tokens"},
      {R"("max_completion_tokens":0)", "max_completion_tokens"},
      {R"("n":2)", "n"},
      {R"("top_p":1.01)", "top_p"},
      {R"("stream":"yes")", "stream"},
      {R"("stream_options":{"include_usage":1})", "stream_options.include_usage"},
      {R"("stop":["a",1])", "stop[1]"},
      {R"("seed":1e300)", "seed"},
      {R"("tools":[{"type":"function"}])", "tools[0].function"},
      {R"("response_format":{"type":"xml"})", "response_format.type"},
      {R"("logit_bias":5)", "logit_bias"},
      {R"("temperature":1,"temperature":0)", "temperature"},
  };
  for (const Refused& c : cases) {
    const auto request = parse(with(c.fields));
    ASSERT_FALSE(request) << c.fields;
    EXPECT_EQ(request.error().status, 400) << c.fields;
    EXPECT_EQ(request.error().param, c.param) << request.error().message;
  }
}

TEST(OpenAiRequest, MissingFieldsAreNamed) {
  EXPECT_EQ(parse(R"({"messages":[]})").error().param, "model");
  EXPECT_EQ(parse(R"({"model":"m"})").error().param, "messages");
  EXPECT_EQ(parse(R"({"model":"m","messages":[{"content":"x"}]})").error().param, "messages[0].role");
  EXPECT_EQ(parse(R"({"model":"m"})", Endpoint::kCompletion).error().param, "prompt");
  EXPECT_EQ(parse(R"({"model":"m"})", Endpoint::kEmbedding).error().param, "input");
}

TEST(OpenAiRequest, ModelNamesAreNamesAndNeverPaths) {
  for (const char* name : {"../../etc/passwd", "", "a b", "/x", "a\\u0000b", "a..b"}) {
    EXPECT_FALSE(parse(R"({"messages":[],"model":")" + std::string(name) + "\"}")) << name;
  }
  for (const char* name : {"qwen3-8b", "llama3:8b", "org/model-q4_k.gguf"}) {
    EXPECT_TRUE(parse(R"({"messages":[],"model":")" + std::string(name) + "\"}")) << name;
  }
}

TEST(OpenAiRequest, OnlyInlineImagesAreAccepted) {
  const auto image = [](const std::string& url) {
    return R"({"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"?"},{"type":"image_url","image_url":{"url":")" +
           url + R"("}}]}]})";
  };
  EXPECT_TRUE(parse(image("data:image/png;base64,AAAA")));
  for (const char* url : {"http://169.254.169.254/latest", "file:///etc/passwd", "https://x/y.png"}) {
    const auto request = parse(image(url));
    ASSERT_FALSE(request);
    EXPECT_EQ(request.error().param, "messages[0].content[1].image_url.url");
  }
}

TEST(OpenAiRequest, ToolConversationsPassWithNullContent) {
  const auto request = parse(
      R"({"model":"m","tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"a":{"type":"number","minimum":1.5}}}}}],)"
      R"("messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]},)"
      R"({"role":"tool","tool_call_id":"1","content":"2"}]})");
  ASSERT_TRUE(request) << request.error().message;
  const Json json = sent_to_engine(*request);
  EXPECT_TRUE(json["messages"][0]["content"].is_null());
  EXPECT_EQ(json["messages"][0]["tool_calls"][0]["function"]["arguments"], R"({"a":1})");
  EXPECT_EQ(json["tools"][0]["function"]["parameters"]["properties"]["a"]["minimum"], 1.5);
}

TEST(OpenAiRequest, NullsOfOptionalFieldsAreTheSameAsTheirAbsence) {
  const auto request = parse(with(R"("temperature":null,"stop":null,"max_tokens":null,"stream":null)"));
  ASSERT_TRUE(request) << request.error().message;
  EXPECT_FALSE(sent_to_engine(*request).contains("temperature"));
  EXPECT_FALSE(request->stream);
}

TEST(OpenAiRequest, NumbersKeepTheirValue) {
  const auto request = parse(with(R"("seed":4294967295,"temperature":0.1,"max_tokens":100.0,"top_k":40)"));
  ASSERT_TRUE(request) << request.error().message;
  const Json json = sent_to_engine(*request);
  EXPECT_EQ(json["seed"], 4294967295LL);
  EXPECT_EQ(json["temperature"], 0.1);
  EXPECT_EQ(json["max_tokens"], 100);
}

TEST(OpenAiRequest, EmbeddingsTakeOneTextOrSeveral) {
  for (const char* input : {R"("a")", R"(["a","b"])", "[1,2,3]", "[[1,2],[3]]"}) {
    const auto request = parse(R"({"model":"e","encoding_format":"base64","input":)" + std::string(input) + "}", Endpoint::kEmbedding);
    ASSERT_TRUE(request) << input << request.error().message;
    const Json json = sent_to_engine(*request);
    EXPECT_EQ(dump_json(json["input"]), input);
    EXPECT_FALSE(json.contains("id_slot"));
  }
}

TEST(OpenAiRequest, TheContextBoundsMaxTokens) {
  const auto request = parse(with(R"("max_tokens":4097)"));
  ASSERT_TRUE(request);
  EXPECT_TRUE(check_against_context(*request, 8192));
  EXPECT_TRUE(check_against_context(*request, 0));
  const auto refused = check_against_context(*request, 4096);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().where, "max_tokens");
}

TEST(OpenAiRequest, ALargeBodyAfterASmallOneIsParsedAndTheReverse) {
  for (const std::size_t size : {10UL, 3'000'000UL, 100UL, 200'000UL}) {
    const std::string text(size, 'a');
    const auto request = parse(R"({"model":"m","messages":[{"role":"user","content":")" + text + "\"}]}");
    ASSERT_TRUE(request) << request.error().message;
    EXPECT_GE(request->prompt_bytes, size);
  }
}

}  // namespace
}  // namespace aiv::gateway
