// The fakes are strict: each refuses a request with one wrong byte in any header or field that it checks. Without this
// a passing end-to-end test would say little about what the gateway sends.
import assert from 'node:assert/strict';
import http from 'node:http';
import { test } from 'node:test';
import { LEAKING_HEADERS, play, startFakeOpenai } from '../lib/fake_openai.mjs';
import { startFakeApi } from '../lib/fake_openai_api.mjs';
import { startFakeGemini } from '../lib/fake_gemini.mjs';
import { sessionToken, startFakeHix } from '../lib/fake_hix.mjs';
import { CLIENT_KEY } from '../lib/gateway.mjs';

/** headers: {name: value | undefined}. */
function send(fake, { method = 'POST', path, headers, body }) {
    const given = Object.fromEntries(Object.entries(headers).filter(([, v]) => v !== undefined));
    return new Promise((done, fail) => {
        const req = http.request({ host: '127.0.0.1', port: fake.port, method, path, headers: given, setHost: false, agent: false }, async (res) => {
            const pieces = [];
            for await (const piece of res) pieces.push(piece);
            done({ status: res.statusCode, text: Buffer.concat(pieces).toString() });
        });
        req.on('error', fail);
        req.end(body);
    });
}

/** `value` with each byte in turn replaced by another printable one. */
function* oneByteOff(value) {
    for (let i = 0; i < value.length; i++) yield value.slice(0, i) + (value[i] === '~' ? '!' : '~') + value.slice(i + 1);
}

/** `param`: what the refusal has to be about. */
async function refuses(fake, request, what, param) {
    const before = fake.refusals.length;
    const answer = await send(fake, request);
    assert.ok(answer.status >= 400, `${what}: accepted with ${answer.status} ${answer.text.slice(0, 200)}`);
    assert.equal(fake.refusals.length, before + 1, `${what}: the refusal was not recorded`);
    if (param !== undefined) assert.match(fake.refusals.at(-1).param ?? '', param, `${what}: refused for another reason: ${fake.refusals.at(-1).message}`);
}

async function accepts(fake, request, what) {
    const before = fake.refusals.length;
    const answer = await send(fake, request);
    assert.equal(answer.status, 200, `${what}: ${answer.text}`);
    assert.equal(fake.refusals.length, before, what);
}

const TOOL = { type: 'function', function: { name: 'weather', description: 'd', parameters: { type: 'object' }, strict: null } };

// Everything the strict reader knows, once.
const CHAT = {
    model: 'm1',
    messages: [
        { role: 'system', content: 'be brief' },
        { role: 'user', content: [{ type: 'text', text: 'see' }, { type: 'image_url', image_url: { url: 'data:image/png;base64,iVBORw0KGgo=', detail: 'low' } }] },
        { role: 'assistant', content: null, tool_calls: [{ id: 'call_1', type: 'function', function: { name: 'weather', arguments: '{}' } }] },
        { role: 'tool', content: 'sunny', tool_call_id: 'call_1' },
        { role: 'user', content: 'and now?', name: 'ann' },
    ],
    max_completion_tokens: 5,
    max_tokens: 5,
    temperature: 1.5,
    top_p: 0.5,
    presence_penalty: -1,
    frequency_penalty: 1,
    n: 1,
    stop: ['a', 'b'],
    seed: -3,
    logprobs: true,
    top_logprobs: 3,
    logit_bias: { 50256: -100 },
    stream: true,
    stream_options: { include_usage: true },
    tools: [TOOL],
    tool_choice: 'auto',
    parallel_tool_calls: true,
    response_format: { type: 'json_object' },
    reasoning_effort: 'low',
    verbosity: 'high',
    modalities: ['text'],
    audio: { voice: 'v', format: 'wav' },
    service_tier: 'auto',
    store: false,
    metadata: { a: 'b' },
    user: 'u',
    safety_identifier: 's',
    prompt_cache_key: 'k',
};

/** CHAT with the value at `path` replaced. */
function withValue(path, value) {
    const body = structuredClone(CHAT);
    let at = body;
    for (const name of path.slice(0, -1)) at = at[name];
    at[path.at(-1)] = value;
    return body;
}

test('the fake OpenAI accepts what is right', async (t) => {
    const fake = await startFakeOpenai(t, { keys: ['sk-up-1'] });
    const headers = { host: fake.host, authorization: 'Bearer sk-up-1', 'content-type': 'application/json' };
    await accepts(fake, { path: '/v1/chat/completions', headers, body: JSON.stringify(CHAT) }, 'every member');
    await accepts(fake, { path: '/v1/chat/completions', headers, body: '{"model":"m1","messages":[{"role":"user","content":"hi"}]}' }, 'the smallest request');
    await accepts(fake, { path: '/v1/chat/completions', headers, body: '{"model":"m1","messages":[{"role":"user","content":"hi"}],"user":null}' }, 'null is absent');
    await accepts(fake, { method: 'GET', path: '/v1/models', headers: { host: fake.host, authorization: 'Bearer sk-up-1' } }, 'models');
    assert.deepEqual(fake.requests[0].json, CHAT);
});

test('the fake OpenAI refuses one wrong byte in the head', async (t) => {
    const fake = await startFakeOpenai(t, { keys: ['sk-up-1'], strict: false });
    const headers = { host: fake.host, authorization: 'Bearer sk-up-1', 'content-type': 'application/json' };
    const good = { path: '/v1/chat/completions', headers, body: JSON.stringify(CHAT) };
    await accepts(fake, good, 'the unchanged request');
    for (const name of Object.keys(headers)) {
        for (const value of oneByteOff(headers[name])) await refuses(fake, { ...good, headers: { ...headers, [name]: value } }, `${name}: ${value}`);
        if (name !== 'host') await refuses(fake, { ...good, headers: { ...headers, [name]: undefined } }, `no ${name}`);
    }
    for (const path of oneByteOff(good.path)) if (path[0] === '/') await refuses(fake, { ...good, path }, path);
    await refuses(fake, { ...good, path: '/v1/chat/completions?' }, 'an empty query');
    await refuses(fake, { ...good, path: '//v1/chat/completions' }, 'a doubled slash');
    await refuses(fake, { ...good, method: 'PUT' }, 'PUT');
    for (const name of LEAKING_HEADERS) {
        const value = name === 'expect' ? '100-continue' : 'x';
        await refuses(fake, { ...good, headers: { ...headers, [name]: value } }, `header ${name}`);
    }
    await refuses(fake, { ...good, headers: { ...headers, connection: 'close, x-secret' } }, 'Connection with another name');
    await refuses(fake, { ...good, headers: { ...headers, 'x-other': `a ${CLIENT_KEY}` } }, "the client's key in any header");
    await refuses(fake, { ...good, body: JSON.stringify({ ...CHAT, user: CLIENT_KEY }) }, "the client's key in the body");
});

test('the fake OpenAI refuses one wrong member', async (t) => {
    const fake = await startFakeOpenai(t, { keys: ['sk-up-1'], strict: false });
    const headers = { host: fake.host, authorization: 'Bearer sk-up-1', 'content-type': 'application/json' };
    const refusesBody = (body, what, param) =>
        refuses(fake, { path: '/v1/chat/completions', headers, body: typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body) }, what, param);
    await accepts(fake, { path: '/v1/chat/completions', headers, body: JSON.stringify(CHAT) }, 'the unchanged request');

    for (const name of Object.keys(CHAT)) {
        const { [name]: value, ...rest } = CHAT;
        await refusesBody({ ...rest, [`${name}_`]: value }, `${name} misspelt`, new RegExp(`^${name}_?$`));
        for (const wrong of [-7.5, 'wrong', [], [{}], { wrong: true }, true]) {
            const alsoRight =
                (typeof wrong === 'string' && ['model', 'user', 'safety_identifier', 'prompt_cache_key', 'stop'].includes(name)) ||
                (wrong.wrong === true && ['logit_bias', 'metadata'].includes(name)) ||
                (wrong === true && typeof value === 'boolean');
            if (!alsoRight) await refusesBody({ ...CHAT, [name]: wrong }, `${name}: ${JSON.stringify(wrong)}`, new RegExp(`^${name}`));
        }
    }
    for (const [path, value] of [
        [['temperature'], 2.1],
        [['top_p'], -0.1],
        [['presence_penalty'], -2.5],
        [['frequency_penalty'], 2.5],
        [['n'], 0],
        [['max_tokens'], 0],
        [['top_logprobs'], 21],
        [['logprobs'], false],
        [['stream'], false],
        [['stop'], ['a', 'b', 'c', 'd', 'e']],
        [['stream_options', 'include_usag'], true],
        [['stream_options', 'include_usage'], 1],
        [['messages', 0, 'role'], 'systen'],
        [['messages', 0, 'content'], null],
        [['messages', 0, 'contents'], 'x'],
        [['messages', 1, 'content', 0, 'type'], 'texts'],
        [['messages', 1, 'content', 0, 'text'], 1],
        [['messages', 1, 'content', 1, 'image_url', 'url'], 'data:image/png;base64,iVBOR~0KGgo='],
        [['messages', 1, 'content', 1, 'image_url', 'detail'], 'lov'],
        [['messages', 2, 'tool_calls', 0, 'id'], 'call_2'],
        [['messages', 2, 'tool_calls', 0, 'id'], 'x'.repeat(41)],
        [['messages', 2, 'tool_calls', 0, 'type'], 'functiom'],
        [['messages', 2, 'tool_calls', 0, 'function', 'name'], 'we ther'],
        [['messages', 2, 'tool_calls', 0, 'function', 'arguments'], {}],
        [['messages', 2, 'reasoning_content'], 'hm'],
        [['messages', 3, 'tool_call_id'], 'call_2'],
        [['messages', 3, 'role'], 'user'],
        [['tools', 0, 'type'], 'functiom'],
        [['tools', 0, 'function', 'name'], 'we.ther'],
        [['tools', 0, 'function', 'strict'], 'no'],
        [['tool_choice'], 'autp'],
        [['response_format', 'type'], 'json_objecu'],
        [['reasoning_effort'], 'lov'],
        [['audio', 'voice'], 1],
    ])
        await refusesBody(withValue(path, value), `${path.join('.')} = ${JSON.stringify(value)}`, /./);
    await refusesBody({ ...CHAT, tools: undefined }, 'tool_choice without tools');
    await refusesBody(`${JSON.stringify(CHAT)}}`, 'a byte after the JSON');
    await refusesBody('[]', 'an array');
    await refusesBody(Buffer.from(JSON.stringify({ ...CHAT, user: 'é' }), 'latin1'), 'invalid UTF-8');
});

test('the fake OpenAI notes when the other side leaves', async (t) => {
    const fake = await startFakeOpenai(t);
    fake.always(play.hang());
    const req = http.request({ host: '127.0.0.1', port: fake.port, method: 'POST', path: '/v1/chat/completions', headers: { host: fake.host, authorization: 'Bearer sk-up-1', 'content-type': 'application/json' } });
    req.on('error', () => {});
    req.end(JSON.stringify({ model: 'm1', messages: [{ role: 'user', content: 'x' }] }));
    while (fake.requests.length === 0 || fake.last.json === null) await new Promise((done) => setTimeout(done, 5));
    assert.equal(fake.last.isGone, false);
    req.destroy();
    await fake.last.gone;
    assert.equal(fake.last.isGone, true);
});

const CHROME = 'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36';

function hixHeaders(fake, more = {}) {
    return {
        host: `127.0.0.1:${fake.port}`,
        'content-type': 'application/json',
        accept: 'application/json',
        origin: 'https://hix.ai',
        referer: 'https://hix.ai/',
        cookie: `__Secure-next-auth.session-token=${fake.sessions[0]}`,
        'user-agent': CHROME,
        ...more,
    };
}

const CREATE = { path: '/api/trpc/hixChat.createChat?batch=1', body: '{"0":{"json":{"title":"Untitled","botId":85427}}}' };

async function createHixChat(fake) {
    const answer = await send(fake, { ...CREATE, headers: hixHeaders(fake) });
    assert.equal(answer.status, 200, answer.text);
    return JSON.parse(answer.text)[0].result.data.json.id;
}

test('the fake hix accepts what is right, in both framings', async (t) => {
    for (const framing of ['data', 'events']) {
        const fake = await startFakeHix(t, { framing });
        const id = await createHixChat(fake);
        const answer = await send(fake, {
            path: '/api/hix/chat',
            headers: hixHeaders(fake, { accept: 'text/event-stream', referer: `https://hix.ai/deepseek-v3?/id=${id}` }),
            body: JSON.stringify({ chatId: id, fileUrl: '', question: 'hi', search: true, searchType: 'news' }),
        });
        assert.equal(answer.status, 200);
        assert.match(answer.text, framing === 'data' ? /^data: \{"content":"Blue"\}\n\ndata: \[DONE\]\n\n$/ : /^id: 1716-0\ndata: /);
        const gone = await send(fake, { path: '/api/trpc/hixChat.deleteChat?batch=1', headers: hixHeaders(fake), body: JSON.stringify({ 0: { json: { id } } }) });
        assert.equal(gone.status, 200);
        assert.equal(fake.chats.size, 0);
    }
});

test('the fake hix refuses one wrong byte in the head', async (t) => {
    const fake = await startFakeHix(t, { strict: false });
    const headers = hixHeaders(fake);
    const good = { ...CREATE, headers };
    await accepts(fake, good, 'the unchanged request');
    for (const name of ['host', 'content-type', 'accept', 'origin', 'referer', 'cookie']) {
        for (const value of oneByteOff(headers[name])) await refuses(fake, { ...good, headers: { ...headers, [name]: value } }, `${name}: ${value}`);
        if (name !== 'host') await refuses(fake, { ...good, headers: { ...headers, [name]: undefined } }, `no ${name}`);
    }
    for (const agent of [undefined, 'curl/8.14', CHROME.replace('Chrome/', 'Chrone/'), CHROME.replace('537.36 (', '537.37 (')])
        await refuses(fake, { ...good, headers: { ...headers, 'user-agent': agent } }, `user agent ${agent}`);
    for (const path of oneByteOff(good.path)) if (path[0] === '/') await refuses(fake, { ...good, path }, path);
    await refuses(fake, { ...good, method: 'PUT' }, 'PUT');
    await refuses(fake, { ...good, headers: { ...headers, authorization: `Bearer ${CLIENT_KEY}` } }, 'an Authorization header');
    const wrong = await send(fake, { ...good, headers: { ...headers, cookie: `__Secure-next-auth.session-token=${sessionToken('nobody')}` } });
    assert.equal(wrong.status, 401);
    assert.equal(JSON.parse(wrong.text)[0].error.json.code, -32001);
});

test('the fake hix refuses one wrong byte in the body', async (t) => {
    const fake = await startFakeHix(t, { strict: false });
    const create = (body) => ({ ...CREATE, headers: hixHeaders(fake), body });
    for (const body of [
        '{"1":{"json":{"title":"Untitled","botId":85427}}}',
        '{"0":{"jsom":{"title":"Untitled","botId":85427}}}',
        '{"0":{"json":{"titel":"Untitled","botId":85427}}}',
        '{"0":{"json":{"title":7,"botId":85427}}}',
        '{"0":{"json":{"title":"Untitled","botId":85400}}}',
        '{"0":{"json":{"title":"Untitled","botId":"85427"}}}',
        '{"0":{"json":{"title":"Untitled","botId":85427,"x":1}}}',
        '{"0":{"json":{"title":"Untitled","botId":85427}}',
    ])
        await refuses(fake, create(body), body);

    const id = await createHixChat(fake);
    const body = { chatId: id, fileUrl: '', question: 'hi' };
    const ask = (change, headers = {}) => ({
        path: '/api/hix/chat',
        headers: hixHeaders(fake, { accept: 'text/event-stream', referer: `https://hix.ai/deepseek-v3?/id=${id}`, ...headers }),
        body: JSON.stringify({ ...body, ...change }),
    });
    await accepts(fake, ask({}), 'the unchanged question');
    for (const change of [
        { chatId: `${id.slice(0, -1)}~` },
        { chatId: undefined },
        { fileUrl: null },
        { fileUrl: undefined },
        { question: '' },
        { question: ['hi'] },
        { question: 'x'.repeat(8001) },
        { questions: 'hi' },
        { search: true },
        { searchType: 'news' },
        { search: true, searchType: 'newz' },
        { search: 1, searchType: 'news' },
    ])
        await refuses(fake, ask(change), JSON.stringify(change).slice(0, 80));
    await refuses(fake, ask({}, { accept: 'application/json' }), 'accept of another call');
    await refuses(fake, ask({}, { referer: `https://hix.ai/deepseek-r1?/id=${id}` }), 'a referer with another model');
    await refuses(fake, ask({}, { referer: 'https://hix.ai/' }), 'the referer of another call');
    await refuses(fake, ask({}, { cookie: `__Secure-next-auth.session-token=${fake.sessions[1]}` }), "another account's chat");
});

test('the fake of OpenAI’s other routes accepts what is right and refuses one wrong part', async (t) => {
    const fake = await startFakeApi(t, { strict: false });
    const headers = { host: 'x', authorization: 'Bearer sk-up-1', 'content-type': 'application/json' };
    const json = (path, body, more = {}) => ({ path: `/v1${path}`, headers: { ...headers, ...more }, body: JSON.stringify(body) });
    const form = (path, body, type = 'multipart/form-data; boundary=b1') => ({ path: `/v1${path}`, headers: { ...headers, 'content-type': type }, body });
    const field = (name, data, file) => `--b1\r\nContent-Disposition: form-data; name="${name}"${file ? `; filename="${file}"` : ''}\r\n\r\n${data}\r\n`;
    const heard = field('model', 'm') + field('file', 'x', 'a.mp3') + '--b1--\r\n';
    await accepts(fake, json('/embeddings', { model: 'm', input: 'x' }), 'embeddings');
    await accepts(fake, json('/completions', { model: 'm', prompt: 'x' }), 'completions');
    await accepts(fake, json('/moderations', { input: 'x' }), 'moderations');
    await accepts(fake, json('/audio/speech', { model: 'm', input: 'x', voice: 'v' }), 'speech');
    await accepts(fake, json('/images/generations', { model: 'm', prompt: 'x' }), 'images');
    await accepts(fake, form('/audio/transcriptions', heard), 'transcriptions');
    for (const [what, request] of Object.entries({
        'no model': json('/embeddings', { input: 'x' }),
        'an unknown member': json('/embeddings', { model: 'm', input: 'x', x: 1 }),
        'an empty input': json('/embeddings', { model: 'm', input: '' }),
        'a wrong format': json('/audio/speech', { model: 'm', input: 'x', voice: 'v', response_format: 'exe' }),
        'a header of the client’s': json('/embeddings', { model: 'm', input: 'x' }, { cookie: 'a=b' }),
        'a header of nobody’s': json('/embeddings', { model: 'm', input: 'x' }, { 'x-odd': '1' }),
        'the client’s key': json('/embeddings', { model: 'm', input: 'x' }, { 'openai-beta': CLIENT_KEY }),
        'another key': json('/embeddings', { model: 'm', input: 'x' }, { authorization: 'Bearer sk-up-9' }),
        'a query': json('/embeddings?a=b', { model: 'm', input: 'x' }),
        'another path': json('/embedding', { model: 'm', input: 'x' }),
        'a field twice': form('/audio/transcriptions', field('model', 'm') + heard),
        'no file': form('/audio/transcriptions', field('model', 'm') + '--b1--\r\n'),
        'a form without its end': form('/audio/transcriptions', heard.slice(0, -6)),
        'another boundary': form('/audio/transcriptions', heard, 'multipart/form-data; boundary=b2'),
        'line feeds alone': form('/audio/transcriptions', heard.replaceAll('\r\n', '\n')),
    }))
        await refuses(fake, request, what);
});

// ---- Gemini: nearly everything its strict reader knows stands in one good request ------------------------------------------------

const PLACE = { type: 'OBJECT', properties: { at: { type: 'STRING', format: 'date-time' }, all: { type: 'array', items: { type: 'integer' } } }, required: ['at'] };
const CLOSED = { type: 'object', properties: { s: { $ref: '#/$defs/s' } }, $defs: { s: { type: 'integer', exclusiveMinimum: 0 } }, additionalProperties: false };
const ASKED = { role: 'user', parts: [{ text: 'see' }, { inlineData: { mimeType: 'image/png', data: 'iVBORw0KGgo=' } }, { fileData: { fileUri: 'https://example.com/a.pdf' } }] };
const CALLING = {
    role: 'model',
    parts: [{ functionCall: { name: 'look', args: { at: 'x' }, id: 'a' }, thoughtSignature: 'skip_thought_signature_validator' }, { functionCall: { name: 'wait', id: 'b' } }],
};
const RESULTS = { role: 'user', parts: [{ functionResponse: { name: 'look', response: { output: 's' }, id: 'a' } }, { functionResponse: { name: 'wait', response: {}, id: 'b' } }] };
const SAMPLING = {
    temperature: 1.5, topP: 0.5, topK: 3, candidateCount: 2, maxOutputTokens: 99, seed: 7, presencePenalty: 1, frequencyPenalty: -1, stopSequences: ['END'],
    responseMimeType: 'application/json', responseJsonSchema: CLOSED, responseModalities: ['TEXT'], thinkingConfig: { includeThoughts: true, thinkingLevel: 'LOW' },
};
const GENERATE = {
    contents: [ASKED, CALLING, RESULTS],
    system_instruction: { parts: [{ text: 'be brief' }] },
    tools: [{ functionDeclarations: [{ name: 'look', description: 'd', parameters: PLACE }, { name: 'wait', parametersJsonSchema: CLOSED }] }, { googleSearch: {} }],
    toolConfig: { functionCallingConfig: { mode: 'ANY', allowedFunctionNames: ['look'] } },
    generationConfig: SAMPLING,
    safetySettings: [{ category: 'HARM_CATEGORY_HARASSMENT', threshold: 'BLOCK_NONE' }],
};
const GEMINI = 'gemini-3.5-flash';

/** How a request differs from the good one. */
const part = (...parts) => ({ contents: [{ role: 'user', parts }] });
const turns = (...contents) => ({ contents });
const results = (...parts) => turns(ASKED, CALLING, { role: 'user', parts });
const calls = (...parts) => turns(ASKED, { role: 'model', parts }, RESULTS);
const declares = (...functionDeclarations) => ({ tools: [{ functionDeclarations }], toolConfig: undefined });
const takes = (parameters) => declares({ name: 'f', parameters });
const takesJson = (parametersJsonSchema) => declares({ name: 'f', parametersJsonSchema });
const config = (more) => ({ generationConfig: { ...SAMPLING, ...more } });
const thinks = (thinkingConfig) => config({ thinkingConfig });
const only = (generationConfig, model) => ({ generationConfig, model, contents: [{ parts: [{ text: 'x' }] }] });
const mode = (functionCallingConfig) => ({ toolConfig: { functionCallingConfig } });

/** What is wrong: [the difference, a piece of the refusal]. */
const GEMINI_WRONG = {
    'an unknown member': [{ n: 1 }, `Unknown name "n" at 'root'`],
    'a member in both spellings': [{ toolConfig: undefined, tool_config: {}, systemInstruction: {} }, `'root.systemInstruction' is set twice`],
    'no turns': [{ contents: undefined }, `'contents', a list`],
    'an empty list of turns': [turns(), 'contents is not specified'],
    'a turn that is a text': [turns('x'), `'contents[0]' (oneof), an object`],
    'a role of another dialect': [turns({ role: 'assistant', parts: [{ text: 'x' }] }), 'valid role'],
    'a turn without parts': [turns({ role: 'user', parts: [] }), 'contents[0].parts: contents.parts must not be empty'],
    'an unknown kind of part': [part({ image: 'x' }), `Unknown name "image" at 'contents[0].parts[0]'`],
    'a part of nothing': [part({ thought: true }), `contents[0].parts[0]: required oneof field 'data'`],
    'a part of two kinds': [part({ text: 'x', fileData: { fileUri: 'https://x' } }), `required oneof field 'data'`],
    'a text that is none': [part({ text: 1 }), `'contents[0].parts[0].text' (TYPE_STRING)`],
    'a thought that is a text': [part({ text: 'x', thought: 'true' }), `'contents[0].parts[0].thought' (TYPE_BOOL)`],
    'a signature that is no Base64': [part({ text: 'x', thoughtSignature: '*' }), `thought_signature' (TYPE_BYTES)`],
    'data without a type': [part({ inlineData: { data: 'AAAA' } }), 'inlineData.mimeType must be specified'],
    'a type nobody reads': [part({ inlineData: { mimeType: 'image/bmp', data: 'AAAA' } }), 'Unsupported MIME type: image/bmp'],
    'a data URL': [part({ inlineData: { mimeType: 'image/png', data: 'data:image/png;base64,AAAA' } }), `inlineData.data' (TYPE_BYTES)`],
    'a file of this machine': [part({ fileData: { fileUri: 'file:///etc/passwd' } }), 'unsupported file uri'],
    'arguments as a text': [calls({ functionCall: { name: 'look', args: '{}' } }), `functionCall.args' (type.googleapis.com/google.protobuf.Struct)`],
    'a call without a name': [calls({ functionCall: {} }), 'functionCall.name must be specified'],
    'a result as a text': [results({ functionResponse: { name: 'look', response: 'sun' } }), `functionResponse.response' (type.googleapis.com/google.protobuf.Struct)`],
    'a result without a response': [results({ functionResponse: { name: 'look' } }), 'functionResponse.response must be specified'],
    'results of the model': [turns(ASKED, { ...RESULTS, role: 'model' }), 'function responses belong to the user'],
    'calls of the user': [turns({ ...CALLING, role: 'user' }, RESULTS), 'function calls belong to the model'],
    'a result too few': [results(RESULTS.parts[0]), 'number of function response parts is equal'],
    'words between calls and results': [turns(ASKED, CALLING, ASKED, RESULTS), 'number of function response parts is equal'],
    'results of nothing': [turns(ASKED, RESULTS), 'immediately after a function call turn'],
    'results and words': [results(...RESULTS.parts, { text: 'and?' }), 'share their content'],
    'a result of another call': [results(RESULTS.parts[0], { functionResponse: { name: 'wait', response: {}, id: 'c' } }), 'function response c has no call'],
    'a result without the id of its call': [results(RESULTS.parts[0], { functionResponse: { name: 'wait', response: {} } }), 'function response wait has no call'],
    'results that change places': [results({ functionResponse: { name: 'wait', response: {}, id: 'a' } }, RESULTS.parts[1]), 'wait answers the call of look'],
    'calls that begin': [turns(CALLING, RESULTS), 'function call turn comes immediately after a user turn'],
    'no signature': [calls({ functionCall: CALLING.parts[0].functionCall }, CALLING.parts[1]), 'missing a thought_signature in functionCall parts'],
    'a signature on the second call only': [calls(CALLING.parts[1], CALLING.parts[0]), 'missing a thought_signature in functionCall parts'],
    'a signature nobody gave': [calls({ ...CALLING.parts[0], thoughtSignature: 'AAAA' }, CALLING.parts[1]), 'Corrupted thought signature'],
    'calls without results': [turns(ASKED, CALLING), 'not answered'],
    'two turns of the model': [turns(ASKED, ...Array(2).fill({ role: 'model', parts: [{ text: 'x' }] }), ASKED), 'two model turns in a row'],
    'the model’s turn at the end': [turns(ASKED, { role: 'model', parts: [{ text: 'x' }] }), 'ends with a model turn'],
    'the model’s turn first': [turns({ role: 'model', parts: [{ text: 'x' }] }, ASKED), 'begins with a model turn'],
    'a picture in the system text': [{ system_instruction: { parts: [ASKED.parts[1]] } }, 'system_instruction takes text only'],

    'tools that are no list': [{ tools: {} }, `'tools', a list`],
    'an unknown tool': [{ tools: [{ browser: {} }] }, `Unknown name "browser" at 'tools[0]'`],
    'a tool of nothing': [{ tools: [{}] }, 'tools[0] is empty'],
    'a function of another dialect': [declares({ type: 'function', name: 'f' }), `Unknown name "type" at 'tools[0].function_declarations[0]'`],
    'a function without a name': [declares({ description: 'd' }), 'function_declarations[0].name must be specified'],
    'an odd name': [declares({ name: '1f' }), 'Invalid function name'],
    'the same name twice': [declares({ name: 'f' }, { name: 'f' }), 'Duplicate function declaration found: f'],
    'two schemas': [declares({ name: 'f', parameters: PLACE, parametersJsonSchema: CLOSED }), 'exclude each other'],
    'a keyword outside of the subset': [takes({ ...PLACE, additionalProperties: false }), `Unknown name "additionalProperties" at 'tools[0].function_declarations[0].parameters'`],
    'such a keyword further in': [takes({ type: 'OBJECT', properties: { at: { type: 'string', const: 'x' } } }), `Unknown name "const" at 'tools[0].function_declarations[0].parameters.properties[at]'`],
    'such a keyword in a list': [takes({ type: 'ARRAY', items: { oneOf: [] } }), `Unknown name "oneOf"`],
    'such a keyword in a choice': [takes({ anyOf: [{ $ref: '#' }] }), `Unknown name "$ref"`],
    'two types at once': [takes({ type: ['string', 'null'] }), 'parameters.type'],
    'a type of nobody’s': [takes({ type: 'text' }), 'parameters.type'],
    'a format of texts': [takes({ type: 'string', format: 'uri' }), "only 'enum' and 'date-time'"],
    'a number among words': [takes({ type: 'string', enum: ['a', 1] }), `parameters.enum[1]' (TYPE_STRING)`],
    'a list of nothing': [takes({ type: 'array' }), 'parameters.items: missing field'],
    'an object of nothing': [takes({ type: 'object', properties: {} }), 'parameters.properties: should be non-empty'],
    'a property that is required only': [takes({ ...PLACE, required: ['by'] }), 'property is not defined: by'],
    'a keyword outside of JSON Schema': [takesJson({ ...CLOSED, $schema: 'x' }), 'parameters_json_schema: unsupported keyword $schema'],
    'such a keyword behind a property': [takesJson({ type: 'object', properties: { a: { readOnly: true } } }), 'parameters_json_schema.properties.a: unsupported keyword readOnly'],
    'such a keyword behind items': [takesJson({ type: 'array', items: { if: {} } }), 'parameters_json_schema.items: unsupported keyword if'],
    'such a keyword behind allOf': [takesJson({ allOf: [{ then: {} }] }), 'parameters_json_schema.allOf[0]: unsupported keyword then'],
    'a reference to nothing': [takesJson({ $ref: '#/$defs/a' }), '$ref: #/$defs/a leads nowhere'],
    'a schema that is a text': [takesJson('{}'), `'tools[0].function_declarations[0].parameters_json_schema'`],
    'a schema of no properties': [takesJson({ type: 'object', properties: {} }), 'properties must not be empty'],
    'a choice nobody knows': [mode({ mode: 'REQUIRED' }), `'mode' (type.googleapis.com`],
    'a choice without functions': [{ tools: [{ googleSearch: {} }] }, 'set without function_declarations'],
    'names without force': [mode({ mode: 'AUTO', allowedFunctionNames: ['look'] }), 'only when function calling mode is ANY'],
    'a name nobody declared': [mode({ mode: 'ANY', allowedFunctionNames: ['see'] }), 'see is not declared'],
    'an unknown member of the choice': [mode({ mode: 'ANY', name: 'look' }), `Unknown name "name" at 'tool_config.function_calling_config'`],

    'an unknown setting': [config({ stop: ['END'] }), `Unknown name "stop" at 'generation_config'`],
    'heat as a text': [config({ temperature: '1' }), `'temperature' (TYPE_FLOAT)`],
    'too hot': [config({ temperature: 2.1 }), 'temperature must be in the range [0, 2]'],
    'too much of top_p': [config({ topP: 1.1 }), 'top_p must be in the range'],
    'half a top_k': [config({ topK: 0.5 }), `'top_k' (TYPE_INT32)`],
    'nine answers': [config({ candidateCount: 9 }), `'candidate_count': 9 is not within [1, 8]`],
    'too long': [config({ maxOutputTokens: 65_537 }), `'max_output_tokens': 65537`],
    'a large seed': [config({ seed: 2 ** 31 }), `'seed': 2147483648`],
    'a penalty too high': [config({ frequencyPenalty: 2.5 }), 'frequencyPenalty must be in the range'],
    'six words to stop at': [config({ stopSequences: Array(6).fill('x') }), 'at most 5'],
    'one word to stop at': [config({ stopSequences: 'x' }), `'stop_sequences', a list`],
    'an empty word to stop at': [config({ stopSequences: [''] }), 'stop_sequences must not be empty'],
    'a type of answer': [config({ responseMimeType: 'text/html' }), `'response_mime_type'`],
    'two schemas of the answer': [config({ responseSchema: PLACE }), 'response_schema and response_json_schema exclude'],
    'a schema of plain text': [config({ responseMimeType: 'text/plain' }), 'Controlled generation of only'],
    'a wrong schema of the answer': [config({ responseJsonSchema: { $schema: 'x' } }), 'response_json_schema: unsupported keyword $schema'],
    'a wrong small schema': [config({ responseJsonSchema: undefined, responseSchema: CLOSED }), `at 'generation_config.response_schema'`],
    'logprobs': [config({ logprobs: 3 }), 'Logprobs is not enabled'],
    'a picture of a model of words': [config({ responseModalities: ['IMAGE'] }), `'response_modalities'`],
    'an unknown member of thinking': [thinks({ effort: 'low' }), `Unknown name "effort" at 'generation_config.thinking_config'`],
    'thoughts wanted in words': [thinks({ includeThoughts: 'yes' }), `'include_thoughts' (TYPE_BOOL)`],
    'a budget and a level': [thinks({ thinkingBudget: 1000, thinkingLevel: 'LOW' }), 'only one of thinking budget and thinking level'],
    'an unknown level': [thinks({ thinkingLevel: 'low' }), 'Thinking level low is not supported'],
    'a level of the larger model': [only({ thinkingConfig: { thinkingLevel: 'MINIMAL' } }, 'gemini-3-pro-preview'), 'Thinking level MINIMAL is not supported'],
    'a level before there were any': [only({ thinkingConfig: { thinkingLevel: 'LOW' } }, 'gemini-2.5-flash'), 'Thinking level is not supported'],
    'too large a budget': [thinks({ thinkingBudget: 24_577 }), 'thinking budget 24577 is invalid'],
    'a model that cannot help thinking': [only({ thinkingConfig: { thinkingBudget: 0 } }, 'gemini-2.5-pro'), 'thinking budget 0 is invalid'],
    'a painter that thinks': [only({ thinkingConfig: {} }, 'gemini-2.5-flash-image'), 'Thinking is not supported'],
    'a schema beside tools, before that went': [{ ...only({ responseMimeType: 'application/json' }, 'gemini-2.5-flash') }, 'Function calling with a response mime type'],
    'a category nobody knows': [{ safetySettings: [{ category: 'HATE', threshold: 'x' }] }, 'safety_settings.category'],
    'a setting without its threshold': [{ safetySettings: [{ category: 'HARM_CATEGORY_HATE_SPEECH' }] }, 'safety_settings.threshold must be specified'],
};

/** To the other routes: [path behind the model, a good body, what is wrong -> as above]. */
const GEMINI_ROUTES = {
    'gemini-3.5-flash:countTokens': [{ generateContentRequest: { ...GENERATE, model: `models/${GEMINI}` } }, {
        'both ways to count': [{ contents: [ASKED] }, 'only one of contents and generate_content_request'],
        'another model inside': [{ generateContentRequest: { ...GENERATE, model: 'models/x' } }, 'generate_content_request.model is models/x'],
        'something wrong inside': [{ generateContentRequest: { ...GENERATE, model: `models/${GEMINI}`, n: 1 } }, 'Unknown name "n"'],
        'a setting where none belongs': [{ generationConfig: {} }, 'Unknown name "generationConfig"'],
        'a wrong part': [{ generateContentRequest: undefined, contents: [{ parts: [{}] }] }, "required oneof field 'data'"],
    }],
    'gemini-embedding-001:embedContent': [{ content: { parts: [{ text: 'x' }] }, taskType: 'CLUSTERING', outputDimensionality: 3 }, {
        'nothing to embed': [{ content: undefined }, 'root.content must be specified'],
        'an empty text': [{ content: { parts: [{ text: '' }] } }, 'must be text and not empty'],
        'an unknown task': [{ taskType: 'X' }, "'task_type'"],
        'too many numbers': [{ outputDimensionality: 3073 }, "'output_dimensionality': 3073"],
        'another model': [{ model: 'models/x' }, 'model is models/x'],
    }],
    'gemini-embedding-001:batchEmbedContents': [{ requests: [{ model: 'models/gemini-embedding-001', content: { parts: [{ text: 'x' }] } }] }, {
        'no requests': [{ requests: [] }, 'at most 100'],
        'a request without its model': [{ requests: [{ content: { parts: [{ text: 'x' }] } }] }, 'requests[].model is undefined'],
        'a wrong request': [{ requests: [{ model: 'models/gemini-embedding-001', content: { parts: [{ text: 'x' }] }, x: 1 }] }, 'Unknown name "x"'],
    }],
};

test('the fake of Gemini accepts what is right and says of each wrong part what is wrong', async (t) => {
    const fake = await startFakeGemini(t, { strict: false });
    const headers = { host: `127.0.0.1:${fake.port}`, 'x-goog-api-key': fake.keys[0], 'content-type': 'application/json' };
    const ask = (body, more = {}, route = `${GEMINI}:generateContent`) => ({ path: `/v1beta/models/${route}`, headers: { ...headers, ...more }, body: typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body) });
    const turnsDown = async (what, request, status, reason) => {
        const answer = await send(fake, request);
        assert.equal(answer.status, status, `${what}: ${answer.text.slice(0, 200)}`);
        const said = answer.text.startsWith('<') ? fake.refusals.at(-1).message : JSON.parse(answer.text).error.message;
        assert.ok(said.includes(reason), `${what}: refused for another reason: ${said}`);
    };
    await accepts(fake, ask(GENERATE), 'the whole request');
    for (const [what, [{ model, ...change }, reason]] of Object.entries(GEMINI_WRONG))
        await turnsDown(what, ask({ ...GENERATE, ...(model === 'gemini-2.5-flash' || !model ? {} : { tools: undefined, toolConfig: undefined }), ...change }, {}, `${model ?? GEMINI}:generateContent`), 400, reason);
    for (const [route, [good, wrong]] of Object.entries(GEMINI_ROUTES)) {
        await accepts(fake, ask(good, {}, route), route);
        for (const [what, [change, reason]] of Object.entries(wrong)) await turnsDown(`${route}, ${what}`, ask({ ...good, ...change }, {}, route), 400, reason);
    }
    for (const [what, more, status, reason] of [
        ['no key', { 'x-goog-api-key': undefined }, 403, 'unregistered callers'],
        ['another key', { 'x-goog-api-key': 'AIzaFakeKey-9' }, 400, 'API key not valid'],
        ['a key twice', { 'x-goog-api-key': [fake.keys[0], fake.keys[0]] }, 400, 'x-goog-api-key occurs twice'],
        ['a key of another dialect', { authorization: `Bearer ${fake.keys[0]}` }, 401, 'authentication credentials'],
        ['the client’s key', { 'x-odd': CLIENT_KEY }, 400, 'leak: the request head'],
        ['a header of the client’s', { cookie: 'a=b' }, 400, 'leak: the header cookie'],
        ['another host', { host: 'x' }, 400, 'Host is x'],
        ['another type', { 'content-type': 'text/plain' }, 400, 'content type text/plain'],
        ['no type', { 'content-type': undefined }, 400, 'content type undefined'],
    ])
        await turnsDown(what, ask(GENERATE, more), status, reason);
    for (const [what, request, status, reason] of [
        ['no JSON', ask('{'), 400, 'Invalid JSON payload'],
        ['bytes that are no text', ask(Buffer.from([0x22, 0xff, 0x22])), 400, 'not UTF-8'],
        ['the client’s key inside', ask({ ...GENERATE, labels: { a: CLIENT_KEY } }), 400, 'leak: the body'],
        ['another model than the address', ask({ ...GENERATE, model: 'models/x' }), 400, 'model is models/x'],
        ['an unknown model', ask(GENERATE, {}, 'gpt-4o:generateContent'), 404, 'models/gpt-4o is not found'],
        ['a model of other uses', ask(GENERATE, {}, 'gemini-embedding-001:generateContent'), 404, 'not supported for generateContent'],
        ['a key in the address', ask(GENERATE, {}, `${GEMINI}:generateContent?key=x`), 400, 'unexpected query ?key=x'],
        ['another version', { ...ask(GENERATE), path: `/v1/models/${GEMINI}:generateContent` }, 404, 'Not found: POST /v1/models'],
        ['another method', { ...ask(GENERATE), method: 'PUT' }, 404, 'no PUT here'],
    ])
        await turnsDown(what, request, status, reason);
});
