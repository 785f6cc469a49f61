/* What requests in Gemini's dialect may have below the top level (protocol notes of Gemini, sections 2, 3 and 6). Names in camelCase stand for those in
 * snake_case, too. What an answer does without on purpose (imageConfig, speechConfig, mediaResolution …) is not in here, and so is told. */
#include "known_int.h"

#define K CM_KNOWN_MEMBER
#define B CM_KNOWN_BELOW

/* clang-format off */
CM_KNOWN(blob, K(mimeType), K(data), K(displayName));
CM_KNOWN(file, K(fileUri), K(mimeType), K(displayName));
CM_KNOWN(call, K(id), K(name), K(args));
CM_KNOWN(response_part, B(inlineData, blob));
CM_KNOWN(response, K(id), K(name), K(response), B(parts, response_part));
CM_KNOWN(part, K(text), K(thought), K(thoughtSignature), B(inlineData, blob), B(fileData, file),
         B(functionCall, call), B(functionResponse, response));
CM_KNOWN(content, K(role), B(parts, part));
CM_KNOWN(text_part, K(text));
CM_KNOWN(text_content, K(role), B(parts, text_part));

CM_KNOWN(function, K(name), K(description), K(parameters), K(parametersJsonSchema));
CM_KNOWN(tool, B(functionDeclarations, function)); /* Google's own are refused where they are read */
CM_KNOWN(calling, K(mode), K(allowedFunctionNames));
CM_KNOWN(tool_config, B(functionCallingConfig, calling));

CM_KNOWN(thinking, K(includeThoughts), K(thinkingBudget), K(thinkingLevel));
CM_KNOWN(config, K(temperature), K(topP), K(topK), K(candidateCount), K(maxOutputTokens), K(seed),
         K(presencePenalty), K(frequencyPenalty), K(responseLogprobs), K(logprobs), K(stopSequences),
         K(responseMimeType), K(responseSchema), K(responseJsonSchema), B(thinkingConfig, thinking),
         K(responseModalities));

#define OF_A_REQUEST                                                                               \
    B(contents, content), B(systemInstruction, text_content), B(tools, tool),                      \
        B(toolConfig, tool_config), B(generationConfig, config)
CM_KNOWN(counted, K(model), OF_A_REQUEST, K(safetySettings), K(cachedContent), K(serviceTier),
         K(store), K(labels));
CM_KNOWN_TOP(cm_known_gemini, OF_A_REQUEST, B(generateContentRequest, counted));

CM_KNOWN(embedded, K(model), B(content, text_content), K(outputDimensionality), K(taskType),
         K(title)); /* the last two are told where they are read */
CM_KNOWN_TOP(cm_known_gemini_embed, B(content, text_content), B(requests, embedded));
