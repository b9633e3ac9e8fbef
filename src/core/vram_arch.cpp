// Source: llama.cpp v0.5.0, src/models/NAME.cpp (load_arch_hparams), src/llama-arch.cpp
// (llm_arch_is_recurrent, llm_arch_is_hybrid) and llama_model::create_memory in src/llama-model.cpp.
//
// Left out on purpose, so that they get the generic upper bound: architectures with a cache of their own
// (deepseek32, deepseek4, glm-dsa, dots3note, hy_v4, minimax-m3, qwen4exp: indexer caches), with looped or
// router layers (nanbeige, hrm_text, granite-switch), encoder-decoders (t5), speech and draft models.
#include "core/vram_arch.hpp"

#include <array>

namespace aiv {
namespace {

using F = ModelFamily;
using W = WindowRule;
using R = RecurrentRule;

constexpr ArchitectureRow plain(std::string_view name) {
  return {.name = name};
}
constexpr ArchitectureRow encoder(std::string_view name) {
  return {.name = name, .family = F::kEncoder};
}
constexpr ArchitectureRow mla(std::string_view name) {
  return {.name = name, .family = F::kMla};
}
constexpr ArchitectureRow window(std::string_view name, W rule, std::int64_t period,
                                 std::int64_t fallback = 0) {
  return {.name = name, .window = rule, .period = period, .default_window = fallback};
}
constexpr ArchitectureRow recurrent(std::string_view name, F family) {
  return {.name = name, .family = family, .recurrent = R::kAll};
}
constexpr ArchitectureRow hybrid(std::string_view name, R rule) {
  return {.name = name, .family = F::kHybrid, .recurrent = rule};
}

constexpr auto kRows = std::to_array<ArchitectureRow>({
    plain("apertus"),
    plain("arcee"),
    plain("arctic"),
    plain("baichuan"),
    plain("bailingmoe"),
    plain("bailingmoe2"),
    plain("bitnet"),
    plain("bloom"),
    plain("chameleon"),
    plain("chatglm"),
    plain("codeshell"),
    plain("cogvlm"),
    plain("command-r"),
    plain("dbrx"),
    plain("deci"),
    plain("deepseek"),
    plain("dots1"),
    plain("ernie4_5"),
    plain("ernie4_5-moe"),
    plain("exaone"),
    plain("falcon"),
    plain("gemma"),
    plain("glm4"),
    plain("glm4moe"),
    plain("gpt2"),
    plain("gptneox"),
    plain("granite"),
    plain("granitemoe"),
    plain("grok"),
    plain("grovemoe"),
    plain("hunyuan-dense"),
    plain("hunyuan-moe"),
    plain("hunyuan_vl"),
    plain("hy_v3"),
    plain("internlm2"),
    plain("jais"),
    plain("jais2"),
    plain("llama"),
    plain("llama-embed"),
    plain("maincoder"),
    plain("minicpm"),
    plain("minicpm3"),
    plain("minimax-m2"),
    plain("mistral3"),
    plain("mpt"),
    plain("nemotron"),
    plain("olmo"),
    plain("olmoe"),
    plain("openelm"),
    plain("orion"),
    plain("paddleocr"),
    plain("pangu-embedded"),
    plain("phi2"),
    plain("phi3"),
    plain("phimoe"),
    plain("plamo"),
    plain("plm"),
    plain("qwen"),
    plain("qwen2"),
    plain("qwen2moe"),
    plain("qwen2vl"),
    plain("qwen3"),
    plain("qwen3moe"),
    plain("qwen3vl"),
    plain("qwen3vlmoe"),
    plain("refact"),
    plain("seed_oss"),
    plain("smollm3"),
    plain("stablelm"),
    plain("starcoder"),
    plain("starcoder2"),
    plain("xverse"),

    window("afmoe", W::kPeriod, 4),
    window("cohere2", W::kPeriod, 4),
    window("cohere2moe", W::kPeriodFullFirst, 4),
    window("exaone-moe", W::kPeriod, 4, 128),
    // exaone4: only the 64-layer model has windows (model_facts knows).
    window("exaone4", W::kPeriod, 4, 4096),
    window("gemma2", W::kPeriod, 2, 4096),
    window("gemma3", W::kPeriod, 6),
    window("gemma3n", W::kPeriod, 5),
    window("gemma4", W::kArray, 0),
    window("gpt-oss", W::kPeriod, 2),
    window("granite_swa", W::kArray, 0),
    window("laguna", W::kPeriodFullFirst, 4),
    // llama4: the file's 0 switches the chunked layers off, any other value means 8192 (model_facts knows).
    window("llama4", W::kPeriod, 4, 8192),
    window("maple", W::kArray, 0),
    window("mellum", W::kPeriod, 4),
    window("mimo2", W::kArray, 0),
    window("muse-glimmer", W::kPeriod, 4),
    window("olmo2", W::kPeriod, 4),
    window("plamo3", W::kPeriod, 8),
    window("smallthinker", W::kPeriodFullFirst, 4),
    window("spark2_5", W::kArray, 0),
    window("step35", W::kArray, 0),

    mla("deepseek2"),
    mla("deepseek2-ocr"),
    mla("mistral4"),

    recurrent("mamba", F::kMamba),
    recurrent("mamba2", F::kMamba2),
    recurrent("rwkv6", F::kRwkv),
    recurrent("rwkv6qwen2", F::kRwkv),
    recurrent("rwkv7", F::kRwkv),
    recurrent("arwkv7", F::kRwkv),

    hybrid("jamba", R::kNoKvHeads),
    hybrid("plamo2", R::kNoKvHeads),
    hybrid("granitehybrid", R::kNoKvHeads),
    hybrid("kimi-linear", R::kNoKvHeads),
    hybrid("bailingmoe3", R::kNoKvHeads),
    hybrid("lfm2moe", R::kNoKvHeads),
    ArchitectureRow{
        .name = "lfm2", .family = F::kHybrid, .window = W::kAllAttention, .recurrent = R::kNoKvHeads},
    hybrid("nemotron_h", R::kNoKvHeadsNoFf),
    hybrid("nemotron_h_moe", R::kNoKvHeadsNoFf),
    hybrid("falcon-h1", R::kBoth),
    hybrid("qwen3next", R::kInterval),
    hybrid("qwen35", R::kInterval),
    hybrid("qwen35moe", R::kInterval),
    hybrid("minimax-01", R::kInterval),

    encoder("bert"),
    encoder("modern-bert"),
    encoder("nomic-bert"),
    encoder("nomic-bert-moe"),
    encoder("neo-bert"),
    encoder("jina-bert-v2"),
    encoder("jina-bert-v3"),
    encoder("eurobert"),
    encoder("gemma-embedding"),
});

}  // namespace

const ArchitectureRow* find_architecture(std::string_view name) {
  for (const ArchitectureRow& row : kRows) {
    if (row.name == name) return &row;
  }
  return nullptr;
}

std::span<const ArchitectureRow> architectures() {
  return kRows;
}

}  // namespace aiv
