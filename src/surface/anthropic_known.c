/* What a request to /v1/messages may have below the top level (protocol notes of Anthropic, sections 2 and 8). */
#include "known_int.h"

#define K CM_KNOWN_MEMBER
#define B CM_KNOWN_BELOW

static const struct cm_known block;

/* clang-format off */
CM_KNOWN(cache_mark, K(type), K(ttl));
CM_KNOWN(source, K(type), K(media_type), K(data), K(url), B(content, block));
CM_KNOWN(citing, K(enabled)); /* told where it is read */
/* `citations` and `parsed_output` are of answers that clients send back */
CM_KNOWN(text, K(type), K(text), B(cache_control, cache_mark), K(citations), K(parsed_output));
CM_KNOWN(image, K(type), B(source, source), B(cache_control, cache_mark));
CM_KNOWN(document, K(type), B(source, source), K(title), K(context), B(citations, citing),
         B(cache_control, cache_mark));
CM_KNOWN(search_result, K(type), K(source), K(title), B(content, block), B(citations, citing),
         B(cache_control, cache_mark));
CM_KNOWN(result, K(type), K(tool_use_id), B(content, block), K(is_error),
         B(cache_control, cache_mark));
/* `caller` is of answers: who asked for the call */
CM_KNOWN(use, K(type), K(id), K(name), K(input), K(caller), B(cache_control, cache_mark));
CM_KNOWN(thought, K(type), K(thinking), K(signature));
CM_KNOWN(redacted, K(type), K(data));
/* what Anthropic's own tools left behind is told as a whole */
CM_KNOWN_BY_TYPE(block, B(text, text), B(image, image), B(document, document),
                 B(search_result, search_result), B(tool_result, result), B(tool_use, use),
                 B(thinking, thought), B(redacted_thinking, redacted));
CM_KNOWN(message, K(role), B(content, block));

/* `eager_input_streaming`: arguments are passed on as they come, asked for or not */
CM_KNOWN(custom_tool, K(type), K(name), K(description), K(input_schema), K(strict), K(eager_input_streaming),
         B(cache_control, cache_mark));
CM_KNOWN_BY_TYPE(tool, B(custom, custom_tool));
CM_KNOWN(choice, K(type), K(name), K(disable_parallel_tool_use));
CM_KNOWN(thinking, K(type), K(budget_tokens), K(display));
CM_KNOWN(format, K(type), K(schema));
CM_KNOWN(output, K(effort), B(format, format));
CM_KNOWN(metadata, K(user_id));

CM_KNOWN_TOP(cm_known_anthropic, B(system, block), B(messages, message), B(tools, tool),
             B(tool_choice, choice), B(thinking, thinking), B(output_config, output),
             B(output_format, format), B(metadata, metadata), B(cache_control, cache_mark));
