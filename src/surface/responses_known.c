/* What a request to /v1/responses may have below the top level (OpenAI protocol notes, sections 10 and 12). Clients send items of answers back as they
 * got them: what such an item has besides is known, too. */
#include "known_int.h"

#define K CM_KNOWN_MEMBER
#define B CM_KNOWN_BELOW

/* clang-format off */
CM_KNOWN(sound, K(data), K(format));
CM_KNOWN(text_part, K(type), K(text));
CM_KNOWN(answered, K(type), K(text), K(annotations), K(logprobs), K(parsed));
CM_KNOWN(refusal, K(type), K(refusal));
CM_KNOWN(image, K(type), K(image_url), K(file_id), K(detail));
CM_KNOWN(file, K(type), K(file_id), K(filename), K(file_data), K(file_url));
CM_KNOWN(sound_part, K(type), B(input_audio, sound));
CM_KNOWN_BY_TYPE(part, B(input_text, text_part), B(output_text, answered), B(text, text_part),
                 B(refusal, refusal), B(input_image, image), B(input_file, file),
                 B(input_audio, sound_part));

CM_KNOWN(message, K(type), K(role), B(content, part), K(id), K(status));
CM_KNOWN(call, K(type), K(id), K(call_id), K(name), K(arguments), K(status), K(parsed_arguments));
CM_KNOWN(output, K(type), K(id), K(call_id), B(output, part), K(status));
CM_KNOWN(thought, K(type), K(id), K(summary), K(content), K(encrypted_content), K(status));
CM_KNOWN(reference, K(type), K(id));
CM_KNOWN_BY_TYPE(item, B(message, message), B(function_call, call),
                 B(function_call_output, output), B(reasoning, thought),
                 B(item_reference, reference));

CM_KNOWN(function, K(type), K(name), K(description), K(parameters), K(strict));
CM_KNOWN_BY_TYPE(tool, B(function, function));
CM_KNOWN(one_choice, K(type), K(name));
CM_KNOWN(some_choice, K(type), K(mode), B(tools, one_choice));
CM_KNOWN_BY_TYPE(choice, B(function, one_choice), B(allowed_tools, some_choice));

CM_KNOWN(format, K(type), K(name), K(description), K(schema), K(strict));
CM_KNOWN(text, K(verbosity), B(format, format));
CM_KNOWN(reasoning, K(effort), K(summary));
CM_KNOWN(stream, K(include_obfuscation)); /* our streams have none */

CM_KNOWN_TOP(cm_known_responses, B(input, item), B(tools, tool), B(tool_choice, choice),
             B(text, text), B(reasoning, reasoning), B(stream_options, stream));
