// The official SDKs as clients of one conversation, so that every surface can be asked the same in its own words.
//
//   ask(model, what, {stream, signal, onText}) -> answer
//   what:   {system, history, user: text or parts, tools, choice, schema, stop, max, think}
//           history: {user}, {model: an answer of this client} and {results: [{call, text}]} in turn
//   answer: {text, reasoning, calls: [{id, name, args}], finish: stop | length | tools, usage, turn}
//           usage: {input, cached, output, reasoning}, all of it and what of it; turn: what goes back into a history
//   hasStop: false where the dialect cannot be told where to stop
//   failure(error) -> {status, word}: word as the dialect spells the class of the error
import assert from 'node:assert/strict';
import Anthropic from '@anthropic-ai/sdk';
import { createAnthropic } from '@ai-sdk/anthropic';
import { createGoogleGenerativeAI } from '@ai-sdk/google';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { ApiError, GoogleGenAI } from '@google/genai';
import { APICallError, Output, generateText, jsonSchema, streamText, tool } from 'ai';
import OpenAI from 'openai';
import { CLIENT_KEY } from './gateway.mjs';

export const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mPQz78HAAJNAX0mh+/CAAAAAElFTkSuQmCC';
/** How much thinking a client asks for that says it in tokens; "low" in words. */
export const BUDGET = 2000;

const partsOf = (user) => (typeof user === 'string' ? [{ text: user }] : user);
const finishOf = (table, word) => table[word] ?? `? ${word}`;

// ---- openai ---------------------------------------------------------------------------------------------------------

const openai = {
    surface: 'openai',
    start(gw) {
        this.sdk = new OpenAI({ baseURL: gw.base, apiKey: CLIENT_KEY, maxRetries: 0 });
    },

    messages({ system, history = [], user }) {
        const content = (u) => (typeof u === 'string' ? u : u.map((p) => (p.png ? { type: 'image_url', image_url: { url: `data:image/png;base64,${p.png}` } } : { type: 'text', text: p.text })));
        return [
            ...(system ? [{ role: 'system', content: system }] : []),
            ...history.flatMap((h) => (h.user ? [{ role: 'user', content: content(h.user) }] : h.model ? [h.model.turn] : h.results.map(({ call, text }) => ({ role: 'tool', tool_call_id: call.id, content: text })))),
            ...(user === undefined ? [] : [{ role: 'user', content: content(user) }]),
        ];
    },

    async ask(model, what, { stream, signal, onText } = {}) {
        const { tools, choice, schema, stop, max, think } = what;
        const body = {
            model,
            messages: this.messages(what),
            ...(tools && { tools: tools.map(({ name, description, schema: parameters }) => ({ type: 'function', function: { name, description, parameters } })), tool_choice: choice ?? 'auto' }),
            ...(schema && { response_format: { type: 'json_schema', json_schema: { name: 'answer', schema, strict: true } } }),
            ...(stop && { stop }),
            ...(max && { max_completion_tokens: max }),
            ...(think && { reasoning_effort: 'low' }),
        };
        const { choices, usage } = stream
            ? await this.collect(await this.sdk.chat.completions.create({ ...body, stream: true, stream_options: { include_usage: true } }, { signal }), signal, onText)
            : await this.sdk.chat.completions.create(body, { signal });
        const [{ message, finish_reason }] = choices;
        return {
            text: message.content ?? '',
            reasoning: message.reasoning_content ?? '',
            calls: (message.tool_calls ?? []).map(({ id, function: f }) => ({ id, name: f.name, args: JSON.parse(f.arguments) })),
            finish: finishOf({ stop: 'stop', length: 'length', tool_calls: 'tools' }, finish_reason),
            usage: { input: usage.prompt_tokens, cached: usage.prompt_tokens_details?.cached_tokens ?? 0, output: usage.completion_tokens, reasoning: usage.completion_tokens_details?.reasoning_tokens ?? 0 },
            turn: message,
        };
    },

    /** The chunks as one completion, and what every stream of the dialect has to keep to. */
    async collect(chunks, signal, onText) {
        const message = { role: 'assistant', content: null };
        let finish_reason = null, usage = null, first = null;
        for await (const chunk of chunks) {
            first ??= chunk;
            assert.deepEqual([chunk.id, chunk.created, chunk.model, chunk.object], [first.id, first.created, first.model, 'chat.completion.chunk']);
            assert.equal(usage, null, 'nothing follows the usage');
            usage = chunk.usage ?? null;
            const [choice] = chunk.choices;
            if (!choice) continue;
            assert.equal(finish_reason, null, 'nothing of the choice follows its finish');
            finish_reason = choice.finish_reason;
            const { content, reasoning_content, tool_calls = [] } = choice.delta;
            if (content) message.content = (message.content ?? '') + content;
            if (reasoning_content) message.reasoning_content = (message.reasoning_content ?? '') + reasoning_content;
            for (const { index, id, type, function: f } of tool_calls) {
                const calls = (message.tool_calls ??= []);
                if (id !== undefined) {
                    assert.equal(index, calls.length, 'calls are numbered without gaps');
                    assert.deepEqual([type, typeof f.name], ['function', 'string']);
                    calls.push({ id, type, function: { name: f.name, arguments: f.arguments ?? '' } });
                } else {
                    assert.deepEqual([type, f.name], [undefined, undefined], 'id, type and name come once');
                    assert.notEqual(f.arguments, '', 'no empty pieces');
                    calls[index].function.arguments += f.arguments;
                }
            }
            if (content) onText?.(content);
        }
        signal?.throwIfAborted(); // the iterator only ends
        assert.ok(finish_reason, 'a stream that ended has its finish');
        return { choices: [{ message, finish_reason }], usage };
    },

    failure: (e) => ({ status: e.status, word: e.code ?? e.type, isError: e instanceof OpenAI.APIError || e instanceof OpenAI.OpenAIError, headers: e.headers }),
    isAbort: (e) => e.name === 'AbortError' || e instanceof OpenAI.APIUserAbortError,
};

// ---- openai, its Responses API ------------------------------------------------------------------------------------------

const responses = {
    ...openai,
    hasStop: false, // this API cannot be told where

    input({ history = [], user }) {
        const content = (u) => partsOf(u).map((p) => (p.png ? { type: 'input_image', detail: 'auto', image_url: `data:image/png;base64,${p.png}` } : { type: 'input_text', text: p.text }));
        return [
            ...history.flatMap((h) => (h.user ? [{ role: 'user', content: content(h.user) }] : h.model ? h.model.turn : h.results.map(({ call, text }) => ({ type: 'function_call_output', call_id: call.id, output: text })))),
            ...(user === undefined ? [] : [{ role: 'user', content: content(user) }]),
        ];
    },

    async ask(model, what, { stream, signal, onText } = {}) {
        const { system, tools, choice, schema, max, think } = what;
        const body = {
            model,
            input: this.input(what),
            store: false,
            ...(system && { instructions: system }),
            ...(tools && { tools: tools.map(({ name, description, schema: parameters }) => ({ type: 'function', name, description, parameters, strict: false })), tool_choice: choice ?? 'auto' }),
            ...(schema && { text: { format: { type: 'json_schema', name: 'answer', schema, strict: true } } }),
            ...(max && { max_output_tokens: max }),
            ...(think && { reasoning: { effort: 'low', summary: 'auto' } }),
        };
        let answer;
        if (!stream) answer = await this.sdk.responses.create(body, { signal });
        else
            for await (const event of await this.sdk.responses.create({ ...body, stream: true }, { signal })) {
                if (event.type === 'error') throw Object.assign(new OpenAI.OpenAIError(event.message), { code: event.code });
                if (event.type === 'response.output_text.delta') onText?.(event.delta);
                if (/^response\.(completed|incomplete|failed)$/.test(event.type)) answer = event.response;
            }
        signal?.throwIfAborted(); // the iterator only ends
        assert.ok(answer, 'a stream that ended has its response');
        const { output, usage: u } = answer;
        const calls = output.filter((item) => item.type === 'function_call').map((item) => ({ id: item.call_id, name: item.name, args: JSON.parse(item.arguments) }));
        const texts = (items, list) => items.flatMap((item) => item[list]).map((part) => part.text).join('');
        return {
            text: texts(output.filter((item) => item.type === 'message'), 'content'),
            reasoning: texts(output.filter((item) => item.type === 'reasoning'), 'summary'),
            calls,
            finish: answer.status === 'completed' ? (calls.length > 0 ? 'tools' : 'stop') : finishOf({ max_output_tokens: 'length' }, answer.incomplete_details?.reason),
            usage: { input: u.input_tokens, cached: u.input_tokens_details.cached_tokens, output: u.output_tokens, reasoning: u.output_tokens_details.reasoning_tokens },
            turn: output,
        };
    },
};

// ---- @anthropic-ai/sdk --------------------------------------------------------------------------------------------------

const anthropic = {
    surface: 'anthropic',
    start(gw) {
        this.sdk = new Anthropic({ baseURL: gw.url, apiKey: CLIENT_KEY, maxRetries: 0 });
    },

    messages({ history = [], user }) {
        const content = (u) => partsOf(u).map((p) => (p.png ? { type: 'image', source: { type: 'base64', media_type: 'image/png', data: p.png } } : { type: 'text', text: p.text }));
        return [
            ...history.map((h) => (h.user ? { role: 'user', content: content(h.user) } : h.model ? h.model.turn : { role: 'user', content: h.results.map(({ call, text }) => ({ type: 'tool_result', tool_use_id: call.id, content: text })) })),
            ...(user === undefined ? [] : [{ role: 'user', content: content(user) }]),
        ];
    },

    async ask(model, what, { stream, signal, onText } = {}) {
        const { system, tools, choice, schema, stop, max, think } = what;
        const body = {
            model,
            max_tokens: max ?? 8000,
            ...(system && { system }),
            messages: this.messages(what),
            ...(tools && { tools: tools.map(({ name, description, schema: input_schema }) => ({ name, description, input_schema })), tool_choice: { type: choice === 'required' ? 'any' : 'auto' } }),
            ...(schema && { output_config: { format: { type: 'json_schema', schema } } }),
            ...(stop && { stop_sequences: stop }),
            ...(think && { thinking: { type: 'enabled', budget_tokens: BUDGET } }),
        };
        const streamed = stream && this.sdk.messages.stream(body, { signal });
        if (stream && onText) streamed.on('text', (text) => onText(text));
        const m = stream ? await streamed.finalMessage() : await this.sdk.messages.create(body, { signal });
        const join = (type, name) => m.content.filter((b) => b.type === type).map((b) => b[name]).join('');
        const u = m.usage;
        return {
            text: join('text', 'text'),
            reasoning: join('thinking', 'thinking'),
            calls: m.content.filter((b) => b.type === 'tool_use').map(({ id, name, input }) => ({ id, name, args: input })),
            finish: finishOf({ end_turn: 'stop', stop_sequence: 'stop', max_tokens: 'length', tool_use: 'tools' }, m.stop_reason),
            usage: { input: u.input_tokens + (u.cache_read_input_tokens ?? 0) + (u.cache_creation_input_tokens ?? 0), cached: u.cache_read_input_tokens ?? 0, output: u.output_tokens, reasoning: u.output_tokens_details?.thinking_tokens ?? 0 },
            turn: { role: 'assistant', content: m.content.map(({ citations, ...b }) => b) },
        };
    },

    failure: (e) => ({ status: e.status, word: e.type ?? e.error?.error?.type, isError: e instanceof Anthropic.AnthropicError, headers: e.headers }),
    isAbort: (e) => e instanceof Anthropic.APIUserAbortError,
};

// ---- @google/genai --------------------------------------------------------------------------------------------------------

const genai = {
    surface: 'gemini',
    start(gw) {
        this.sdk = new GoogleGenAI({ apiKey: CLIENT_KEY, httpOptions: { baseUrl: gw.url } });
    },

    contents({ history = [], user }) {
        const parts = (u) => partsOf(u).map((p) => (p.png ? { inlineData: { mimeType: 'image/png', data: p.png } } : { text: p.text }));
        return [
            ...history.map((h) => (h.user ? { role: 'user', parts: parts(h.user) } : h.model ? h.model.turn : { role: 'user', parts: h.results.map(({ call, text }) => ({ functionResponse: { id: call.id, name: call.name, response: { output: text } } })) })),
            ...(user === undefined ? [] : [{ role: 'user', parts: parts(user) }]),
        ];
    },

    async ask(model, what, { stream, signal, onText } = {}) {
        const { system, tools, choice, schema, stop, max, think } = what;
        const ask = {
            model,
            contents: this.contents(what),
            config: {
                ...(signal && { abortSignal: signal }),
                ...(system && { systemInstruction: system }),
                ...(tools && {
                    tools: [{ functionDeclarations: tools.map(({ name, description, schema: parametersJsonSchema }) => ({ name, description, parametersJsonSchema })) }],
                    toolConfig: { functionCallingConfig: { mode: choice === 'required' ? 'ANY' : 'AUTO' } },
                }),
                ...(schema && { responseMimeType: 'application/json', responseJsonSchema: schema }),
                ...(stop && { stopSequences: stop }),
                ...(max && { maxOutputTokens: max }),
                ...(think && { thinkingConfig: { includeThoughts: true, thinkingBudget: BUDGET } }),
            },
        };
        const chunks = [];
        if (!stream) chunks.push(await this.sdk.models.generateContent(ask));
        else
            for await (const chunk of await this.sdk.models.generateContentStream(ask)) {
                chunks.push(chunk);
                if (chunk.text) onText?.(chunk.text);
            }
        const parts = chunks.flatMap((c) => c.candidates?.[0]?.content?.parts ?? []);
        const text = (isThought) => parts.filter((p) => p.text !== undefined && !p.thought === !isThought).map((p) => p.text).join('');
        const calls = parts.filter((p) => p.functionCall).map(({ functionCall: f }) => ({ id: f.id, name: f.name, args: f.args ?? {} }));
        const u = chunks.at(-1).usageMetadata;
        const reason = chunks.at(-1).candidates[0].finishReason;
        assert.ok(chunks.slice(0, -1).every((c) => !c.candidates?.[0]?.finishReason), 'the finish comes last');
        return {
            text: text(false),
            reasoning: text(true),
            calls,
            finish: calls.length > 0 && reason === 'STOP' ? 'tools' : finishOf({ STOP: 'stop', MAX_TOKENS: 'length' }, reason),
            usage: { input: u.promptTokenCount, cached: u.cachedContentTokenCount ?? 0, output: (u.candidatesTokenCount ?? 0) + (u.thoughtsTokenCount ?? 0), reasoning: u.thoughtsTokenCount ?? 0 },
            turn: { role: 'model', parts },
        };
    },

    failure(e) {
        const isError = e instanceof ApiError;
        return { status: e.status, word: isError ? JSON.parse(e.message.slice(e.message.indexOf('{'))).error.status : String(e), isError };
    },
    isAbort: (e) => e.name === 'AbortError',
};

// ---- ai -------------------------------------------------------------------------------------------------------------------

/** The SDK `ai` over one of its providers. `options(what)` is what only that provider is told. */
const vercel = (surface, connect, options) => ({
    surface,
    start(gw) {
        this.connect = connect(gw);
    },

    messages({ history = [], user }) {
        const content = (u) => partsOf(u).map((p) => (p.png ? { type: 'image', image: p.png, mediaType: 'image/png' } : { type: 'text', text: p.text }));
        return [
            ...history.flatMap((h) => {
                if (h.user) return [{ role: 'user', content: content(h.user) }];
                if (h.model) return h.model.turn;
                return [{ role: 'tool', content: h.results.map(({ call, text }) => ({ type: 'tool-result', toolCallId: call.id, toolName: call.name, output: { type: 'text', value: text } })) }];
            }),
            ...(user === undefined ? [] : [{ role: 'user', content: content(user) }]),
        ];
    },

    async ask(model, what, { stream, signal, onText } = {}) {
        const { system, tools, choice, schema, stop, max } = what;
        const settings = {
            model: this.connect(model),
            maxRetries: 0,
            abortSignal: signal,
            system,
            messages: this.messages(what),
            ...(tools && { tools: Object.fromEntries(tools.map(({ name, description, schema: s }) => [name, tool({ description, inputSchema: jsonSchema(s) })])), toolChoice: choice ?? 'auto' }),
            ...(schema && { output: Output.object({ schema: jsonSchema(schema), name: 'answer' }) }),
            stopSequences: stop,
            maxOutputTokens: max,
            providerOptions: options(what),
        };
        let result;
        if (!stream) result = await generateText(settings);
        else {
            result = streamText({ ...settings, onError: () => {} });
            for await (const part of result.fullStream) {
                if (part.type === 'error') throw part.error;
                if (part.type === 'abort') throw new DOMException('aborted', 'AbortError');
                if (part.type === 'text-delta') onText?.(part.text);
            }
        }
        const usage = await result.usage;
        const finish = await result.finishReason;
        return {
            text: await result.text,
            reasoning: (await result.reasoningText) ?? '',
            calls: (await result.toolCalls).map(({ toolCallId: id, toolName: name, input: args }) => ({ id, name, args })),
            finish: finishOf({ stop: 'stop', length: 'length', 'tool-calls': 'tools' }, finish),
            usage: { input: usage.inputTokens, cached: usage.inputTokenDetails.cacheReadTokens ?? 0, output: usage.outputTokens, reasoning: usage.outputTokenDetails.reasoningTokens },
            turn: (await result.response).messages,
            ...(schema && { object: await result.output }),
        };
    },

    failure(e) {
        if (!APICallError.isInstance(e)) return { status: undefined, word: e.type ?? e.name, isError: e instanceof Error || typeof e === 'object', raw: e };
        const body = JSON.parse(e.responseBody).error;
        return { status: e.statusCode, word: { openai: body.code ?? body.type, anthropic: body.type, gemini: body.status }[surface], isError: true };
    },
    isAbort: (e) => e.name === 'AbortError',
});

export const CLIENTS = {
    openai,
    'openai.responses': responses,
    '@anthropic-ai/sdk': anthropic,
    '@google/genai': genai,
    'ai with @ai-sdk/openai-compatible': vercel(
        'openai',
        (gw) => createOpenAICompatible({ name: 'chatmux', baseURL: gw.base, apiKey: CLIENT_KEY, includeUsage: true, supportsStructuredOutputs: true }),
        ({ think }) => ({ chatmux: think ? { reasoningEffort: 'low' } : {} }),
    ),
    'ai with @ai-sdk/anthropic': vercel(
        'anthropic',
        (gw) => createAnthropic({ baseURL: gw.base, apiKey: CLIENT_KEY }),
        ({ think, schema }) => ({ anthropic: { ...(think && { thinking: { type: 'enabled', budgetTokens: BUDGET } }), ...(schema && { structuredOutputMode: 'outputFormat' }) } }),
    ),
    'ai with @ai-sdk/google': vercel(
        'gemini',
        (gw) => createGoogleGenerativeAI({ baseURL: `${gw.url}/v1beta`, apiKey: CLIENT_KEY }),
        ({ think }) => ({ google: think ? { thinkingConfig: { includeThoughts: true, thinkingBudget: BUDGET } } : {} }),
    ),
};
