// The Gemini surface: Google's own SDK, relayed to an upstream that speaks the dialect, and translated for others.
import assert from 'node:assert/strict';
import { ApiError, FunctionCallingConfigMode, GoogleGenAI, ThinkingLevel, Type } from '@google/genai';
import { CLIENT_KEY, request, scenario, startGateway, until } from '../lib/gateway.mjs';
import { play, providerFor, startFakeGemini } from '../lib/fake_gemini.mjs';
import * as openai from '../lib/fake_openai.mjs';
import * as anthropic from '../lib/fake_anthropic.mjs';

const client = (gw, more = {}) => new GoogleGenAI({ apiKey: CLIENT_KEY, httpOptions: { baseUrl: gw.url, ...more } });

async function relayed(t, { provider, config, fake: fakeOptions } = {}) {
    const fake = await startFakeGemini(t, fakeOptions);
    const gw = await startGateway(t, { config: { retry: { retries: 0 }, 'provider gemini': providerFor(fake, provider), ...config } });
    return { fake, gw, ai: client(gw) };
}

async function overOpenai(t, { provider, config } = {}) {
    const fake = await openai.startFakeOpenai(t);
    const gw = await startGateway(t, { config: { retry: { retries: 0 }, 'provider up': openai.providerFor(fake, provider), ...config } });
    return { fake, gw, ai: client(gw) };
}

async function overDemo(t) {
    const gw = await startGateway(t, { config: { 'provider demo': { type: 'demo' } } });
    return { gw, ai: client(gw) };
}

const FLASH = 'gemini-2.5-flash';
const FLASH3 = 'gemini-3.5-flash';
const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';

/** Chunks of a stream, the text of all of them, and the last one. */
async function readAll(stream) {
    const chunks = [];
    for await (const chunk of stream) chunks.push(chunk);
    const parts = chunks.flatMap((c) => c.candidates?.[0]?.content?.parts ?? []);
    return {
        chunks,
        last: chunks.at(-1),
        text: parts.filter((p) => !p.thought && p.text !== undefined).map((p) => p.text).join(''),
        thoughts: parts.filter((p) => p.thought).map((p) => p.text).join(''),
        calls: parts.filter((p) => p.functionCall).map((p) => p.functionCall),
    };
}

// ---- relayed ---------------------------------------------------------------------------------------------------

const ODD_BODY = '{ "contents" : [ {"parts":[{"text":"h\\u0069 \\u20ac"}]} ],\n "generation_config":{"temperature":1.0, "topK":40.0},"x-unknown":1e2 }';

const ODD_EMBED = '{ "content" : {"parts":[{"text":"h\\u0069"}]}, "x-unknown":1e2 }';

scenario('bytes go through as they came, both ways, in every framing', async (t) => {
    const { fake, gw } = await relayed(t, { fake: { strict: false } });
    const sse = 'data: {"candidates": [{"content": {"parts": [{"text": "Hi \\u20ac"}],"role": "model"}}],"x":1.50}\r\n\r\n: comment\r\n\r\ndata: {"candidates":[{"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":3}}\r\n\r\n';
    const array = '[{\n  "candidates": [{"content": {"parts": [{"text": "a]}\\""}]}}]\n}\r\n,\r\n{"candidates":[{"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":3}}\n]\n';
    const whole = '{\n  "candidates": [ {"content":{"parts":[{"text":"x"}]}, "finishReason":"STOP"} ], "usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":1}, "odd": 1.50\n}\n';
    fake.checkBody = (rec) => (rec.json = {});
    for (const [operation, query, body] of [['streamGenerateContent', '?alt=sse', sse], ['streamGenerateContent', '', array], ['generateContent', '', whole], ['countTokens', '', '{ "totalTokens": 31 }'], ['embedContent', '', '{"embedding": {"values":[0.10]}}']]) {
        for (const size of [Infinity, 1, 7]) {
            fake.next((rec) => play.bytes(body, { size, gapMs: 0, headers: operation.startsWith('stream') ? {} : { 'content-type': 'application/json; charset=UTF-8' } })(rec));
            const sent = operation === 'embedContent' ? ODD_EMBED : ODD_BODY;
            const answer = await request(gw, { path: `/v1beta/models/${FLASH}:${operation}${query}${query ? '&' : '?'}key=${CLIENT_KEY}`, key: null, body: sent, headers: { 'content-type': 'application/json' } });
            assert.equal(answer.status, 200, answer.text);
            // what follows an array is no part of it
            assert.equal(answer.text, body === array ? array.trimEnd() : body, `${operation}${query} ${size}`);
            assert.match(answer.headers['content-type'], query ? /^text\/event-stream/ : /^application\/json/);
            const rec = operation.includes('enerate') ? fake.last : fake.others.at(-1);
            assert.equal(rec.body.toString(), sent);
            assert.equal(rec.url, `/v1beta/models/${FLASH}:${operation}${query}`, 'no key in the query');
        }
    }
    assert.ok(!gw.output.includes(CLIENT_KEY), 'no key in the log');
});

scenario('the model has another name upstream: only that changes', async (t) => {
    const { fake, gw, ai } = await relayed(t, { provider: { models: [`mine=${FLASH}`, 'vec=gemini-embedding-001'] } });
    const answer = await ai.models.generateContent({ model: 'mine', contents: 'hi' });
    assert.equal(answer.text, 'Hello from Gemini.');
    assert.equal(fake.last.url, `/v1beta/models/${FLASH}:generateContent`);
    await ai.models.embedContent({ model: 'vec', contents: ['a', 'bb'], config: { outputDimensionality: 4 } });
    assert.deepEqual(fake.others.at(-1).json.requests.map((r) => r.model), ['models/gemini-embedding-001', 'models/gemini-embedding-001']);
    const counted = await request(gw, { path: '/v1beta/models/mine:countTokens', body: { generateContentRequest: { model: 'models/mine', contents: [{ parts: [{ text: 'x' }] }] } } });
    assert.equal(counted.json.totalTokens, 31, counted.text);
    assert.equal(fake.others.at(-1).json.generateContentRequest.model, `models/${FLASH}`);
});

scenario('paths: versions, a repeated "models/", names with a slash', async (t) => {
    const { gw } = await relayed(t);
    const body = { contents: [{ parts: [{ text: 'x' }] }] };
    for (const path of [
        `/v1beta/models/${FLASH}:generateContent`, `/v1/models/${FLASH}:generateContent`, `/v1alpha/models/${FLASH}:generateContent`, `/models/${FLASH}:generateContent`,
        `/v1beta/models/models/${FLASH}:generateContent`, `/v1beta/models/models%2F${FLASH}%3AgenerateContent`, `/v1/v1beta/models/${FLASH}:generateContent`,
        `/v1beta/v1beta/models/${FLASH}:generateContent`, `/v1beta//models/${FLASH}:generateContent`, `/v1beta/models/gemini/${FLASH}:generateContent`,
    ]) {
        const answer = await request(gw, { path, body });
        assert.equal(answer.status, 200, `${path}: ${answer.text}`);
        assert.equal(answer.json.candidates[0].content.parts[0].text, 'Hello from Gemini.');
    }
    for (const headers of [{ 'x-goog-api-key': CLIENT_KEY }, { authorization: `Bearer ${CLIENT_KEY}` }, { 'x-api-key': CLIENT_KEY }])
        assert.equal((await request(gw, { path: `/v1beta/models/${FLASH}:generateContent`, key: null, body, headers })).status, 200);
    for (const [method, path, status, name] of [
        ['POST', `/v1beta/models/${FLASH}:explode`, 404, 'NOT_FOUND'], ['POST', `/v1beta/models/${FLASH}`, 404, 'NOT_FOUND'], ['POST', '/v1beta/models/:generateContent', 400, 'INVALID_ARGUMENT'],
        ['POST', '/v1beta/models/nobody-has-it:generateContent', 404, 'NOT_FOUND'], ['PUT', `/v1beta/models/${FLASH}:generateContent`, 405, 'INVALID_ARGUMENT'],
        ['POST', '/v1beta/cachedContents', 404, 'NOT_FOUND'], ['GET', '/v1beta/models/nobody-has-it', 404, 'NOT_FOUND'],
    ]) {
        const answer = await request(gw, { method, path, ...(method === 'GET' ? {} : { body }) });
        assert.equal(answer.status, status, `${method} ${path}: ${answer.text}`);
        assert.equal(answer.json.error.code, status);
        assert.equal(answer.json.error.status, name);
    }
});

scenario('the SDK, relayed: plain, streamed, chats, figures', async (t) => {
    const { fake, ai } = await relayed(t);
    const plain = await ai.models.generateContent({ model: FLASH, contents: 'hi', config: { systemInstruction: 'Be kind.', temperature: 0.5, stopSequences: ['END'], maxOutputTokens: 100, seed: 7 } });
    assert.equal(plain.text, 'Hello from Gemini.');
    assert.equal(plain.usageMetadata.thoughtsTokenCount, 2);
    assert.equal(plain.modelVersion, FLASH);
    const streamed = await readAll(await ai.models.generateContentStream({ model: FLASH, contents: 'hi' }));
    assert.equal(streamed.text, 'Hello from Gemini.');
    assert.equal(streamed.last.candidates[0].finishReason, 'STOP');
    assert.equal(streamed.last.usageMetadata.totalTokenCount, 18);
    const chat = ai.chats.create({ model: FLASH, config: { systemInstruction: 'Be brief.' } });
    await chat.sendMessage({ message: 'one' });
    assert.equal((await readAll(await chat.sendMessageStream({ message: 'two' }))).text, 'Hello from Gemini.');
    assert.equal(fake.last.json.contents.length, 3);
    assert.equal(chat.getHistory().length, 4);
});

scenario('the SDK, relayed: tools with signatures, thoughts, a schema, a picture', async (t) => {
    const { fake, ai } = await relayed(t);
    const tools = [{ functionDeclarations: [{ name: 'weather', parameters: { type: Type.OBJECT, properties: { city: { type: Type.STRING } } } }] }];
    for (const stream of [false, true]) {
        fake.next(play.calls([{ name: 'weather', args: { city: 'Rome' } }, { name: 'weather', args: { city: 'Oslo' } }], { ids: true }));
        const contents = [{ role: 'user', parts: [{ text: 'weather?' }] }];
        const ask = { model: FLASH3, contents, config: { tools } };
        const first = stream ? await readAll(await ai.models.generateContentStream(ask)) : await ai.models.generateContent(ask);
        const parts = stream ? first.chunks.flatMap((c) => c.candidates[0].content.parts ?? []).filter((p) => p.functionCall) : first.candidates[0].content.parts;
        assert.equal(parts.length, 2);
        contents.push({ role: 'model', parts }, { role: 'user', parts: parts.map(({ functionCall: { id, name } }) => ({ functionResponse: { id, name, response: { output: 'sun' } } })) });
        assert.equal((await ai.models.generateContent(ask)).text, 'Hello from Gemini.');
        assert.ok(fake.signatures.has(fake.last.json.contents[1].parts[0].thoughtSignature));
    }
    fake.next(play.ok({ thoughts: ['Hm.'] }));
    const thinking = await readAll(await ai.models.generateContentStream({ model: FLASH3, contents: 'x', config: { thinkingConfig: { includeThoughts: true, thinkingLevel: ThinkingLevel.LOW } } }));
    assert.equal(thinking.thoughts, 'Hm.');
    const drawn = await ai.models.generateContent({
        model: FLASH, contents: [{ role: 'user', parts: [{ inlineData: { mimeType: 'image/png', data: PNG } }, { text: 'what?' }] }],
        config: { responseMimeType: 'application/json', responseJsonSchema: { type: 'object', properties: { a: { type: 'string' } } } },
    });
    assert.ok(drawn.text);
});

scenario('the SDK, relayed: embeddings, token counts, models', async (t) => {
    const { gw, ai } = await relayed(t, { provider: { models: null } });
    await until(async () => (await (await ai.models.list()).page).length > 3, 'the list of models');
    const embedded = await ai.models.embedContent({ model: 'gemini-embedding-001', contents: ['a', 'bb'] });
    assert.deepEqual(embedded.embeddings.map((e) => e.values), [[0.125, 0.25, 0.375], [0.25, 0.375, 0.5]]);
    assert.equal((await ai.models.countTokens({ model: FLASH, contents: 'how many?' })).totalTokens, 31);
    const names = [];
    for await (const model of await ai.models.list({ config: { pageSize: 2 } })) names.push(model.name);
    assert.ok(names.includes(`models/${FLASH}`) && names.includes('models/gemini-embedding-001'), names.join());
    assert.equal(new Set(names).size, names.length);
    const v1 = new GoogleGenAI({ apiKey: CLIENT_KEY, apiVersion: 'v1', httpOptions: { baseUrl: gw.url } });
    assert.ok((await v1.models.list()).page.some((m) => m.name === `models/${FLASH}`), 'the same below /v1 for the SDK');
    assert.equal((await v1.models.generateContent({ model: FLASH, contents: 'x' })).text, 'Hello from Gemini.');
    assert.equal((await request(gw, { path: '/v1/models', headers: { 'x-goog-api-key': CLIENT_KEY }, key: null })).json.object, 'list', 'others get OpenAI’s list there');
    const one = await ai.models.get({ model: FLASH });
    assert.equal(one.name, `models/${FLASH}`);
    assert.equal(one.outputTokenLimit, 65_536);
    assert.ok(one.supportedActions?.includes('generateContent'));
});

/** What the SDK throws. */
const failure = (promise) => promise.then(() => assert.fail('no error'), (error) => error);

scenario('errors as the SDK knows them', async (t) => {
    const { fake, gw, ai } = await relayed(t, { provider: { credentials: ['AIzaFakeKey-1'] }, config: { retry: { retries: 0, max_wait: '0s' } } });
    // the classes are in the table of dialects.test.mjs; the message and the details are Google's own form of them
    for (const [behave, status, word] of [
        [play.error(504, 'late', { status: 'DEADLINE_EXCEEDED' }), 504, 'DEADLINE_EXCEEDED'], [play.wrongPlace(), 403, 'PERMISSION_DENIED'], [play.rateLimited('17s'), 429, 'RESOURCE_EXHAUSTED'],
    ]) {
        fake.next(behave);
        const error = await failure(ai.models.generateContent({ model: FLASH, contents: 'x' }));
        assert.ok(error instanceof ApiError, String(error));
        const body = JSON.parse(error.message).error;
        assert.deepEqual([error.status, body.code, body.status], [status, status, word]);
        if (status === 429) assert.equal(body.details.find((d) => d['@type'].endsWith('RetryInfo')).retryDelay, '17s');
    }
    const wrong = await failure(new GoogleGenAI({ apiKey: 'wrong', httpOptions: { baseUrl: gw.url } }).models.generateContent({ model: FLASH, contents: 'x' }));
    assert.equal(wrong.status, 401);
    assert.equal(JSON.parse(wrong.message).error.status, 'UNAUTHENTICATED');
    const listed = await failure(new GoogleGenAI({ apiKey: 'wrong', httpOptions: { baseUrl: gw.url } }).models.list());
    assert.equal(listed.status, 401);
    const array = await request(gw, { path: `/v1beta/models/nobody:streamGenerateContent`, body: { contents: [{ parts: [{ text: 'x' }] }] } });
    assert.equal(array.json[0].error.status, 'NOT_FOUND', array.text);
});

scenario('a stream that fails in the middle raises, in both lanes', async (t) => {
    const { fake, ai, gw } = await relayed(t);
    for (const behave of [play.errorMidStream(), play.cut(), play.cut({ how: 'close' })]) {
        fake.always(behave);
        let text = '';
        const error = await failure((async () => {
            for await (const chunk of await ai.models.generateContentStream({ model: FLASH, contents: 'x' })) {
                text += chunk.text ?? '';
                assert.equal(chunk.candidates?.[0]?.finishReason, undefined);
            }
        })());
        assert.equal(text, 'one two ');
        assert.ok(error instanceof ApiError, String(error));
        assert.ok(error.status >= 500);
    }
    fake.always(play.errorMidStream());
    const array = await request(gw, { path: `/v1beta/models/${FLASH}:streamGenerateContent`, body: { contents: [{ parts: [{ text: 'x' }] }] } }).catch((e) => e);
    if (array.text) assert.equal(JSON.parse(array.text).at(-1).error.code, 503);
    const other = await overOpenai(t);
    other.fake.always(openai.play.cutMidStream());
    const error = await failure(readAllOf(other.ai.models.generateContentStream({ model: 'm1', contents: 'x' })));
    assert.ok(error instanceof ApiError && error.status >= 500, String(error));
});

const readAllOf = async (promise) => readAll(await promise);

scenario('an answer fails over to a provider of another dialect', async (t) => {
    const fake = await startFakeGemini(t);
    const up = await openai.startFakeOpenai(t);
    const gw = await startGateway(t, {
        config: {
            retry: { retries: 0, max_wait: '0s' },
            'provider gemini': providerFor(fake, { models: ['m1=gemini-2.5-flash'], priority: 0 }),
            'provider up': openai.providerFor(up, { priority: 1 }),
        },
    });
    fake.always(play.overloaded());
    const answer = await client(gw).models.generateContent({ model: 'm1', contents: 'x' });
    assert.equal(answer.text, 'Hello from upstream.');
    assert.equal((await readAllOf(client(gw).models.generateContentStream({ model: 'm1', contents: 'x' }))).text, 'Hello from upstream.');
});

// ---- translated ------------------------------------------------------------------------------------------------

scenario('over the demo: plain, streamed, an array, thoughts, calls', async (t) => {
    const { gw, ai } = await overDemo(t);
    const names = [];
    for await (const model of await ai.models.list()) names.push(model.name);
    assert.ok(names.every((n) => n.startsWith('models/')) && names.length > 0);
    const model = names[0].slice('models/'.length);
    const plain = await ai.models.generateContent({ model, contents: 'hello there' });
    assert.ok(plain.text.length > 0);
    assert.equal(plain.candidates[0].finishReason, 'STOP');
    assert.ok(plain.usageMetadata.totalTokenCount > 0);
    const streamed = await readAllOf(ai.models.generateContentStream({ model, contents: 'hello there' }));
    assert.equal(streamed.text, plain.text);
    assert.equal(streamed.last.candidates[0].finishReason, 'STOP');
    const array = await request(gw, { path: `/v1beta/models/${model}:streamGenerateContent`, body: { contents: [{ parts: [{ text: 'hello there' }] }] } });
    assert.match(array.headers['content-type'], /^application\/json/);
    assert.equal(array.json.flatMap((c) => c.candidates[0].content.parts.map((p) => p.text)).join(''), plain.text);
    assert.equal(array.json.at(-1).candidates[0].finishReason, 'STOP');
    assert.ok((await ai.models.countTokens({ model, contents: 'how many tokens are these?' })).totalTokens > 0);
});

scenario('over OpenAI: what is asked', async (t) => {
    const { fake, gw, ai } = await overOpenai(t, { provider: { 'x.reasoning': 'reasoning_effort', 'x.efforts': 'none minimal low medium high' } });
    await ai.models.generateContent({
        model: 'm1',
        contents: [
            { role: 'user', parts: [{ text: 'look' }, { inlineData: { mimeType: 'image/png', data: PNG } }, { fileData: { fileUri: 'https://a.test/b.png', mimeType: 'image/png' } }] },
            { role: 'model', parts: [{ text: 'hidden', thought: true }, { text: 'A dot.' }] },
            { role: 'user', parts: [{ text: 'sure?' }] },
        ],
        config: {
            systemInstruction: 'Be kind.', temperature: 0.5, topP: 0.25, maxOutputTokens: 50, stopSequences: ['END'], candidateCount: 1, seed: 7, presencePenalty: 0.5, frequencyPenalty: -0.5,
            thinkingConfig: { thinkingBudget: 4000 }, safetySettings: [],
            responseMimeType: 'application/json',
            responseSchema: { type: Type.OBJECT, properties: { a: { type: Type.STRING, nullable: true }, b: { type: Type.ARRAY, items: { type: Type.INTEGER } } }, required: ['a'] },
        },
    });
    const { json } = fake.last;
    assert.deepEqual(json.messages, [
        { role: 'system', content: 'Be kind.' },
        { role: 'user', content: [{ type: 'text', text: 'look' }, { type: 'image_url', image_url: { url: `data:image/png;base64,${PNG}` } }, { type: 'image_url', image_url: { url: 'https://a.test/b.png' } }] },
        { role: 'assistant', content: 'A dot.' },
        { role: 'user', content: 'sure?' },
    ]);
    assert.equal(json.temperature, 0.5);
    assert.equal(json.top_p, 0.25);
    assert.equal(json.max_completion_tokens ?? json.max_tokens, 50);
    assert.deepEqual(json.stop, ['END']);
    assert.equal(json.seed, 7);
    assert.equal(json.presence_penalty, 0.5);
    assert.equal(json.frequency_penalty, -0.5);
    assert.equal(json.reasoning_effort, 'medium');
    assert.deepEqual(json.response_format.json_schema.schema, { type: 'object', properties: { a: { type: ['string', 'null'] }, b: { type: 'array', items: { type: 'integer' } } }, required: ['a'] });

    // the other spelling, and roles left out
    const snake = await request(gw, {
        path: '/v1beta/models/m1:generateContent',
        body: { contents: [{ parts: [{ inline_data: { mime_type: 'text/plain', data: Buffer.from('a plain text').toString('base64') } }] }], system_instruction: { parts: [{ text: 'S' }] }, generation_config: { max_output_tokens: 9, stop_sequences: ['X'] } },
    });
    assert.equal(snake.status, 200, snake.text);
    assert.deepEqual(fake.last.json.messages, [{ role: 'system', content: 'S' }, { role: 'user', content: 'a plain text' }]);
    assert.deepEqual(fake.last.json.stop, ['X']);
});

const TOOLS = [{ functionDeclarations: [
    { name: 'weather', description: 'Tells it', parameters: { type: Type.OBJECT, properties: { city: { type: Type.STRING }, when: { type: Type.STRING, nullable: true, format: 'date-time' } }, required: ['city'] } },
    { name: 'now', parametersJsonSchema: { type: 'object', properties: {}, additionalProperties: false } },
] }];

/** An answer of the fake OpenAI that calls tools, its argument pieces taking turns. */
function callTools(calls) {
    const spelled = calls.map(({ id, name, args }, index) => ({ index, id, type: 'function', function: { name, arguments: args } }));
    return async (rec) => {
        if (rec.json.stream !== true) {
            const body = openai.completion(rec.json.model, null, { finish: 'tool_calls' });
            body.choices[0].message.tool_calls = spelled.map(({ index: _, ...call }) => call);
            return openai.play.status(200, JSON.stringify(body))(rec);
        }
        const w = new openai.ChunkWriter(rec.json.model, true);
        const pieces = spelled.flatMap((c) => [{ index: c.index, id: c.id, type: 'function', function: { name: c.function.name, arguments: '' } }]);
        for (let at = 0; spelled.some((c) => at < c.function.arguments.length); at += 5)
            for (const c of spelled) if (at < c.function.arguments.length) pieces.push({ index: c.index, function: { arguments: c.function.arguments.slice(at, at + 5) } });
        return openai.play.bytes(w.role() + pieces.map((p) => w.delta({ tool_calls: [p] })).join('') + w.end('tool_calls'))(rec);
    };
}

for (const stream of [false, true])
    scenario(`over OpenAI: tools there and back, ${stream ? 'streamed' : 'whole'}`, async (t) => {
        const { fake, ai } = await overOpenai(t);
        const contents = [{ role: 'user', parts: [{ text: 'weather?' }] }];
        const ask = { model: 'm1', contents, config: { tools: TOOLS, toolConfig: { functionCallingConfig: { mode: FunctionCallingConfigMode.AUTO } } } };
        fake.next(callTools([{ id: 'call_1', name: 'weather', args: '{"city":"Rome é"}' }, { id: 'call_2', name: 'weather', args: '{"city":"Oslo"}' }, { id: 'call_3', name: 'now', args: '' }]));
        const calls = stream ? (await readAllOf(ai.models.generateContentStream(ask))).calls : (await ai.models.generateContent(ask)).functionCalls;
        assert.deepEqual(calls, [{ id: 'call_1', name: 'weather', args: { city: 'Rome é' } }, { id: 'call_2', name: 'weather', args: { city: 'Oslo' } }, { id: 'call_3', name: 'now', args: {} }]);
        assert.deepEqual(fake.last.json.tools.map((x) => x.function.parameters), [
            { type: 'object', properties: { city: { type: 'string' }, when: { type: ['string', 'null'], format: 'date-time' } }, required: ['city'] },
            { type: 'object', properties: {}, additionalProperties: false },
        ]);
        assert.equal(fake.last.json.tool_choice, 'auto');
        contents.push({ role: 'model', parts: calls.map((functionCall) => ({ functionCall })) });
        contents.push({ role: 'user', parts: [
            { functionResponse: { id: 'call_3', name: 'now', response: { error: 'no clock' } } },
            { functionResponse: { id: 'call_1', name: 'weather', response: { output: 'sun' } } },
            { functionResponse: { id: 'call_2', name: 'weather', response: { temperature: -3, sky: 'grey' } } },
            { text: 'so?' },
        ] });
        const answer = stream ? await readAllOf(ai.models.generateContentStream(ask)) : await ai.models.generateContent(ask);
        assert.equal(answer.text, 'Hello from upstream.');
        const [, assistant, ...rest] = fake.last.json.messages;
        assert.deepEqual(assistant.tool_calls.map((c) => [c.id, c.function.arguments]), [['call_1', '{"city":"Rome é"}'], ['call_2', '{"city":"Oslo"}'], ['call_3', '{}']]);
        assert.deepEqual(rest.filter((m) => m.role === 'tool').map((m) => [m.tool_call_id, m.content]).sort(), [['call_1', 'sun'], ['call_2', '{"temperature":-3,"sky":"grey"}'], ['call_3', 'Error: no clock']].sort());
        assert.equal(rest.at(-1).content, 'so?');
    });

scenario('over OpenAI: calls without ids find their results by place, and keep their ids', async (t) => {
    const { fake, ai } = await overOpenai(t);
    const contents = [
        { role: 'user', parts: [{ text: 'x' }] },
        { role: 'model', parts: [{ functionCall: { name: 'now', args: { a: 1 } } }, { functionCall: { name: 'now', args: { a: 1 } } }, { functionCall: { name: 'weather', args: {} } }] },
        { role: 'function', parts: [{ functionResponse: { name: 'weather', response: { result: 'W' } } }, { functionResponse: { name: 'now', response: { output: 'first' } } }, { functionResponse: { name: 'now', response: { output: 'second' } } }] },
    ];
    const ids = [];
    for (let i = 0; i < 2; i++) {
        await ai.models.generateContent({ model: 'm1', contents, config: { tools: TOOLS } });
        const [, assistant, ...results] = fake.last.json.messages;
        ids.push(assistant.tool_calls.map((c) => c.id).join());
        const answered = new Map(results.map((m) => [m.tool_call_id, m.content]));
        assert.deepEqual(assistant.tool_calls.map((c) => answered.get(c.id)), ['first', 'second', 'W']);
        assert.ok(assistant.tool_calls.every((c) => /^call_[a-z0-9]{1,35}$/.test(c.id)));
    }
    assert.equal(ids[0], ids[1], 'the same whenever the conversation comes back');
});

scenario('over OpenAI: which tool, how thinking is shown, figures and reasons', async (t) => {
    const { fake, ai } = await overOpenai(t, { provider: { 'x.reasoning': 'reasoning_effort', 'x.efforts': 'none minimal low medium high' } });
    for (const [functionCallingConfig, choice] of [
        [{ mode: 'ANY' }, 'required'], [{ mode: 'NONE' }, 'none'], [{ mode: 'ANY', allowedFunctionNames: ['now'] }, { type: 'function', function: { name: 'now' } }],
    ]) {
        await ai.models.generateContent({ model: 'm1', contents: 'x', config: { tools: TOOLS, toolConfig: { functionCallingConfig } } });
        assert.deepEqual(fake.last.json.tool_choice, choice);
    }
    for (const [thinkingConfig, effort] of [[{ thinkingBudget: 0 }, 'none'], [{ thinkingBudget: 1000 }, 'low'], [{ thinkingBudget: 20_000 }, 'high'], [{ thinkingLevel: ThinkingLevel.MEDIUM }, 'medium'], [{ thinkingLevel: ThinkingLevel.MINIMAL }, 'minimal']]) {
        await ai.models.generateContent({ model: 'm1', contents: 'x', config: { thinkingConfig } });
        assert.equal(fake.last.json.reasoning_effort, effort);
    }
    const w = new openai.ChunkWriter('m1', true);
    const usage = { ...openai.USAGE, prompt_tokens: 100, completion_tokens: 30, total_tokens: 130, prompt_tokens_details: { cached_tokens: 40 }, completion_tokens_details: { reasoning_tokens: 20 } };
    fake.always(openai.play.bytes(w.role() + w.delta({ reasoning_content: 'Hm.' }) + w.text('Blue.') + w.end('length', usage)));
    for (const includeThoughts of [true, false]) {
        const { text, thoughts, last, chunks } = await readAllOf(ai.models.generateContentStream({ model: 'm1', contents: 'x', config: { thinkingConfig: { includeThoughts } } }));
        assert.equal(text, 'Blue.');
        assert.equal(thoughts, includeThoughts ? 'Hm.' : '');
        assert.equal(last.candidates[0].finishReason, 'MAX_TOKENS');
        assert.ok(chunks.slice(0, -1).every((c) => !c.candidates[0].finishReason));
        assert.deepEqual(last.usageMetadata, { promptTokenCount: 100, cachedContentTokenCount: 40, candidatesTokenCount: 10, thoughtsTokenCount: 20, totalTokenCount: 130 });
    }
    fake.always(openai.play.ok({ finish: 'content_filter', text: '' }));
    const filtered = await ai.models.generateContent({ model: 'm1', contents: 'x' });
    assert.equal(filtered.candidates[0].finishReason, 'SAFETY');
});

scenario('over OpenAI: what cannot be said is refused, what need not be said is named', async (t) => {
    const { fake, gw, ai } = await overOpenai(t);
    const text = { parts: [{ text: 'x' }] };
    for (const [body, word] of [
        [{ contents: [text], cachedContent: 'cachedContents/1' }, /cachedContent/],
        [{ contents: [text], tools: [{ googleSearch: {} }] }, /googleSearch/],
        [{ contents: [{ parts: [{ fileData: { fileUri: 'https://generativelanguage.googleapis.com/v1beta/files/abc' } }] }] }, /kept by Google/],
        [{ contents: [{ parts: [{ fileData: { fileUri: 'gs://bucket/a' } }] }] }, /http/],
        [{ contents: [text], generationConfig: { responseModalities: ['AUDIO'] } }, /text and pictures/],
        [{ contents: [{ parts: [{ functionResponse: { name: 'f', response: {} } }] }] }, /no function call/],
        [{ contents: [] }, /not specified/],
        [{}, /not specified/],
        [{ contents: [{ role: 'user', parts: [] }] }, /must not be empty/],
        [{ contents: [{ role: 'system', parts: [{ text: 'x' }] }] }, /valid role/],
        [{ contents: [text], generationConfig: { temperature: 3 } }, /temperature/],
        [{ contents: [text], generation_config: { temperature: 'hot' } }, /temperature/],
        [{ contents: 'x' }, /contents/],
        ['{"contents":[{"parts":[{"text":"x"}]}],"contents":[]}', /more than once/],
        ['{"contents":', /invalid JSON/],
    ]) {
        const answer = await request(gw, { path: '/v1beta/models/m1:generateContent', body, headers: { 'content-type': 'application/json' } });
        assert.equal(answer.status, 400, `${JSON.stringify(body)}: ${answer.text}`);
        assert.equal(answer.json.error.status, 'INVALID_ARGUMENT');
        assert.match(answer.json.error.message, word);
    }
    assert.equal(fake.requests.length, 0);
    const answer = await request(gw, { path: '/v1beta/models/m1:generateContent', body: { contents: [text], safetySettings: [{}], labels: {}, generationConfig: { topK: 3, mediaResolution: 'X' } } });
    assert.equal(answer.status, 200, answer.text);
    assert.deepEqual(answer.headers['x-chatmux-dropped'].split(', ').sort(), ['generationConfig.mediaResolution', 'generationConfig.topK', 'labels', 'safetySettings']);
    assert.ok((await ai.models.countTokens({ model: 'm1', contents: 'one two three' })).totalTokens >= 3);
});

scenario('what other upstreams refuse is named as the client wrote it', async (t) => {
    const fake = await anthropic.startFakeAnthropic(t);
    const gw = await startGateway(t, { config: { 'provider up': anthropic.providerFor(fake) } });
    const text = { role: 'user', parts: [{ text: 'x' }] };
    for (const [body, field] of [
        [{ contents: [text], generationConfig: { candidateCount: 2 } }, 'generationConfig.candidateCount'],
        [{ contents: [{ role: 'user', parts: [{ inlineData: { mimeType: 'audio/wav', data: 'AAAA' } }] }] }, 'contents'],
    ]) {
        const answer = await request(gw, { path: '/v1beta/models/m1:generateContent', body });
        assert.equal(answer.status, 400, answer.text);
        assert.equal(answer.json.error.details[0].fieldViolations[0].field, field);
    }
});

scenario('over OpenAI: pictures in an answer are data, and errors are Gemini’s', async (t) => {
    const { fake, ai } = await overOpenai(t, { provider: { credentials: ['sk-up-1'] }, config: { retry: { retries: 0, max_wait: '0s' } } });
    fake.always(openai.play.rateLimited(7));
    const error = await failure(ai.models.generateContent({ model: 'm1', contents: 'x' }));
    assert.equal(error.status, 429);
    assert.equal(JSON.parse(error.message).error.details[0].retryDelay, '7s');
});

scenario('pictures of the demo are inline data', async (t) => {
    const { ai } = await overDemo(t);
    const names = [];
    for await (const model of await ai.models.list()) names.push(model.name.slice('models/'.length));
    const model = names.find((n) => n.includes('image'));
    const whole = await ai.models.generateContent({ model, contents: 'draw' });
    const { chunks } = await readAllOf(ai.models.generateContentStream({ model, contents: 'draw' }));
    for (const parts of [whole.candidates[0].content.parts, chunks.flatMap((c) => c.candidates[0].content.parts)])
        assert.ok(parts.some((p) => p.inlineData?.mimeType === 'image/png'), JSON.stringify(parts).slice(0, 300));
});
