/* What chat completions and text completions may have below the top level (OpenAI protocol notes, sections 3 and 4). */
#include "known_int.h"

#define K CM_KNOWN_MEMBER
#define B CM_KNOWN_BELOW

/* clang-format off */
CM_KNOWN(cache_mark, K(type), K(ttl));
CM_KNOWN(image, K(url), K(detail));
CM_KNOWN(sound, K(data), K(format));
CM_KNOWN(file, K(file_id), K(filename), K(file_data));
CM_KNOWN(text_part, K(type), K(text), B(cache_control, cache_mark));
CM_KNOWN(image_part, K(type), B(image_url, image), B(cache_control, cache_mark));
CM_KNOWN(sound_part, K(type), B(input_audio, sound), B(cache_control, cache_mark));
CM_KNOWN(file_part, K(type), B(file, file), B(cache_control, cache_mark));
CM_KNOWN(refusal_part, K(type), K(refusal), B(cache_control, cache_mark));
CM_KNOWN_BY_TYPE(part, B(text, text_part), B(image_url, image_part), B(input_audio, sound_part),
                 B(file, file_part), B(refusal, refusal_part));

/* `parsed` and `parsed_arguments` are of the SDK's own, `index` is of streams: clients send back what they have put together. */
CM_KNOWN(called, K(name), K(arguments), K(parsed_arguments));
CM_KNOWN(call, K(type), K(id), B(function, called), K(index));
CM_KNOWN(message, K(role), B(content, part), K(name), B(tool_calls, call), B(function_call, called),
         K(tool_call_id), K(reasoning_content), K(refusal), K(audio), K(annotations), K(parsed));

CM_KNOWN(function, K(name), K(description), K(parameters), K(strict));
CM_KNOWN(function_tool, K(type), B(function, function));
CM_KNOWN_BY_TYPE(tool, B(function, function_tool));
CM_KNOWN(named, K(name));
CM_KNOWN(function_choice, K(type), B(function, named));
CM_KNOWN(some, K(mode), B(tools, function_choice));
CM_KNOWN(some_choice, K(type), B(allowed_tools, some));
CM_KNOWN_BY_TYPE(choice, B(function, function_choice), B(allowed_tools, some_choice));

CM_KNOWN(schema, K(name), K(description), K(schema), K(strict));
CM_KNOWN(format, K(type), B(json_schema, schema));
CM_KNOWN(stream, K(include_usage), K(include_obfuscation)); /* our streams have none */

CM_KNOWN_TOP(cm_known_openai_chat, B(messages, message), B(tools, tool), B(functions, function),
             B(tool_choice, choice), B(function_call, named), B(response_format, format),
             B(stream_options, stream));
CM_KNOWN_TOP(cm_known_openai_completion, B(stream_options, stream));
