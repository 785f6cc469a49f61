// gemini behind the OpenAI surface: every row of the tables, against a strict upstream.
import assert from 'node:assert/strict';
import http from 'node:http';
import OpenAI from 'openai';
import { atEnd, chat, CLIENT_KEY, request, scenario, startGateway, until } from '../lib/gateway.mjs';
import { play, providerFor, startFakeGemini } from '../lib/fake_gemini.mjs';

async function pair(t, { fake: fakeOptions, provider, config } = {}) {
    const fake = await startFakeGemini(t, fakeOptions);
    const gw = await startGateway(t, { config: { retry: { retries: 0 }, 'provider gemini': providerFor(fake, provider), ...config } });
    return { fake, gw, sdk: new OpenAI({ baseURL: gw.base, apiKey: CLIENT_KEY, maxRetries: 0 }) };
}

const FLASH = 'gemini-2.5-flash';
const FLASH3 = 'gemini-3.5-flash';
const ask = (text) => [{ role: 'user', content: text }];
const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';

/** Both ways of one request: {whole, streamed} as chat completions; `twice` counts what the fake saw. */
async function bothWays(sdk, body) {
    const whole = await sdk.chat.completions.create(body);
    const streamed = await sdk.chat.completions.stream({ ...body, stream_options: { include_usage: true } }).finalChatCompletion();
    return { whole, streamed };
}

scenario('an answer, plain and streamed, with its figures', async (t) => {
    const { fake, sdk } = await pair(t);
    const { data, response } = await sdk.chat.completions.create({ model: FLASH, messages: ask('hi') }).withResponse();
    assert.equal(response.headers.get('x-chatmux-provider'), 'gemini');
    assert.equal(fake.last.url, '/v1beta/models/gemini-2.5-flash:generateContent');
    assert.deepEqual(fake.last.json, { contents: [{ role: 'user', parts: [{ text: 'hi' }] }] });
    const streamed = await sdk.chat.completions.stream({ model: FLASH, messages: ask('hi'), stream_options: { include_usage: true } }).finalChatCompletion();
    assert.equal(fake.last.url, '/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse');
    for (const answer of [data, streamed]) {
        assert.equal(answer.choices[0].message.content, 'Hello from Gemini.');
        assert.equal(answer.choices[0].finish_reason, 'stop');
        assert.equal(answer.usage.prompt_tokens, 11);
        assert.equal(answer.usage.completion_tokens, 7);
        assert.equal(answer.usage.total_tokens, 18);
        assert.equal(answer.usage.completion_tokens_details.reasoning_tokens, 2);
    }
});

scenario('cached and tool-use tokens are part of the prompt', async (t) => {
    const { fake, sdk } = await pair(t);
    fake.always(play.ok({ usage: { promptTokenCount: 100, cachedContentTokenCount: 60, toolUsePromptTokenCount: 5, candidatesTokenCount: 7, thoughtsTokenCount: 3, totalTokenCount: 115 } }));
    const { whole, streamed } = await bothWays(sdk, { model: FLASH, messages: ask('x') });
    for (const { usage } of [whole, streamed]) {
        assert.equal(usage.prompt_tokens, 105);
        assert.equal(usage.prompt_tokens_details.cached_tokens, 60);
        assert.equal(usage.completion_tokens, 10);
        assert.equal(usage.completion_tokens_details.reasoning_tokens, 3);
    }
});

scenario('several turns with system texts, merged where one side speaks twice', async (t) => {
    const { fake, sdk } = await pair(t);
    await sdk.chat.completions.create({
        model: FLASH,
        messages: [
            { role: 'system', content: 'SPEAK-LATIN' },
            { role: 'assistant', content: 'GREETING' },
            { role: 'user', content: 'ONE' },
            { role: 'user', content: [{ type: 'text', text: 'TWO' }, { type: 'text', text: '' }] },
            { role: 'assistant', content: 'ANSWER' },
            { role: 'developer', content: 'BE-SHORT' },
            { role: 'user', content: 'THREE' },
            { role: 'assistant', content: 'PREFILL' },
        ],
    });
    assert.deepEqual(fake.last.json, {
        contents: [
            { role: 'user', parts: [{ text: '.' }] },
            { role: 'model', parts: [{ text: 'GREETING' }] },
            { role: 'user', parts: [{ text: 'ONE' }, { text: 'TWO' }] },
            { role: 'model', parts: [{ text: 'ANSWER' }] },
            { role: 'user', parts: [{ text: 'THREE' }] },
            { role: 'model', parts: [{ text: 'PREFILL' }] },
            { role: 'user', parts: [{ text: '.' }] },
        ],
        systemInstruction: { parts: [{ text: 'SPEAK-LATIN\n\nBE-SHORT' }] },
    });
    await sdk.chat.completions.create({ model: FLASH, messages: [{ role: 'system', content: 'ALONE' }] });
    assert.deepEqual(fake.last.json.contents, [{ role: 'user', parts: [{ text: '.' }] }]);
});

scenario('what says how to answer', async (t) => {
    const { fake, gw, sdk } = await pair(t);
    const { response } = await sdk.chat.completions
        .create({
            model: FLASH, messages: ask('x'), temperature: 0.5, top_p: 0.25, max_tokens: 999_999, stop: ['A', 'B', 'C', 'D'], seed: 2 ** 40 + 5, presence_penalty: 0.5,
            frequency_penalty: -0.5, user: 'u', metadata: { a: 'b' }, store: true, logit_bias: { 5: 1 }, service_tier: 'flex', logprobs: true, parallel_tool_calls: false,
            tools: [{ type: 'function', function: { name: 'f' } }],
        })
        .withResponse();
    const { generationConfig } = fake.last.json;
    assert.ok(Number.isInteger(generationConfig.seed));
    delete generationConfig.seed;
    assert.deepEqual(generationConfig, { temperature: 0.5, topP: 0.25, maxOutputTokens: 65_536, stopSequences: ['A', 'B', 'C', 'D'], presencePenalty: 0.5, frequencyPenalty: -0.5 });
    const dropped = response.headers.get('x-chatmux-dropped').split(', ');
    for (const name of ['user', 'metadata', 'store', 'logit_bias', 'service_tier', 'logprobs', 'parallel_tool_calls']) assert.ok(dropped.includes(name), `${name} in ${dropped}`);

    const many = await request(gw, { body: chat(FLASH, 'x', { n: 9 }) });
    assert.equal(many.status, 400);
    assert.equal(many.error.param, 'n');
});

scenario('several choices', async (t) => {
    const { fake, sdk } = await pair(t);
    fake.always(play.candidates([['a', 'b'], ['c', 'd', 'e']]));
    const { whole, streamed } = await bothWays(sdk, { model: FLASH, messages: ask('x'), n: 2 });
    assert.equal(fake.last.json.generationConfig.candidateCount, 2);
    for (const { choices } of [whole, streamed]) assert.deepEqual(choices.map((c) => [c.index, c.message.content, c.finish_reason]), [[0, 'ab', 'stop'], [1, 'cde', 'stop']]);
});

scenario('an answer that became too long, one that a filter stopped, and one without a reason we know', async (t) => {
    const { fake, sdk } = await pair(t);
    for (const [finish, expected] of [
        ['MAX_TOKENS', 'length'], ['SAFETY', 'content_filter'], ['RECITATION', 'content_filter'], ['BLOCKLIST', 'content_filter'], ['PROHIBITED_CONTENT', 'content_filter'],
        ['SPII', 'content_filter'], ['LANGUAGE', 'content_filter'], ['OTHER', 'stop'], ['SOMETHING_NEW', 'stop'],
    ]) {
        fake.always(play.ok({ finish, text: 'part of it' }));
        const { whole, streamed } = await bothWays(sdk, { model: FLASH, messages: ask('x') });
        assert.equal(whole.choices[0].finish_reason, expected, finish);
        assert.equal(streamed.choices[0].finish_reason, expected, finish);
        assert.equal(whole.choices[0].message.content, 'part of it');
    }
});

scenario('a blocked prompt is an answer, no answer at all is none', async (t) => {
    const { fake, gw, sdk } = await pair(t);
    fake.always(play.blocked());
    const { whole, streamed } = await bothWays(sdk, { model: FLASH, messages: ask('x') });
    for (const { choices, usage } of [whole, streamed]) {
        assert.equal(choices[0].finish_reason, 'content_filter');
        assert.ok(!choices[0].message.content);
        assert.equal(usage.prompt_tokens, 9);
    }
    fake.always(play.noCandidates());
    for (const stream of [false, true]) assert.equal((await request(gw, { body: chat(FLASH, 'x', { stream }) })).status, 502);
});

scenario('thinking: how much, and what is shown of it', async (t) => {
    const { fake, sdk, gw } = await pair(t);
    const config = () => fake.last.json.generationConfig?.thinkingConfig;
    fake.always(play.ok({ thoughts: ['Hm, ', 'so.'], text: 'Blue.' }));
    const { whole, streamed } = await bothWays(sdk, { model: FLASH, messages: ask('x'), reasoning_effort: 'medium' });
    assert.deepEqual(config(), { includeThoughts: true, thinkingBudget: 8192 });
    assert.equal(whole.choices[0].message.reasoning_content, 'Hm, so.');
    assert.equal(whole.choices[0].message.content, 'Blue.');
    assert.equal(streamed.choices[0].message.content, 'Blue.');
    for (const [model, effort, expected] of [
        [FLASH, 'none', { includeThoughts: false, thinkingBudget: 0 }],
        [FLASH, 'minimal', { includeThoughts: true, thinkingBudget: 1024 }],
        [FLASH, 'xhigh', { includeThoughts: true, thinkingBudget: 24_576 }],
        ['gemini-2.5-pro', 'none', undefined],
        ['gemini-2.5-pro', 'max', { includeThoughts: true, thinkingBudget: 32_768 }],
        [FLASH3, 'none', { includeThoughts: false, thinkingLevel: 'MINIMAL' }],
        [FLASH3, 'minimal', { includeThoughts: true, thinkingLevel: 'MINIMAL' }],
        [FLASH3, 'medium', { includeThoughts: true, thinkingLevel: 'MEDIUM' }],
        [FLASH3, 'max', { includeThoughts: true, thinkingLevel: 'HIGH' }],
        ['gemini-3-pro-preview', 'minimal', { includeThoughts: true, thinkingLevel: 'LOW' }],
        ['gemini-3-pro-preview', 'medium', { includeThoughts: true, thinkingLevel: 'HIGH' }],
        ['gemini-2.5-flash-image', 'high', undefined],
    ]) {
        const answer = await request(gw, { body: chat(model, 'x', { reasoning_effort: effort }) });
        assert.equal(answer.status, 200, answer.text);
        assert.deepEqual(config(), expected, `${model} ${effort}`);
        assert.equal(answer.headers['x-chatmux-dropped'], expected ? undefined : 'reasoning_effort', `${model} ${effort}`);
    }
    await request(gw, { body: chat(FLASH) });
    assert.equal(config(), undefined);
    await request(gw, { body: chat(`${FLASH}-thinking`) });
    assert.deepEqual(config(), { includeThoughts: true });
});

// ---- tools -----------------------------------------------------------------------------------------------------

const TOOLS = [
    { type: 'function', function: { name: 'weather', description: 'Tells it', parameters: { $schema: 'x', type: 'object', properties: { city: { type: 'string' } }, required: ['city'], additionalProperties: false }, strict: true } },
    { type: 'function', function: { name: 'now', parameters: { type: 'object', properties: {} } } },
];

/** A turn with calls, results in the wrong order, and the answer; streamed or not. */
async function toolRound(t, model, stream, { ids = false } = {}) {
    const { fake, sdk } = await pair(t);
    const create = async (body) => (stream ? sdk.chat.completions.stream(body).finalChatCompletion() : sdk.chat.completions.create(body));
    const messages = ask('weather in Rome and Oslo, and the time?');
    fake.next(play.calls([{ name: 'weather', args: { city: 'Rome' } }, { name: 'weather', args: { city: 'Ås' } }, { name: 'now' }], { ids, together: !stream }));
    const first = await create({ model, messages, tools: TOOLS, tool_choice: 'auto' });
    assert.equal(first.choices[0].finish_reason, 'tool_calls');
    const calls = first.choices[0].message.tool_calls;
    assert.deepEqual(calls.map((c) => [c.function.name, c.function.arguments]), [['weather', '{"city":"Rome"}'], ['weather', '{"city":"Ås"}'], ['now', '{}']]);
    for (const { id } of calls) assert.match(id, ids ? /^fc-\d+$/ : /^call_[A-Za-z0-9_-]{1,35}$/);
    assert.equal(new Set(calls.map((c) => c.id)).size, 3);
    assert.deepEqual(fake.last.json.tools, [
        { functionDeclarations: [
            { name: 'weather', description: 'Tells it', parametersJsonSchema: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'], additionalProperties: false } },
            { name: 'now' },
        ] },
    ]);
    assert.deepEqual(fake.last.json.toolConfig, { functionCallingConfig: { mode: 'AUTO' } });

    const assistant = { role: 'assistant', content: null, tool_calls: calls.map(({ id, function: f }) => ({ id, type: 'function', function: f })) };
    const results = [[1, 'snow'], [2, '12:00'], [0, 'sun']].map(([i, content]) => ({ role: 'tool', tool_call_id: calls[i].id, content }));
    const second = await create({ model, messages: [...messages, assistant, ...results, { role: 'user', content: 'go on' }], tools: TOOLS });
    assert.equal(second.choices[0].message.content, 'Hello from Gemini.');
    const [, called, answered, more] = fake.last.json.contents;
    assert.deepEqual(called.parts.map((p) => p.functionCall), [{ name: 'weather', args: { city: 'Rome' } }, { name: 'weather', args: { city: 'Ås' } }, { name: 'now', args: {} }]);
    assert.deepEqual(answered.parts.map((p) => [p.functionResponse.name, p.functionResponse.response]), [['weather', { output: 'sun' }], ['weather', { output: 'snow' }], ['now', { output: '12:00' }]]);
    assert.deepEqual(more, { role: 'user', parts: [{ text: 'go on' }] });
    return { fake, create, messages, assistant, results, called };
}

for (const stream of [false, true])
    scenario(`parallel calls and their results, ${stream ? 'streamed' : 'whole'}`, async (t) => {
        const { called } = await toolRound(t, FLASH, stream);
        assert.ok(called.parts.every((p) => !p.thoughtSignature));
    });

for (const stream of [false, true])
    scenario(`signatures of calls come back, ${stream ? 'streamed' : 'whole'}; where they are lost, that is said`, async (t) => {
        const { fake, create, messages, assistant, results, called } = await toolRound(t, FLASH3, stream, { ids: true });
        assert.ok(fake.signatures.has(called.parts[0].thoughtSignature));
        assert.ok(called.parts.slice(1).every((p) => !p.thoughtSignature));
        // calls of another conversation, which we never saw
        const foreign = structuredClone([assistant, ...results]);
        for (const call of foreign[0].tool_calls) call.id = `x-${call.id}`;
        for (const result of foreign.slice(1)) result.tool_call_id = `x-${result.tool_call_id}`;
        await create({ model: FLASH3, messages: [...messages, ...foreign], tools: TOOLS });
        assert.equal(fake.last.json.contents[1].parts[0].thoughtSignature, 'skip_thought_signature_validator');
    });

scenario('one client does not get another one’s signatures', async (t) => {
    const fake = await startFakeGemini(t);
    const gw = await startGateway(t, { config: { auth: { keys: [CLIENT_KEY, 'sk-test-other'] }, 'provider gemini': providerFor(fake, { credentials: ['AIzaFakeKey-1'] }) } });
    fake.next(play.calls([{ name: 'now' }], { ids: true }));
    const [call] = (await request(gw, { body: chat(FLASH3, 'x', { tools: TOOLS }) })).json.choices[0].message.tool_calls;
    const messages = [...ask('x'), { role: 'assistant', content: null, tool_calls: [call] }, { role: 'tool', tool_call_id: call.id, content: 'noon' }];
    const signature = () => fake.last.json.contents[1].parts[0].thoughtSignature;
    assert.equal((await request(gw, { key: 'sk-test-other', body: { model: FLASH3, messages, tools: TOOLS } })).status, 200);
    assert.equal(signature(), 'skip_thought_signature_validator');
    assert.equal((await request(gw, { body: { model: FLASH3, messages, tools: TOOLS } })).status, 200);
    assert.ok(fake.signatures.has(signature()));
});

scenario('which tool has to be called', async (t) => {
    const { fake, sdk } = await pair(t);
    for (const [choice, expected] of [
        ['none', { mode: 'NONE' }], ['required', { mode: 'ANY' }], [{ type: 'function', function: { name: 'now' } }, { mode: 'ANY', allowedFunctionNames: ['now'] }],
    ]) {
        await sdk.chat.completions.create({ model: FLASH, messages: ask('x'), tools: TOOLS, tool_choice: choice });
        assert.deepEqual(fake.last.json.toolConfig, { functionCallingConfig: expected });
    }
});

scenario('arguments that are no object are told all the same', async (t) => {
    const { fake, sdk } = await pair(t);
    const calls = [['a', ''], ['b', '[1]'], ['c', '{"x":1.50}'], ['d', 'not json']].map(([id, args]) => ({ id, type: 'function', function: { name: 'now', arguments: args } }));
    await sdk.chat.completions.create({
        model: FLASH,
        messages: [...ask('x'), { role: 'assistant', content: 'let me see', tool_calls: calls }, ...calls.map((c) => ({ role: 'tool', tool_call_id: c.id, content: 'ok' }))],
        tools: TOOLS,
    });
    const [, model] = fake.last.json.contents;
    assert.deepEqual(model.parts[0], { text: 'let me see' });
    assert.deepEqual(model.parts.slice(1).map((p) => p.functionCall.args), [{}, { raw: '[1]' }, { x: 1.5 }, { raw: 'not json' }]);
});

scenario('a call that the model failed to make is retried elsewhere or an error, not an empty answer', async (t) => {
    const { fake, gw, sdk } = await pair(t);
    const bad = play.ok({ pieces: [], finish: 'MALFORMED_FUNCTION_CALL' });
    fake.next(bad);
    const answer = await sdk.chat.completions.create({ model: FLASH, messages: ask('x'), tools: TOOLS });
    assert.equal(answer.choices[0].message.content, 'Hello from Gemini.');
    fake.always(bad);
    assert.equal((await request(gw, { body: chat(FLASH, 'x', { tools: TOOLS }) })).status, 502);
});

scenario('schemas that refer to themselves, in both kinds', async (t) => {
    const tree = {
        $schema: 'http://json-schema.org/draft-07/schema#',
        type: 'object',
        properties: {
            node: { $ref: '#/$defs/Node' },
            leaf: { $ref: '#/definitions/Leaf' },
            kind: { const: 'fixed' },
            maybe: { type: ['string', 'null'], format: 'uri' },
            either: { oneOf: [{ type: 'integer', enum: [1, 2] }, { type: 'array' }] },
            both: { allOf: [{ type: 'object', properties: { a: { type: 'string' } }, required: ['a'] }, { properties: { b: { type: 'number', exclusiveMinimum: 3 } } }] },
            empty: { type: 'object', properties: {} },
        },
        required: ['node', 'gone'],
        additionalProperties: false,
        $defs: { Node: { type: 'object', properties: { children: { type: 'array', items: { $ref: '#/$defs/Node' } } } } },
        definitions: { Leaf: { type: 'string', description: 'a leaf', format: 'date-time' } },
    };
    const tools = [{ type: 'function', function: { name: 'f', parameters: tree } }];
    const { fake, sdk } = await pair(t);
    await sdk.chat.completions.create({ model: FLASH, messages: ask('x'), tools });
    const { parametersJsonSchema: large } = fake.last.json.tools[0].functionDeclarations[0];
    assert.deepEqual(large.properties.leaf, tree.definitions.Leaf);
    assert.equal(large.$schema, undefined);
    assert.deepEqual(large.properties.node.properties.children.items, { $ref: '#/$defs/Node' });
    assert.deepEqual(large.$defs, tree.$defs);

    const small = await pair(t, { provider: { 'x.schema': 'openapi' } });
    await small.sdk.chat.completions.create({ model: FLASH, messages: ask('x'), tools });
    assert.deepEqual(small.fake.last.json.tools[0].functionDeclarations[0].parameters, {
        type: 'object',
        properties: {
            node: { type: 'object', properties: { children: { type: 'array', items: { type: 'object' } } } },
            leaf: { type: 'string', description: 'a leaf', format: 'date-time' },
            kind: { type: 'string', enum: ['fixed'] },
            maybe: { type: 'string', nullable: true },
            either: { anyOf: [{ type: 'integer' }, { type: 'array', items: { type: 'string' } }] },
            both: { type: 'object', properties: { a: { type: 'string' }, b: { type: 'number' } }, required: ['a'] },
            empty: { type: 'object' },
        },
        required: ['node'],
    });
});

scenario('answers in JSON', async (t) => {
    const { fake, sdk, gw } = await pair(t);
    const schema = { type: 'object', properties: { a: { type: 'integer' } }, required: ['a'], additionalProperties: false };
    const response_format = { type: 'json_schema', json_schema: { name: 'answer', schema, strict: true } };
    fake.always(play.ok({ text: '{"a":1}' }));
    const { whole, streamed } = await bothWays(sdk, { model: FLASH, messages: ask('x'), response_format });
    assert.deepEqual(fake.last.json.generationConfig, { responseMimeType: 'application/json', responseJsonSchema: schema });
    for (const { choices } of [whole, streamed]) assert.deepEqual(JSON.parse(choices[0].message.content), { a: 1 });
    await sdk.chat.completions.create({ model: FLASH, messages: ask('JSON please'), response_format: { type: 'json_object' } });
    assert.deepEqual(fake.last.json.generationConfig, { responseMimeType: 'application/json' });
    // together with tools only from generation 3 on
    const older = await request(gw, { body: chat(FLASH, 'x', { response_format, tools: TOOLS }) });
    assert.equal(older.headers['x-chatmux-dropped'], 'strict, response_format');
    assert.equal(fake.last.json.generationConfig, undefined);
    await request(gw, { body: chat(FLASH3, 'x', { response_format, tools: TOOLS }) });
    assert.equal(fake.last.json.generationConfig.responseMimeType, 'application/json');
});

scenario('strict refuses what has no effect', async (t) => {
    const { fake, gw } = await pair(t, { provider: { strict: 'yes' } });
    for (const [model, more, param] of [[FLASH, { logprobs: true }, 'logprobs'], ['gemini-2.5-pro', { reasoning_effort: 'none' }, 'reasoning_effort'], [FLASH, { response_format: { type: 'json_object' }, tools: TOOLS.slice(1) }, 'response_format'], [FLASH, { tools: TOOLS }, 'strict']]) {
        const answer = await request(gw, { body: chat(model, 'x', more) });
        assert.equal(answer.status, 400, answer.text);
        assert.equal(answer.error.param, param);
    }
    assert.equal(fake.requests.length, 0);
});

// ---- pictures, sounds, files -----------------------------------------------------------------------------------

const user = (...parts) => [{ role: 'user', content: parts }];

scenario('pictures, sounds and documents as data', async (t) => {
    const { fake, sdk, gw } = await pair(t);
    await sdk.chat.completions.create({
        model: FLASH,
        messages: user(
            { type: 'text', text: 'what is it?' },
            { type: 'image_url', image_url: { url: `data:image/jpg;base64,${PNG}`, detail: 'low' } },
            { type: 'input_audio', input_audio: { data: 'UklGRg==', format: 'wav' } },
            { type: 'file', file: { filename: 'a.pdf', file_data: 'data:application/pdf;base64,JVBERi0=' } },
        ),
    });
    assert.deepEqual(fake.last.json.contents[0].parts, [
        { text: 'what is it?' },
        { inlineData: { mimeType: 'image/jpeg', data: PNG } },
        { inlineData: { mimeType: 'audio/wav', data: 'UklGRg==' } },
        { inlineData: { mimeType: 'application/pdf', data: 'JVBERi0=' } },
    ]);
    const byId = await request(gw, { body: { model: FLASH, messages: user({ type: 'file', file: { file_id: 'file-1' } }) } });
    assert.equal(byId.status, 400);
    assert.match(byId.error.message, /file id/);
});

/** A web server of the test's own: paths -> functions (req, res); counts what was asked. */
async function startSite(t, paths) {
    const seen = [];
    const server = http.createServer((req, res) => {
        seen.push(req);
        const page = paths[req.url.split('?')[0]];
        if (page) page(req, res);
        else res.writeHead(404).end();
    });
    await new Promise((done) => server.listen(0, '127.0.0.1', done));
    atEnd(t, () => (server.closeAllConnections(), new Promise((done) => server.close(done))));
    return { seen, base: `http://127.0.0.1:${server.address().port}` };
}

const picture = (bytes, type = 'image/png') => (req, res) => res.writeHead(200, { 'content-type': type }).end(bytes);
const to = (location, status = 302) => (req, res) => res.writeHead(status, { location }).end();

scenario('a picture behind an address is fetched, with nothing of ours', async (t) => {
    const bytes = Buffer.from(PNG, 'base64');
    const site = await startSite(t, {
        '/a.png': picture(bytes, 'application/octet-stream'),
        '/moved/x': to('../b?c=1'),
        '/b': to('//127.0.0.1:PORT/a.png', 301),
        '/ring': to('/ring'),
        '/ftp': to('ftp://127.0.0.1/a'),
        '/page': picture('<html>', 'text/html'),
        '/empty': picture(''),
        '/odd': picture('odd', 'image/webp; q=1'),
        '/huge': (req, res) => res.writeHead(200, { 'content-type': 'image/png', 'content-length': 30_000_000 }).end(Buffer.alloc(30_000_000)),
    });
    const { fake, gw } = await pair(t, { provider: { allow_private_fetch: 'yes', 'header.X-Secret': 'operators-own', user_agent: 'Operator/1' } });
    const see = (...paths) => request(gw, { body: { model: FLASH, messages: user(...paths.map((p) => ({ type: 'image_url', image_url: { url: site.base + p } }))) } });
    const twice = await see('/a.png', '/a.png');
    assert.equal(twice.status, 200, twice.text);
    assert.deepEqual(fake.last.json.contents[0].parts, Array(2).fill({ inlineData: { mimeType: 'image/png', data: PNG } }));
    assert.equal(site.seen.length, 1, 'the same address is fetched once');
    assert.equal(site.seen[0].headers['x-secret'], undefined);
    assert.equal(site.seen[0].headers['x-goog-api-key'], undefined);
    assert.equal((await see('/odd')).status, 200);
    for (const [path, why] of [['/ring', /redirects/], ['/ftp', /redirects/], ['/page', /neither/], ['/empty', /nothing/], ['/missing?sig=SECRET', /404/], ['/huge', /larger/]]) {
        const before = fake.requests.length;
        const answer = await see(path);
        assert.equal(answer.status, 400, `${path}: ${answer.text}`);
        assert.equal(answer.error.code, 'invalid_image_url');
        assert.match(answer.error.message, why);
        assert.ok(!answer.text.includes('SECRET'));
        assert.equal(fake.requests.length, before);
    }
    const relative = await see('/moved/x');
    assert.equal(relative.status, 400, 'the second redirect leads to a port that is none');
    assert.deepEqual(site.seen.slice(-2).map((r) => r.url), ['/moved/x', '/b?c=1']);
});

scenario('private addresses are not fetched, also behind a redirect', async (t) => {
    const site = await startSite(t, { '/a.png': picture(Buffer.from(PNG, 'base64')) });
    const { fake, gw } = await pair(t);
    for (const url of [`${site.base}/a.png`, site.base.replace('127.0.0.1', 'localhost'), 'http://[::1]/x', 'http://169.254.169.254/latest', 'http://10.0.0.1/a', 'http://0x7f000001/a']) {
        const answer = await request(gw, { body: { model: FLASH, messages: user({ type: 'image_url', image_url: { url } }) } });
        assert.equal(answer.status, 400, `${url}: ${answer.text}`);
        assert.equal(answer.error.code, 'invalid_image_url');
    }
    assert.equal(site.seen.length, 0);
    assert.equal(fake.requests.length, 0);
});

scenario('pictures that the model makes', async (t) => {
    const { fake, sdk, gw } = await pair(t);
    const image = { inlineData: { mimeType: 'image/png', data: PNG } };
    fake.always(play.ok({ pieces: ['Here: '], parts: [image] }));
    const { whole, streamed } = await bothWays(sdk, { model: 'gemini-2.5-flash-image', messages: ask('draw') });
    for (const { choices } of [whole, streamed]) assert.equal(choices[0].message.content, `Here: ![](data:image/png;base64,${PNG})`);
    assert.deepEqual(fake.last.json.generationConfig, { responseModalities: ['TEXT', 'IMAGE'] });

    fake.requests.length = 0;
    fake.always(play.ok({ pieces: ['A pixel.'], parts: [image], usage: { promptTokenCount: 4, candidatesTokenCount: 1290, totalTokenCount: 1294 } }));
    const made = await sdk.images.generate({ model: 'gemini-2.5-flash-image', prompt: 'a pixel', n: 2, size: '1536x1024' });
    assert.deepEqual(made.data.map((d) => d.b64_json), [PNG, PNG]);
    assert.equal(fake.requests.length, 2);
    assert.deepEqual(fake.last.json, {
        contents: [{ role: 'user', parts: [{ text: 'a pixel' }] }],
        generationConfig: { responseModalities: ['TEXT', 'IMAGE'], imageConfig: { aspectRatio: '3:2' } },
    });
    fake.always(play.ok({ pieces: [], finish: 'IMAGE_SAFETY' }));
    const refused = await request(gw, { path: '/v1/images/generations', body: { model: 'gemini-2.5-flash-image', prompt: 'x' } });
    assert.equal(refused.status, 400);
    assert.equal(refused.error.code, 'content_filter');
});

scenario('-search asks Google and tells where an answer comes from', async (t) => {
    const { fake, gw } = await pair(t);
    const groundingMetadata = { groundingChunks: [{ web: { uri: 'https://example.com/a', title: 'A' } }, { retrievedContext: {} }], webSearchQueries: ['x'] };
    fake.always(async (rec) => play.bytes(JSON.stringify({ candidates: [{ content: { parts: [{ text: 'Yes.' }] }, finishReason: 'STOP', groundingMetadata }] }))(rec));
    const answer = await request(gw, { body: chat(`${FLASH}-search`) });
    assert.deepEqual(fake.last.json.tools, [{ googleSearch: {} }]);
    assert.deepEqual(answer.json.choices[0].message.annotations.map((a) => a.url_citation.url), ['https://example.com/a']);
});

scenario('the operator’s threshold of safety', async (t) => {
    const { fake, gw } = await pair(t, { provider: { 'x.safety': 'BLOCK_NONE' } });
    await request(gw, { body: chat(FLASH) });
    assert.equal(fake.last.json.safetySettings.length, 5);
    assert.ok(fake.last.json.safetySettings.every((s) => s.threshold === 'BLOCK_NONE'));
});

// ---- failures --------------------------------------------------------------------------------------------------

scenario('each class of error', async (t) => {
    const cases = [
        ['badKey', [], 502, 'upstream_auth'],
        ['expiredKey', [], 502, 'upstream_auth'],
        ['suspended', [], 502, 'upstream_auth'],
        ['serviceDisabled', [], 503, 'verification_required'],
        ['wrongPlace', [], 403, 'upstream_error'],
        ['billing', [], 429, 'insufficient_quota'],
        ['rateLimited', ['17.2s'], 429, 'rate_limit_exceeded'],
        ['dayQuota', [], 429, 'insufficient_quota'],
        ['tooLong', [], 400, 'context_length_exceeded'],
        ['overloaded', [], 503, 'overloaded'],
        ['html', [], 502, 'upstream_error'],
        ['html', [200], 502, 'upstream_error'],
        ['error', [400, 'Invalid value at contents[0]'], 400, null],
        ['error', [404, 'models/x is not found for API version v1beta'], 404, 'model_not_found'],
        ['error', [500, 'Internal error encountered.'], 502, 'upstream_error'],
        ['error', [504, 'Deadline expired', { status: 'DEADLINE_EXCEEDED' }], 504, 'upstream_timeout'],
        ['error', [401, 'Request had invalid authentication credentials.'], 502, 'upstream_auth'],
        ['status', [200, 'no json'], 502, 'upstream_error'],
    ];
    const { fake, gw } = await pair(t, {
        provider: { credentials: ['AIzaFakeKey-1'] },
        config: { retry: { retries: 0, max_wait: '0s' }, upstream: { breaker_rate: 0 }, auth: { keys: [CLIENT_KEY], admin_secret: 'admin-secret-1' } },
    });
    const [{ id }] = (await request(gw, { path: '/admin/api/credentials', key: 'admin-secret-1' })).json.data;
    for (const [name, args, status, code] of cases) {
        for (const stream of [false, true]) {
            fake.always(play[name](...args));
            const answer = await request(gw, { body: chat(FLASH, 'x', { stream }) });
            assert.equal(answer.status, status, `${name} ${stream}: ${answer.text}`);
            assert.equal(answer.error.code, code, name);
            assert.ok(!answer.text.includes('AIza'), 'no key in an error');
            if (name === 'rateLimited') assert.equal(answer.headers['retry-after'], '18');
            await request(gw, { path: `/admin/api/credentials/${id}/reset`, method: 'POST', key: 'admin-secret-1' });
        }
    }
});

scenario('another key answers when one is limited or refused', async (t) => {
    const { fake, gw } = await pair(t);
    fake.key('AIzaFakeKey-1', play.badKey());
    fake.key('AIzaFakeKey-2', play.rateLimited());
    for (let i = 0; i < 4; i++) assert.equal((await request(gw, { body: chat(FLASH) })).status, 200);
});

scenario('an error in the middle of a stream, and streams that are cut', async (t) => {
    const { fake, gw } = await pair(t);
    for (const behave of [play.errorMidStream(), play.errorMidStream({ bare: true }), play.cut(), play.cut({ how: 'close' }), play.cut({ how: 'reset' })]) {
        fake.always(behave);
        const failure = await request(gw, { body: chat(FLASH, 'x', { stream: true }) }).then((a) => a.text, (e) => e);
        const text = typeof failure === 'string' ? failure : '';
        assert.ok(!text.includes('[DONE]') && !text.includes('"finish_reason":"stop"'), text);
    }
    // before anything was said it is hidden
    fake.always(play.ok());
    for (const behave of [play.errorMidStream({ pieces: [] }), play.cut({ pieces: [] }), play.errorMidStream({ pieces: [], bare: true })]) {
        fake.next(behave);
        const answer = await request(gw, { body: chat(FLASH, 'x', { stream: true }) });
        assert.equal(answer.status, 200, answer.text);
        assert.match(answer.text, /\[DONE\]/);
    }
});

scenario('the end of a stream may be an empty text, or the connection’s end after the reason', async (t) => {
    const { fake, gw } = await pair(t);
    for (const behave of [
        play.ok({ emptyEnd: true }),
        play.ok({ signature: 'c2ln' }),
        play.bytes('data: {"candidates":[{"content":{"parts":[{"text":"Hi"}]},"finishReason":"STOP"}]}'),
        play.bytes('data: {"candidates":[{"content":{"parts":[{"text":"H\u00e9\u4e16"}]},"finishReason":"STOP"}]}\r\n\r\n', { size: 1, gapMs: 0 }),
    ]) {
        fake.always(behave);
        const answer = await request(gw, { body: chat(FLASH, 'x', { stream: true }) });
        assert.match(answer.text, /"finish_reason":"stop"[\s\S]*\[DONE\]/);
    }
});

scenario('models are listed page by page, and a key is checked with the list', async (t) => {
    const { fake, gw } = await pair(t, { provider: { models: null }, config: { auth: { keys: [CLIENT_KEY], admin_secret: 'admin-secret-1' } } });
    const ids = await until(async () => {
        const { data } = (await request(gw, { path: '/v1/models' })).json;
        return data.length > 4 && data.map((m) => m.id);
    }, 'the list of models');
    assert.ok(ids.includes('gemini-2.5-flash') && ids.includes('gemini-embedding-001'));
    const creds = (await request(gw, { path: '/admin/api/credentials', key: 'admin-secret-1' })).json.data;
    const check = await request(gw, { path: `/admin/api/credentials/${creds[0].id}/check`, method: 'POST', key: 'admin-secret-1' });
    assert.equal(check.json.ok, true);
    // sizes of the list hold: the model's own limit of an answer
    await request(gw, { body: chat('gemini-2.5-flash-image', 'x', { max_tokens: 50_000 }) });
    assert.equal(fake.last.json.generationConfig.maxOutputTokens, 32_768);
});

scenario('a base URL that names the version, as other clients want it', async (t) => {
    const { fake, gw } = await pair(t, { provider: {} });
    await gw.stop();
    const other = await startGateway(t, { config: { 'provider gemini': providerFor(fake, { base_url: `${fake.base}/v1beta` }) } });
    assert.equal((await request(other, { body: chat(FLASH) })).status, 200);
});

// ---- vectors, counts, pictures from pictures, other dialects ---------------------------------------------------------

scenario('embeddings, batch by batch, in both encodings', async (t) => {
    const { fake, gw, sdk } = await pair(t);
    const model = 'gemini-embedding-001';
    const one = await sdk.embeddings.create({ model, input: 'hello' });
    assert.deepEqual([...one.data[0].embedding], [0.625, 0.75, 0.875]);
    assert.ok(one.usage.prompt_tokens > 0);
    const input = Array.from({ length: 205 }, (_, i) => 'x'.repeat(i + 1));
    const many = await sdk.embeddings.create({ model, input, dimensions: 2, encoding_format: 'float' });
    assert.deepEqual(many.data.map((d) => d.embedding), input.map((s) => [s.length / 8, (s.length + 1) / 8]));
    assert.deepEqual(fake.others.slice(1).map((r) => r.json.requests.length), [100, 100, 5]);
    const numbers = await request(gw, { path: '/v1/embeddings', body: { model, input: [[1, 2, 3]] } });
    assert.equal(numbers.status, 400, numbers.text);
    fake.next(play.rateLimited());
    const limited = await request(gw, { path: '/v1/embeddings', body: { model, input: 'x' } });
    assert.equal(limited.status, 200, 'another key answers');
});

scenario('a client of Anthropic’s: tools there and back, thoughts, counts', async (t) => {
    const { fake, gw } = await pair(t);
    const ask = (body) => request(gw, { path: '/v1/messages', headers: { 'anthropic-version': '2023-06-01' }, body: { model: FLASH3, max_tokens: 500, ...body } });
    const tools = [{ name: 'weather', input_schema: { type: 'object', properties: { city: { type: 'string' } } } }];
    fake.next(play.calls([{ name: 'weather', args: { city: 'Rome' } }, { name: 'weather', args: { city: 'Oslo' } }]));
    const messages = [{ role: 'user', content: 'weather?' }];
    const first = (await ask({ messages, tools })).json;
    assert.equal(first.stop_reason, 'tool_use');
    const uses = first.content.filter((b) => b.type === 'tool_use');
    assert.deepEqual(uses.map((u) => u.input.city), ['Rome', 'Oslo']);
    messages.push({ role: 'assistant', content: first.content });
    messages.push({ role: 'user', content: [
        { type: 'tool_result', tool_use_id: uses[1].id, content: [{ type: 'text', text: 'snow' }, { type: 'image', source: { type: 'base64', media_type: 'image/png', data: PNG } }] },
        { type: 'tool_result', tool_use_id: uses[0].id, content: 'no idea', is_error: true },
        { type: 'text', text: 'so?' },
    ] });
    const second = await ask({ messages, tools });
    assert.equal(second.json.content[0].text, 'Hello from Gemini.', second.text);
    const [, called, answered, rest] = fake.last.json.contents;
    assert.ok(fake.signatures.has(called.parts[0].thoughtSignature));
    assert.deepEqual(answered.parts.map((p) => p.functionResponse.response), [{ error: 'no idea' }, { output: 'snow' }]);
    assert.deepEqual(rest.parts, [{ inlineData: { mimeType: 'image/png', data: PNG } }, { text: 'so?' }]);

    fake.next(play.ok({ thoughts: ['Hm.'], text: 'Blue.', usage: { promptTokenCount: 20, cachedContentTokenCount: 8, candidatesTokenCount: 3, thoughtsTokenCount: 4, totalTokenCount: 27 } }));
    const thought = (await ask({ messages: [{ role: 'user', content: 'x' }], thinking: { type: 'enabled', budget_tokens: 3000 }, max_tokens: 4000, top_k: 5, temperature: 0.5 })).json;
    assert.equal(thought.content[0].type, 'thinking');
    assert.equal(thought.content[0].thinking, 'Hm.');
    assert.deepEqual([thought.usage.input_tokens, thought.usage.cache_read_input_tokens, thought.usage.output_tokens], [12, 8, 7]);
    assert.deepEqual(fake.last.json.generationConfig, { temperature: 0.5, topK: 5, maxOutputTokens: 4000, thinkingConfig: { includeThoughts: true, thinkingLevel: 'MEDIUM' } });

    const count = await request(gw, { path: '/v1/messages/count_tokens', headers: { 'anthropic-version': '2023-06-01' }, body: { model: FLASH, messages: [{ role: 'user', content: 'x' }], system: 'S', tools } });
    assert.deepEqual(count.json, { input_tokens: 31 });
    assert.equal(fake.others.at(-1).json.generateContentRequest.systemInstruction.parts[0].text, 'S');
    fake.next(play.blocked());
    assert.equal((await ask({ messages: [{ role: 'user', content: 'x' }] })).json.stop_reason, 'refusal');
});

scenario('a picture made from a picture', async (t) => {
    const { fake, sdk } = await pair(t);
    fake.always(play.ok({ pieces: [], parts: [{ inlineData: { mimeType: 'image/png', data: PNG } }] }));
    const image = new File([Buffer.from(PNG, 'base64')], 'a.png', { type: 'image/png' });
    const made = await sdk.images.edit({ model: 'gemini-2.5-flash-image', image, prompt: 'make it blue' });
    assert.equal(made.data[0].b64_json, PNG);
    assert.deepEqual(fake.last.json.contents[0].parts, [{ inlineData: { mimeType: 'image/png', data: PNG } }, { text: 'make it blue' }]);
});
