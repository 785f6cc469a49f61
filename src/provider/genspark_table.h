/* The models of genspark (protocol notes, section 10.2). Included by genspark.c alone. */
#ifndef CHATMUX_PROVIDER_GENSPARK_TABLE_H
#define CHATMUX_PROVIDER_GENSPARK_TABLE_H

#include "genspark_int.h"

#define TEXT(name_) ROW(name_, name_, GENSPARK_TEXT, CM_MODEL_SEARCH)
#define IMAGE(name_) ROW(name_, name_, GENSPARK_IMAGE, CM_MODEL_IMAGE_OUT)
#define VIDEO(name_) ROW(name_, name_, GENSPARK_VIDEO, 0)
#define ROW(ours, theirs, kind, features_)                                                         \
    {.name = CM_S_INIT(ours),                                                                      \
     .upstream = CM_S_INIT(theirs),                                                                \
     .number = (kind),                                                                             \
     .features = (features_)}
#define ALIAS(ours, theirs) ROW(ours, theirs, GENSPARK_TEXT, CM_MODEL_SEARCH)

static const struct cm_model_row models[] = {
    ROW("mixture-of-agents", "", GENSPARK_MIXTURE, CM_MODEL_SEARCH),
    /* chat */
    TEXT("gpt-5"),
    TEXT("gpt-5-pro"),
    TEXT("gpt-5.1"),
    TEXT("gpt-5.1-high"),
    TEXT("gpt-5.1-low"),
    TEXT("gpt-5.1-medium"),
    TEXT("gpt-5.2"),
    TEXT("gpt-5.2-pro"),
    TEXT("gpt-5.4"),
    TEXT("gpt-5.4-mini"),
    TEXT("gpt-5.4-nano"),
    TEXT("gpt-5.4-pro"),
    TEXT("gpt-5.5"),
    TEXT("gpt-5.5-pro"),
    TEXT("gpt-5.6"),
    TEXT("gpt-5.6-luna"),
    TEXT("gpt-5.6-sol"),
    TEXT("gpt-5.6-terra"),
    TEXT("gpt-6"),
    TEXT("gpt-6-luna"),
    TEXT("gpt-6-sol"),
    TEXT("o3-pro"),
    TEXT("claude-4-5-haiku"),
    ALIAS("claude-haiku-4-5", "claude-4-5-haiku"),
    TEXT("claude-opus-4-5"),
    TEXT("claude-opus-4-6"),
    TEXT("claude-opus-4-7"),
    TEXT("claude-opus-4-8"),
    TEXT("claude-opus-5"),
    TEXT("claude-opus-5-5"),
    TEXT("claude-sonnet-4"),
    TEXT("claude-sonnet-4-5"),
    TEXT("claude-sonnet-4-6"),
    TEXT("claude-sonnet-5"),
    TEXT("gemini-2.5-flash"),
    TEXT("gemini-2.5-pro"),
    TEXT("gemini-3-flash-preview"),
    TEXT("gemini-3-pro-preview"),
    TEXT("gemini-3.1-flash-lite-preview"),
    TEXT("gemini-3.1-pro-preview"),
    TEXT("gemini-3.6-flash"),
    TEXT("gemini-3.7-flash"),
    TEXT("gemini-3.8-flash"),
    TEXT("GLM-5.3"),
    TEXT("glm-5p3"),
    TEXT("deep-seek-v4-flash"),
    ALIAS("deepseek-v4-flash", "deep-seek-v4-flash"),
    TEXT("deep-seek-v4.1-flash"),
    ALIAS("deepseek-v4.1-flash", "deep-seek-v4.1-flash"),
    TEXT("grok-4-0709"),
    TEXT("grok-4.5"),
    TEXT("grok-4.6"),
    TEXT("grok-4.7"),
    TEXT("kimi-k3"),
    TEXT("minimax-m3"),
    TEXT("nemotron-3-ultra"),
    /* earlier ones, still accepted */
    TEXT("gpt-4o"),
    TEXT("o1"),
    TEXT("o3-mini-high"),
    TEXT("claude-3-5-sonnet"),
    TEXT("claude-3-7-sonnet"),
    TEXT("claude-3-7-sonnet-thinking"),
    TEXT("claude-3-5-haiku"),
    TEXT("gemini-2.0-flash"),
    TEXT("deep-seek-v3"),
    ALIAS("deepseek-v3", "deep-seek-v3"),
    TEXT("deep-seek-r1"),
    ALIAS("deepseek-r1", "deep-seek-r1"),
    /* pictures */
    IMAGE("nano-banana-pro"),
    IMAGE("nano-banana-2"),
    IMAGE("fal-ai/bytedance/seedream/v5/lite"),
    IMAGE("fal-ai/flux-2"),
    IMAGE("fal-ai/flux-2-pro"),
    IMAGE("fal-ai/z-image/turbo"),
    IMAGE("fal-ai/gpt-image-1.5"),
    IMAGE("recraft-v3"),
    IMAGE("ideogram/V_3"),
    IMAGE("qwen-image"),
    IMAGE("fal-ai/recraft-clarity-upscale"),
    IMAGE("fal-bria-rmbg"),
    IMAGE("fal-ai/image-editing/text-removal"),
    IMAGE("flux"),
    IMAGE("flux-speed"),
    IMAGE("flux-pro/ultra"),
    IMAGE("ideogram"),
    IMAGE("ideogram/V_2A"),
    ROW("dall-e-3", "dalle-3", GENSPARK_IMAGE, CM_MODEL_IMAGE_OUT),
    IMAGE("imagen3"),
    /* videos */
    VIDEO("gemini/veo3.1"),
    VIDEO("gemini/veo3.1/reference-to-video"),
    VIDEO("gemini/veo3.1/first-last-frame-to-video"),
    VIDEO("sora-2"),
    VIDEO("sora-2-pro"),
    VIDEO("gemini/veo3"),
    VIDEO("kling/v3"),
    VIDEO("kling/v2.6/standard/motion-control"),
    VIDEO("kling/o3/image-to-video"),
    VIDEO("kling/o3/reference-to-video"),
    VIDEO("fal-ai/bytedance/seedance/v1.5/pro"),
    VIDEO("xai/grok-imagine-video"),
    VIDEO("minimax/hailuo-2.3/standard"),
    VIDEO("official/pixverse/v5"),
    VIDEO("fal-ai/bytedance/seedance/v1/pro/fast"),
    VIDEO("fal-ai/sync-lipsync/v2"),
    VIDEO("wan/v2.6"),
    VIDEO("vidu/q3"),
    VIDEO("runway/gen4_turbo"),
    VIDEO("fal-ai/bytedance-upscaler/upscale/video"),
};

#undef TEXT
#undef IMAGE
#undef VIDEO
#undef ALIAS
#undef ROW

#endif
